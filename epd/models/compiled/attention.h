// Attention of new tokens, one per sequence, over pages of keys and values.
//
// Pages of a layer are [slots, kv_heads, head_dim]; slot = block * block_size + offset. A sequence
// is cut into pieces, so that many threads can share a long one; merge() puts them together.

#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "known.h"
#include "pairs.h"
#include "vectors.h"

constexpr int64_t PIECE = 256;  // tokens

struct Heads {
    int64_t num, num_kv, dim;
    float scaling, eps;

    int64_t group() const { return num / num_kv; }
    int64_t width() const { return (num + 2 * num_kv) * dim; }  // of q, k and v side by side
};

struct Pages {
    bf16 *keys, *values;
    int64_t layer_size, block_size;
    const int32_t* tables;  // [sequences, table_width] block numbers
    int64_t table_width;
    const int32_t* lengths;  // [sequences], with the new token

    int64_t at(const Heads& heads, int64_t layer, int64_t sequence, int64_t token) const {
        const int64_t block = tables[sequence * table_width + token / block_size];
        const int64_t slot = block * block_size + token % block_size;
        return layer * layer_size + slot * heads.num_kv * heads.dim;
    }
    int64_t num_pieces(int64_t sequence) const {
        return (lengths[sequence] + PIECE - 1) / PIECE;
    }
};

// Of one layer and one new token.
struct NewToken {
    const float* qkv;
    const bf16 *q_norm, *k_norm;  // [head_dim] or null
    const bf16 *cos, *sin;        // [head_dim]
};

// What one piece says about one query head: not divided by its sum yet.
struct Partial {
    float highest, sum;
};

inline void normalise(const float* x, const bf16* weight, int64_t size, float eps, float* to) {
    float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < size; ++i) squares += x[i] * x[i];
    const float scale = 1.0f / std::sqrt(squares / size + eps);
    for (int64_t i = 0; i < size; ++i) to[i] = rounded(widened(weight[i]) * rounded(x[i] * scale));
}

// One head, normalised where the model does so, then rotated.
inline void rotate(const float* head, const bf16* norm, const NewToken& token, const Heads& heads,
                   float* to) {
    const int64_t half = heads.dim / 2;
    if (norm) {
        normalise(head, norm, heads.dim, heads.eps, to);
        head = to;
    }
    const auto turn = [&](int64_t i, auto like) {
        using Values = decltype(like);
        const auto a = read<Values>(head + i), b = read<Values>(head + half + i);
        const auto part = [&](const bf16* turned, int64_t at) {
            if constexpr (std::is_same_v<Values, float>) return widened(turned[at]);
            else return widened(turned + at);
        };
        const Values first = rounded(a * part(token.cos, i)) - rounded(b * part(token.sin, i));
        const Values second = rounded(b * part(token.cos, half + i)) +
                              rounded(a * part(token.sin, half + i));
        write(to + i, rounded(first));
        write(to + half + i, rounded(second));
    };
    int64_t i = 0;
    for (; i + LANES <= half; i += LANES) turn(i, Floats());
    for (; i < half; ++i) turn(i, float());
}

inline void append(const NewToken& token, const Heads& heads, int64_t kv_head, bf16* key,
                   bf16* value) {
    const float* k = token.qkv + (heads.num + kv_head) * heads.dim;
    const float* v = k + heads.num_kv * heads.dim;
    float* rotated = scratch<2>(heads.dim);
    rotate(k, token.k_norm, token, heads, rotated);
    for (int64_t i = 0; i < heads.dim; ++i) {
        key[i] = narrowed(rotated[i]);
        value[i] = narrowed(v[i]);
    }
}

// Of a head's values, LANES pairs each.
inline int64_t steps(int64_t dim) { return (dim + 2 * LANES - 1) / (2 * LANES); }

// Scores of HEADS heads for `num` tokens, LANES at most, whose keys are `stride` apart: lanes are
// tokens. `query` [HEADS][steps(dim)][LANES] in pairs, 0 behind the last value.
template <int HEADS>
inline void score(const bf16* keys, int64_t stride, int64_t num, const Pair* query, int64_t dim,
                  float scaling, float* scores) {
    Floats sums[HEADS] = {};
    for (int64_t d = 0; d < dim; d += 2 * LANES, query += LANES) {
        Words words[LANES];
        for (int64_t i = 0; i < LANES; ++i) {
            const bf16* key = keys + std::min(i, num - 1) * stride + d;
            words[i] = dim - d < 2 * LANES ? Words(_mm512_zextsi256_si512(read<__m256i>(key)))
                                           : read<Words>(key);
        }
        transpose(words);
        for (int p = 0; p < LANES; ++p) {
            const Pairs pairs(words[p]);
#pragma GCC unroll 8
            for (int head = 0; head < HEADS; ++head)
                sums[head] = pairs.times(query[head * steps(dim) * LANES + p], sums[head]);
        }
    }
    const Floats nothing = Floats{} - INFINITY;
    for (int head = 0; head < HEADS; ++head)
        write(scores + head * PIECE, LANE_NUMBERS < int(num) ? sums[head] * scaling : nothing);
}

// In place: scores -> e^(score - highest), of `num` tokens and a multiple of LANES.
inline Partial softened(float* scores, int64_t num) {
    Floats most = read<Floats>(scores), sums = {};
    for (int64_t i = LANES; i < num; i += LANES) {
        const Floats found = read<Floats>(scores + i);
        most = found > most ? found : most;
    }
    const float highest = largest(most);
    for (int64_t i = 0; i < num; i += LANES) {
        const Floats shares = exponential(read<Floats>(scores + i) - highest);
        write(scores + i, shares);
        sums += shares;
    }
    return {highest, total(sums)};
}

