// Sixteen numbers at a time, in the compiler's own vector types: it makes of them what the CPU has.
//
// bfloat16 is the upper half of float32. Activations are float32 that hold bfloat16 values:
// whatever transformers' modules would have written as bfloat16 goes through rounded().

#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

using bf16 = uint16_t;
using std::int64_t;

constexpr int LANES = 16;
typedef float Floats __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));
typedef float Quarter __attribute__((vector_size(16)));

constexpr Ints LANE_NUMBERS = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

template <class V>
inline V read(const void* from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

inline void write(float* to, Floats v) { std::memcpy(to, &v, sizeof v); }

inline void write(float* to, float v) { *to = v; }

// This thread's, for one use each.
template <int USE>
inline float* scratch(size_t size) {
    static thread_local std::vector<float> kept;
    if (kept.size() < size) kept.resize(size);
    return kept.data();
}

inline float widened(bf16 value) {
    const uint32_t bits = uint32_t(value) << 16;
    return read<float>(&bits);
}

// To the nearest bfloat16, ties to even. What is not a number stays so.
inline bf16 narrowed(float value) {
    const uint32_t bits = read<uint32_t>(&value);
    const uint32_t nearest = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return value != value ? 0x7fc0 : bf16(nearest);
}

inline float rounded(float value) { return widened(narrowed(value)); }

#ifdef __AVX512BF16__

// Also makes 0 of what is smaller than 2^-126, which no sum misses.
inline Halves narrowed(Floats value) { return Halves(_mm512_cvtneps_pbh(__m512(value))); }

#else

inline Halves narrowed(Floats value) {
    const Words bits = Words(value);
    const Words nearest = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return __builtin_convertvector(value != value ? Words{} + 0x7fc0u : nearest, Halves);
}

#endif

inline Floats widened(Halves value) {
    return Floats(__builtin_convertvector(value, Words) << 16);
}

inline Floats widened(const bf16* from) { return widened(read<Halves>(from)); }

inline Floats rounded(Floats value) { return widened(narrowed(value)); }

// Lane j of row i becomes lane i of row j: pairs of rows change half of their lanes, four times.
inline void transpose(Words (&rows)[LANES]) {
#pragma GCC unroll 4
    for (int step = 1; step < LANES; step *= 2) {
        const Ints odd = LANE_NUMBERS & step;
        const Ints upper = odd ? LANE_NUMBERS + LANES - step : LANE_NUMBERS;
        const Ints lower = odd ? LANE_NUMBERS + LANES : LANE_NUMBERS + step;
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) {
            if (i & step) continue;
            const __m512i a = __m512i(rows[i]), b = __m512i(rows[i + step]);
            rows[i] = Words(_mm512_permutex2var_epi32(a, __m512i(upper), b));
            rows[i + step] = Words(_mm512_permutex2var_epi32(a, __m512i(lower), b));
        }
    }
}

inline float total(const Floats& v) {
    const char* at = reinterpret_cast<const char*>(&v);
    const Quarter sums = (read<Quarter>(at) + read<Quarter>(at + 16)) +
                         (read<Quarter>(at + 32) + read<Quarter>(at + 48));
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

inline float largest(Floats v) { return _mm512_reduce_max_ps(__m512(v)); }

inline bool any(Ints mask) { return _mm512_test_epi32_mask(__m512i(mask), __m512i(mask)); }

// e^x to two units of float32: 2^n times a polynomial in what is left.
inline Floats exponential(Floats x) {
    const Floats most = Floats{} + 88.0f, least = Floats{} - 87.0f;
    x = x > most ? most : x;
    x = x < least ? least : x;
    const Floats magic = Floats{} + 12582912.0f;  // adding it rounds to whole numbers
    const Floats shifted = x * 1.44269504f + magic;
    const Floats whole = shifted - magic;
    const Floats rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    Floats sum = rest * 1.9875691500e-4f + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    sum = sum * rest * rest + rest + 1.0f;
    const Words exponent = (Words(shifted) + 127u) << 23;
    return sum * Floats(exponent);
}
