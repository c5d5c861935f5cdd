// Attention of many tokens over many keys and values.
//
// Keys and values of some tokens are laid out as panels of many.h once, for all tokens and heads of
// a task. Sums go on from chunk to chunk, as in FlashAttention (Dao et al., 2022): the highest score
// so far divides them. Scores are float32, shares of values bfloat16.

#pragma once

#ifdef __AVX512BF16__

#include <algorithm>
#include <vector>

#include "many.h"

constexpr int64_t CHUNK = 128;       // keys at once
constexpr int64_t TASK_ROWS = 448;   // of one task, each head of a token being one

// Tokens of one sequence and the heads that share keys and values: a task.
struct Span {
    int64_t row, num;     // of the packed batch
    int64_t head, heads;  // which, and how many of them
    int64_t seen;         // keys that the first token sees
    int64_t more;         // that each one behind it sees more: 1, or 0 where all see all

    int64_t seen_by(int64_t token) const { return seen + more * token; }
};

// Tokens of one task.
inline int64_t span_tokens(int64_t heads) { return std::max<int64_t>(MOST, TASK_ROWS / heads); }

// `Source` has key(i) and value(i), each the address of `dim` values.
template <class Source>
class Attending {
  public:
    Attending(const Span& span, Source source, Rows queries, int64_t dim, float scaling)
        : span(span), source(source), queries(queries), dim(dim), scaling(scaling),
          columns((dim + TILE_OUT - 1) / TILE_OUT), width(columns * TILE_OUT), keys(CHUNK * dim),
          values(CHUNK * width), outs(span.heads * span.num * width),
          highest(span.heads * span.num, -INFINITY), sum(highest.size()) {}

    // To [rows, all heads * dim], `stride` values from row to row.
    void run(bf16* to, int64_t stride) {
        const int64_t end = span.seen_by(span.num - 1);
        const Parts parts(span.num);
        for (chunk = 0; chunk < end; chunk += CHUNK) {
            num_keys = std::min(CHUNK, end - chunk);
            lay_keys();
            lay_values();
            for (int64_t head = 0; head < span.heads; ++head)
                parts.each(0, parts.num, [&](int64_t first, auto num) { go_on<num>(head, first); });
        }
        write_out(to, stride);
    }

  private:
    static int64_t whole(int64_t num) { return (num + TILE_OUT - 1) / TILE_OUT * TILE_OUT; }

    // [keys / 32][dim / 2][32][2]; keys that are not there are 0.
    void lay_keys() {
        const int64_t pairs = dim / 2;
        auto* to = reinterpret_cast<Pair*>(keys.data());
        for (int64_t key = 0; key < whole(num_keys); ++key) {
            Pair* column = to + key / TILE_OUT * TILE_OUT * pairs + key % TILE_OUT;
            const bf16* from = key < num_keys ? source.key(chunk + key) : nullptr;
            for (int64_t i = 0; i < pairs; ++i)
                column[i * TILE_OUT] = from ? read<Pair>(from + 2 * i) : 0;
        }
    }

    // [dim / 32][keys / 2][32][2]; values that are not there are 0.
    void lay_values() {
        for (int64_t key = 0; key < num_keys; key += 2) {
            const bf16* left = source.value(chunk + key);
            const bf16* right = key + 1 < num_keys ? source.value(chunk + key + 1) : nullptr;
            for (int64_t column = 0; column < columns; ++column) {
                const int64_t first = column * TILE_OUT;
                bf16* to = &values[first * CHUNK + key * TILE_OUT];
                for (int64_t i = 0; i < std::min<int64_t>(TILE_OUT, dim - first); ++i) {
                    to[2 * i] = left[first + i];
                    to[2 * i + 1] = right ? right[first + i] : 0;
                }
            }
        }
    }

    // Some tokens of one head, with the keys that are laid out.
    template <int NUM>
    void go_on(int64_t head, int64_t first) {
        Floats scores[NUM][CHUNK / LANES];
        bf16 shares[NUM][CHUNK];
        Rows asked = queries.from(span.row + first);
        asked.first += (span.head + head) * dim;
        for (int64_t key = 0; key < num_keys; key += TILE_OUT) {
            Sums<NUM> sums = {};
            add_panel<NUM>(&keys[key * dim], asked, dim, sums);
            for (int i = 0; i < NUM; ++i)
                for (int v = 0; v < VECTORS; ++v) scores[i][key / LANES + v] = sums[i][v] * scaling;
        }
        const int64_t place = head * span.num + first;
        float kept[NUM];
        for (int i = 0; i < NUM; ++i)
            kept[i] = soften(scores[i], span.seen_by(first + i) - chunk, place + i, shares[i]);
        const int64_t terms = (num_keys + 1) / 2 * 2;
        for (int64_t column = 0; column < columns; ++column) {
            float* out = &outs[place * width + column * TILE_OUT];
            Sums<NUM> sums;
            for (int i = 0; i < NUM; ++i)
                for (int v = 0; v < VECTORS; ++v)
                    sums[i][v] = read<Floats>(out + i * width + v * LANES) * kept[i];
            add_panel<NUM>(&values[column * TILE_OUT * CHUNK], {shares[0], CHUNK}, terms, sums);
            for (int i = 0; i < NUM; ++i)
                for (int v = 0; v < VECTORS; ++v) write(out + i * width + v * LANES, sums[i][v]);
        }
    }

    // One row's scores, of which it sees the first `seen` -> shares, in bfloat16; and by what its
    // sums so far are to be multiplied.
    float soften(const Floats* scores, int64_t seen, int64_t place, bf16* shares) {
        seen = std::min(seen, num_keys);
        const int64_t vectors = whole(num_keys) / LANES;
        if (seen <= 0) {
            std::fill_n(shares, vectors * LANES, 0);
            return 1.0f;
        }
        const auto hidden = [&](int64_t v) { return LANE_NUMBERS + int(v * LANES) >= int(seen); };
        Floats most = Floats{} - INFINITY;
        for (int64_t v = 0; v < vectors; ++v) {
            const Floats score = hidden(v) ? Floats{} - INFINITY : scores[v];
            most = score > most ? score : most;
        }
        const float before = highest[place], now = std::fmax(before, largest(most));
        Floats sums = {};
        for (int64_t v = 0; v < vectors; ++v) {
            const Floats share = rounded(hidden(v) ? Floats{} : exponential(scores[v] - now));
            sums += share;
            write(shares + v * LANES, share);
        }
        const float kept = std::exp(before - now);
        sum[place] = sum[place] * kept + total(sums);
        highest[place] = now;
        return kept;
    }

    void write_out(bf16* to, int64_t stride) const {
        for (int64_t head = 0; head < span.heads; ++head)
            for (int64_t i = 0; i < span.num; ++i) {
                const int64_t place = head * span.num + i;
                bf16* out = to + (span.row + i) * stride + (span.head + head) * dim;
                for (int64_t d = 0; d < dim; ++d)
                    out[d] = narrowed(outs[place * width + d] / sum[place]);
            }
    }

    const Span& span;
    const Source source;
    const Rows queries;  // all heads of a token side by side
    const int64_t dim;
    const float scaling;
    const int64_t columns, width;  // of values: panels, and values in them
    int64_t chunk = 0, num_keys = 0;
    std::vector<bf16> keys, values;
    std::vector<float> outs, highest, sum;
};

#endif
