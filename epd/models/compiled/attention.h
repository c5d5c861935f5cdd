// Attention of new tokens, one per sequence, over pages of keys and values.
//
// Pages of a layer are [slots, kv_heads, head_dim]; slot = block * block_size + offset. A sequence
// is cut into pieces, so that many threads can share a long one; merge() puts them together.

#pragma once

#include <vector>

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
    std::vector<float> normed(head, head + heads.dim);
    if (norm) normalise(head, norm, heads.dim, heads.eps, normed.data());
    for (int64_t i = 0; i < half; ++i) {
        const float a = normed[i], b = normed[i + half];
        to[i] = rounded(rounded(a * widened(token.cos[i])) - rounded(b * widened(token.sin[i])));
        to[i + half] = rounded(rounded(b * widened(token.cos[i + half])) +
                               rounded(a * widened(token.sin[i + half])));
    }
}

inline void append(const NewToken& token, const Heads& heads, int64_t kv_head, bf16* key,
                   bf16* value) {
    const float* k = token.qkv + (heads.num + kv_head) * heads.dim;
    const float* v = k + heads.num_kv * heads.dim;
    std::vector<float> rotated(heads.dim);
    rotate(k, token.k_norm, token, heads, rotated.data());
    for (int64_t i = 0; i < heads.dim; ++i) {
        key[i] = narrowed(rotated[i]);
        value[i] = narrowed(v[i]);
    }
}

// In place: scores -> e^(score - highest).
inline Partial softened(float* scores, int64_t num) {
    float highest = -INFINITY, sum = 0.0f;
    for (int64_t i = 0; i < num; ++i) highest = scores[i] > highest ? scores[i] : highest;
    for (int64_t i = 0; i < num; i += LANES)
        write(scores + i, exponential(read<Floats>(scores + i) - highest));
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < num; ++i) sum += scores[i];
    return {highest, sum};
}

// All query heads of one KV head over tokens [first, end) of a sequence. `partials` [group];
// `out` [group, head_dim]. The piece with the last token writes it to its page first.
inline void attend(const Heads& heads, const Pages& pages, const NewToken& token, int64_t layer,
                   int64_t sequence, int64_t kv_head, int64_t first, Partial* partials,
                   float* out) {
    const int64_t dim = heads.dim, group = heads.group(), length = pages.lengths[sequence];
    const int64_t num = std::min(PIECE, length - first);
    const auto at = [&](int64_t i) {
        return pages.at(heads, layer, sequence, first + i) + kv_head * dim;
    };
    if (first + num == length)
        append(token, heads, kv_head, pages.keys + at(num - 1), pages.values + at(num - 1));
    std::vector<float> query(group * dim), scores(group * PIECE);
    for (int64_t head = 0; head < group; ++head)
        rotate(token.qkv + (kv_head * group + head) * dim, token.q_norm, token, heads,
               &query[head * dim]);
    for (int64_t i = 0; i < num; ++i) {
        const bf16* key = pages.keys + at(i);
        for (int64_t head = 0; head < group; ++head) {
            Floats sum = {};
            for (int64_t d = 0; d < dim; d += LANES)
                sum += read<Floats>(&query[head * dim + d]) * widened(key + d);
            scores[head * PIECE + i] = total(sum) * heads.scaling;
        }
    }
    for (int64_t head = 0; head < group; ++head)
        partials[head] = softened(&scores[head * PIECE], num);
    std::fill(out, out + group * dim, 0.0f);
    for (int64_t i = 0; i < num; ++i) {
        const bf16* value = pages.values + at(i);
        for (int64_t head = 0; head < group; ++head)
            for (int64_t d = 0; d < dim; d += LANES) {
                float* to = out + head * dim + d;
                write(to, read<Floats>(to) + widened(value + d) * scores[head * PIECE + i]);
            }
    }
}

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
