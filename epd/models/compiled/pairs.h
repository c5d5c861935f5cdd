// Two bfloat16 side by side, times two of a row: one instruction where the CPU has it.

#pragma once

#include <vector>

#include "vectors.h"

#ifdef __AVX512BF16__

using Pair = uint32_t;  // the first in the lower half

struct Pairs {
    Words words;

    Pairs() = default;
    explicit Pairs(Words words) : words(words) {}
    Floats times(Pair x, Floats sum) const {
        return Floats(_mm512_dpbf16_ps(__m512(sum), __m512bh(words), __m512bh(Words{} + x)));
    }
};

// `num` values, an even number, that bfloat16 holds.
inline void pair_all(const float* values, int64_t num, Pair* to) {
    bf16* upper = reinterpret_cast<bf16*>(to);  // side by side they are pairs
    for (int64_t i = 0; i < num; ++i) upper[i] = bf16(read<uint32_t>(values + i) >> 16);
}

#else

struct Pair {
    float first, second;
};

struct Pairs {
    Floats first, second;

    Pairs() = default;
    explicit Pairs(Words words)
        : first(Floats(words << 16)), second(Floats(words & (Words{} + 0xffff0000u))) {}
    Floats times(Pair x, Floats sum) const {
        sum += first * x.first;
        sum += second * x.second;
        return sum;
    }
};

inline void pair_all(const float* values, int64_t num, Pair* to) {
    for (int64_t i = 0; i < num; i += 2) to[i / 2] = {values[i], values[i + 1]};
}

#endif

// `num` values that bfloat16 holds, in pairs, until this thread asks for others.
inline const Pair* paired(const float* values, int64_t num) {
    static thread_local std::vector<Pair> kept;
    kept.resize(num / 2);
    pair_all(values, num, kept.data());
    return kept.data();
}
