// What stands between the products of many rows. Each value is read and written once, where
// transformers' modules write it again after every operation; rounded where they round it.

#pragma once

#include "vectors.h"

inline void write(bf16* to, Floats v) {
    const Halves halves = narrowed(v);
    std::memcpy(to, &halves, sizeof halves);
}

// joined [2 * size] -> silu(first half) * second half
inline void silu_mul(const bf16* joined, int64_t size, bf16* to) {
    for (int64_t i = 0; i < size; i += LANES) {
        const Floats gate = widened(joined + i);
        write(to + i, rounded(gate / (exponential(-gate) + 1.0f)) * widened(joined + size + i));
    }
}

// One head, in place: each half is turned against the other.
inline void rotate(bf16* head, const bf16* cos, const bf16* sin, int64_t half) {
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
        const float a = widened(head[i]), b = widened(head[i + half]);
        head[i] = narrowed(rounded(a * widened(cos[i])) - rounded(b * widened(sin[i])));
        head[i + half] = narrowed(rounded(b * widened(cos[i + half])) +
                                  rounded(a * widened(sin[i + half])));
    }
}

inline void rms_norm(const bf16* x, const bf16* weight, int64_t size, float eps, bf16* to) {
    Floats squares = {};
    for (int64_t i = 0; i < size; i += LANES) squares += widened(x + i) * widened(x + i);
    const float scale = 1.0f / std::sqrt(total(squares) / size + eps);
    for (int64_t i = 0; i < size; i += LANES)
        write(to + i, widened(weight + i) * rounded(widened(x + i) * scale));
}