// Adds the values of `num` tokens, `stride` apart, each times its share: COLUMNS vectors of them,
// for HEADS heads.
template <int HEADS, int COLUMNS>
inline void add_values(const bf16* values, int64_t stride, int64_t num, const float* shares,
                       Floats (&sums)[HEADS][COLUMNS]) {
    for (int64_t i = 0; i < num; ++i, values += stride)
#pragma GCC unroll 2
        for (int v = 0; v < COLUMNS; ++v) {
            const Floats value = widened(values + v * LANES);
#pragma GCC unroll 8
            for (int head = 0; head < HEADS; ++head)
                sums[head][v] += value * shares[head * PIECE + i];
        }
}

// The query heads of one KV head over a piece of a sequence. Everything is read once for GROUP heads.
class Attend {
  public:
    Attend(const Heads& heads, const Pages& pages, int64_t layer, int64_t sequence,
           int64_t kv_head, int64_t first)
        : heads(heads), pages(pages), layer(layer), sequence(sequence), kv_head(kv_head),
          first(first), num(std::min(PIECE, pages.lengths[sequence] - first)),
          stride(heads.num_kv * heads.dim) {}

    // Asks memory for the keys and values of LANES tokens from `i` on; false behind the last one.
    bool fetch(int64_t i) const {
        constexpr int64_t line = 32;
        if (i >= num) return false;
        const int64_t end = std::min<int64_t>(LANES, num - i) * stride;
        for (int64_t at = place(i), last = at + end; at < last; at += stride)
            for (int64_t d = 0; d < heads.dim; d += line) {
                __builtin_prefetch(pages.keys + at + d, 0, 2);
                __builtin_prefetch(pages.values + at + d, 0, 2);
            }
        return true;
    }

    // `partials` [group]; `out` [group, head_dim]. The piece with the last token writes it to its
    // page first. `meanwhile` is called for every LANES tokens.
    template <class Meanwhile>
    void run(const NewToken& token, Partial* partials, float* out, Meanwhile meanwhile) const {
        if (first + num == pages.lengths[sequence]) {
            const int64_t at = place(num - 1);
            append(token, heads, kv_head, pages.keys + at, pages.values + at);
        }
        for (int64_t head = 0; head < heads.group(); head += GROUP)
            known<GROUP>(std::min<int64_t>(GROUP, heads.group() - head), [&](auto number) {
                some<number>(token, head, partials + head, out + head * heads.dim,
                             [&] { if (!head) meanwhile(); });
            });
    }

  private:
    int64_t place(int64_t i) const {
        return pages.at(heads, layer, sequence, first + i) + kv_head * heads.dim;
    }

    // Blocks are whole multiples of LANES: work(first token of LANES, how many, where it lies).
    template <class Work>
    void each(Work work) const {
        for (int64_t i = 0; i < num; i += LANES)
            work(i, std::min<int64_t>(LANES, num - i), place(i));
    }

    template <int HEADS, class Meanwhile>
    void some(const NewToken& token, int64_t head, Partial* partials, float* out,
              Meanwhile meanwhile) const {
        const int64_t dim = heads.dim;
        const Pair* query = queries<HEADS>(token, head);
        float* scores = scratch<0>(HEADS * PIECE);
        each([&](int64_t i, int64_t tokens, int64_t at) {
            meanwhile();
            score<HEADS>(pages.keys + at, stride, tokens, query, dim, heads.scaling, scores + i);
        });
        for (int h = 0; h < HEADS; ++h) partials[h] = softened(scores + h * PIECE, num);
        int64_t d = 0;
        for (; d + 2 * LANES <= dim; d += 2 * LANES) add<HEADS, 2>(scores, d, out);
        if (d < dim) add<HEADS, 1>(scores, d, out);
    }

    template <int HEADS, int COLUMNS>
    void add(const float* scores, int64_t d, float* out) const {
        Floats sums[HEADS][COLUMNS] = {};
        each([&](int64_t i, int64_t tokens, int64_t at) {
            add_values(pages.values + at + d, stride, tokens, scores + i, sums);
        });
        for (int h = 0; h < HEADS; ++h)
            for (int v = 0; v < COLUMNS; ++v) write(out + h * heads.dim + d + v * LANES, sums[h][v]);
    }

    template <int HEADS>
    const Pair* queries(const NewToken& token, int64_t head) const {
        const int64_t width = steps(heads.dim) * 2 * LANES;
        float* rotated = scratch<1>(HEADS * width);
        for (int h = 0; h < HEADS; ++h, rotated += width) {
            rotate(token.qkv + (kv_head * heads.group() + head + h) * heads.dim, token.q_norm,
                   token, heads, rotated);
            std::fill(rotated + heads.dim, rotated + width, 0.0f);
        }
        return paired(scratch<1>(HEADS * width), HEADS * width);
    }

    const Heads& heads;
    const Pages& pages;
    const int64_t layer, sequence, kv_head, first, num, stride;
};

// The pieces of one query head, `stride` heads apart -> its output [head_dim].
inline void merge(const Heads& heads, const Partial* partials, const float* outs, int64_t num,
                  int64_t stride, float* to) {
    float highest = -INFINITY, sum = 0.0f;
    for (int64_t i = 0; i < num; ++i) highest = std::fmax(highest, partials[i * stride].highest);
    std::fill(to, to + heads.dim, 0.0f);
    for (int64_t i = 0; i < num; ++i) {
        const float share = std::exp(partials[i * stride].highest - highest);
        sum += share * partials[i * stride].sum;
        for (int64_t d = 0; d < heads.dim; ++d) to[d] += share * outs[i * stride * heads.dim + d];
    }
    for (int64_t d = 0; d < heads.dim; ++d) to[d] = rounded(to[d] / sum);
}
