// Causal attention of many new tokens of a sequence over its pages of keys and values.
//
// Keys and values of some tokens of one KV head are laid out as panels of many.h once, for all new
// tokens and query heads of a task. Sums go on from chunk to chunk, as in FlashAttention (Dao et
// al., 2022): what is highest so far divides them. Scores are float32, shares of values bfloat16.

#pragma once

#ifdef __AVX512BF16__

#include <algorithm>
#include <vector>

#include "attention.h"
#include "many.h"

constexpr int64_t CHUNK = 128;  // keys at once
constexpr int64_t SPAN = 64;    // new tokens of one task
constexpr Ints LANE_NUMBERS = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// New tokens [first, first + num) of a sequence and the query heads of one KV head.
struct Span {
    int64_t sequence, kv_head, row, first, num;  // `row`: of the sequence's first new token
    int64_t before;                              // tokens of the sequence that are not new
};

class Attending {
  public:
    Attending(const Heads& heads, const Pages& pages, int64_t layer, const Span& span, Rows qkv)
        : heads(heads), pages(pages), layer(layer), span(span), qkv(qkv),
          columns((heads.dim + TILE_OUT - 1) / TILE_OUT), width(columns * TILE_OUT),
          keys(CHUNK * heads.dim), values(CHUNK * width), gathered(CHUNK * heads.dim),
          outs(heads.group() * span.num * width), highest(heads.group() * span.num, -INFINITY),
          sum(highest.size()) {}

    // To [rows, heads * dim].
    void run(bf16* to) {
        const int64_t end = span.before + span.first + span.num;
        for (int64_t chunk = 0; chunk < end; chunk += CHUNK) {
            num_keys = std::min(CHUNK, end - chunk);
            lay_keys(chunk);
            lay_values(chunk);
            const Parts parts(span.num);
            for (int64_t head = 0; head < heads.group(); ++head)
                parts.each(0, parts.num, [&](int64_t first, auto num) {
                    go_on<num>(head, first, chunk);
                });
        }
        write_out(to);
    }

  private:
    const bf16* at(const bf16* page, int64_t token) const {
        return page + pages.at(heads, layer, span.sequence, token) + span.kv_head * heads.dim;
    }

    // [keys / 32][dim / 2][32][2]; keys that are not there are 0.
    void lay_keys(int64_t chunk) {
        const int64_t pairs = heads.dim / 2;
        auto* to = reinterpret_cast<Pair*>(keys.data());
        for (int64_t key = 0; key < round_up(num_keys); ++key) {
            Pair* column = to + key / TILE_OUT * TILE_OUT * pairs + key % TILE_OUT;
            if (key >= num_keys) {
                for (int64_t i = 0; i < pairs; ++i) column[i * TILE_OUT] = 0;
                continue;
            }
            const bf16* from = at(pages.keys, chunk + key);
            for (int64_t i = 0; i < pairs; ++i) column[i * TILE_OUT] = read<Pair>(from + 2 * i);
        }
    }

    // [dim / 32][keys / 2][32][2]; values that are not there are 0.
    void lay_values(int64_t chunk) {
        std::fill(gathered.begin(), gathered.end(), 0);
        for (int64_t key = 0; key < num_keys; ++key)
            std::copy_n(at(pages.values, chunk + key), heads.dim, &gathered[key * heads.dim]);
        for (int64_t column = 0; column < columns; ++column) {
            const int64_t first = column * TILE_OUT;
            const int64_t num = std::min<int64_t>(TILE_OUT, heads.dim - first);
            bf16* to = &values[first * CHUNK];
            for (int64_t key = 0; key < num_keys; key += 2, to += 2 * TILE_OUT) {
                const bf16* from = &gathered[key * heads.dim + first];
                for (int64_t i = 0; i < num; ++i) {
                    to[2 * i] = from[i];
                    to[2 * i + 1] = from[i + heads.dim];
                }
            }
        }
    }

    static int64_t round_up(int64_t num) { return (num + TILE_OUT - 1) / TILE_OUT * TILE_OUT; }

    template <int NUM>
    void go_on(int64_t head, int64_t first, int64_t chunk) {
        Floats scores[NUM][CHUNK / LANES];
        bf16 shares[NUM][CHUNK];
        const int64_t token = span.first + first, row = span.row + token;
        const int64_t query = (span.kv_head * heads.group() + head) * heads.dim;
        const Rows asked = {qkv.first + row * qkv.stride + query, qkv.stride};
        for (int64_t key = 0; key < num_keys; key += TILE_OUT) {
            Sums<NUM> sums = {};
            add_panel<NUM>(&keys[key * heads.dim], asked, heads.dim, sums);
            for (int i = 0; i < NUM; ++i)
                for (int v = 0; v < VECTORS; ++v)
                    scores[i][key / LANES + v] = sums[i][v] * heads.scaling;
        }
        const int64_t place = head * span.num + first;
        float kept[NUM];
        for (int i = 0; i < NUM; ++i)
            kept[i] = soften(scores[i], span.before + token + i + 1 - chunk, place + i, shares[i]);
        for (int64_t column = 0; column < columns; ++column) {
            float* out = &outs[place * width + column * TILE_OUT];
            Sums<NUM> sums;
            for (int i = 0; i < NUM; ++i)
                for (int v = 0; v < VECTORS; ++v)
                    sums[i][v] = read<Floats>(out + i * width + v * LANES) * kept[i];
            const int64_t terms = (num_keys + 1) / 2 * 2;
            add_panel<NUM>(&values[column * TILE_OUT * CHUNK], {shares[0], CHUNK}, terms, sums);
            for (int i = 0; i < NUM; ++i)
                for (int v = 0; v < VECTORS; ++v) write(out + i * width + v * LANES, sums[i][v]);
        }
    }

    // One row's scores, of which it sees the first `seen` -> shares, in bfloat16; and by what its
    // sums so far are to be multiplied.
    float soften(const Floats* scores, int64_t seen, int64_t place, bf16* shares) {
        seen = std::min(seen, num_keys);
        const int64_t vectors = round_up(num_keys) / LANES;
        const auto hidden = [&](int64_t v) { return LANE_NUMBERS + int(v * LANES) >= int(seen); };
        Floats most = Floats{} - INFINITY;
        for (int64_t v = 0; v < vectors; ++v) {
            const Floats score = hidden(v) ? Floats{} - INFINITY : scores[v];
            most = score > most ? score : most;
        }
        const float before = highest[place], now = std::fmax(before, largest(most));
        if (seen <= 0) {
            std::fill_n(shares, vectors * LANES, 0);
            return 1.0f;
        }
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

    void write_out(bf16* to) const {
        const int64_t stride = heads.num * heads.dim;
        for (int64_t head = 0; head < heads.group(); ++head)
            for (int64_t i = 0; i < span.num; ++i) {
                const int64_t place = head * span.num + i, row = span.row + span.first + i;
                bf16* out = to + row * stride + (span.kv_head * heads.group() + head) * heads.dim;
                for (int64_t d = 0; d < heads.dim; ++d)
                    out[d] = narrowed(outs[place * width + d] / sum[place]);
            }
    }

    const Heads& heads;
    const Pages& pages;
    const int64_t layer;
    const Span& span;
    const Rows qkv;
    const int64_t columns, width;  // of values: panels, and values in them
    int64_t num_keys = 0;
    std::vector<bf16> keys, values, gathered;
    std::vector<float> outs, highest, sum;
};

#endif
