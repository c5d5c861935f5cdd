// What stands between the products of many rows. Each value is read and written once, where
// transformers' modules write it again after every operation; rounded where they round it.

#pragma once

#include "vectors.h"

inline void write(bf16* to, Floats v) {
    const Halves halves = __builtin_convertvector(Words(rounded(v)) >> 16, Halves);
    std::memcpy(to, &halves, sizeof halves);
}

// joined [2 * size] -> silu(first half) * second half
inline void silu_mul(const bf16* joined, int64_t size, bf16* to) {
    for (int64_t i = 0; i < size; i += LANES) {
        const Floats gate = widened(joined + i);
        write(to + i, rounded(gate / (exponential(-gate) + 1.0f)) * widened(joined + size + i));
    }
}

inline void rms_norm(const bf16* x, const bf16* weight, int64_t size, float eps, bf16* to) {
    Floats squares = {};
    for (int64_t i = 0; i < size; i += LANES) squares += widened(x + i) * widened(x + i);
    const float scale = 1.0f / std::sqrt(total(squares) / size + eps);
    for (int64_t i = 0; i < size; i += LANES)
        write(to + i, widened(weight + i) * rounded(widened(x + i) * scale));
}
