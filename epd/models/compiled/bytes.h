// Bytes times rows of which each value is two bytes, in whole numbers.

#pragma once

#include <cmath>
#include <vector>

#include "known.h"
#include "vectors.h"

constexpr int FOUR = 4;  // bytes that one instruction sums

// A row of x: about step * (256 * high + low), four of each in a word.
struct Asked {
    std::vector<uint32_t> words;  // [in / FOUR][2], high ones first
    int32_t start[2] = {};        // what takes back that bytes are 128 too large
    float step = 0.0f;
    float norm;  // not a number where x is not finite

    Asked(const float* x, int64_t in) : words((in + FOUR - 1) / FOUR * 2) {
        double squares = 0;
        float peak = 0.0f;
        for (int64_t i = 0; i < in; ++i) {
            squares += double(x[i]) * x[i];
            peak = std::fmax(peak, std::fabs(x[i]));
        }
        norm = float(std::sqrt(squares) * (1 + 1e-6));
        if (!std::isfinite(norm)) norm = NAN;
        else if (peak > 0) fill(x, in, peak);
    }

  private:
    static constexpr float LARGEST = 127 * 256;

    void fill(const float* x, int64_t in, float peak) {
        step = peak / LARGEST;
        for (int64_t i = 0; i < in; ++i) {
            const int32_t whole = int32_t(std::lrint(x[i] / step));
            const int32_t high = (whole + 128) >> 8;
            put(i, 0, high);
            put(i, 1, whole - 256 * high);
        }
    }

    void put(int64_t i, int64_t half, int32_t byte) {
        words[i / FOUR * 2 + half] |= uint32_t(uint8_t(byte)) << (8 * (i % FOUR));
        start[half] -= 128 * byte;
    }
};

// sum + four bytes of each lane, without a sign, times those of x, with one.
inline Ints dot(Words bytes, uint32_t x, Ints sum) {
#ifdef __AVX512VNNI__
    return Ints(_mm512_dpbusd_epi32(__m512i(sum), __m512i(bytes), __m512i(Words{} + x)));
#else
    const auto apart = [](uint32_t low, uint32_t high) {
        return __m512i(Words{} + (uint32_t(uint16_t(int8_t(low))) |
                                  uint32_t(uint16_t(int8_t(high))) << 16));
    };
    const __m512i even = apart(x, x >> 16), odd = apart(x >> 8, x >> 24);
    const __m512i left = __m512i(bytes & 0x00ff00ffu), right = __m512i((bytes >> 8) & 0x00ff00ffu);
    return sum + Ints(_mm512_madd_epi16(left, even)) + Ints(_mm512_madd_epi16(right, odd));
#endif
}

// For LANES outputs, whose bytes are [in / FOUR][LANES][FOUR]: their sums with ROWS rows of x.
template <int ROWS>
inline void add_bytes(const uint8_t* bytes, const Asked* rows, int64_t fours,
                      Floats (&sums)[ROWS]) {
    constexpr int64_t line = LANES * FOUR, ahead = 64;  // lines: memory answers after about as long
    const uint32_t* words[ROWS];
    Ints high[ROWS], low[ROWS];
    for (int row = 0; row < ROWS; ++row) {
        words[row] = rows[row].words.data();
        high[row] = Ints{} + rows[row].start[0];
        low[row] = Ints{} + rows[row].start[1];
    }
    for (int64_t i = 0; i < fours; ++i) {
        const Words four = read<Words>(bytes + i * line);
        __builtin_prefetch(bytes + (i + ahead) * line);
#pragma GCC unroll 8
        for (int row = 0; row < ROWS; ++row) {
            high[row] = dot(four, words[row][2 * i], high[row]);
            low[row] = dot(four, words[row][2 * i + 1], low[row]);
        }
    }
    for (int row = 0; row < ROWS; ++row)
        sums[row] = (__builtin_convertvector(high[row], Floats) * 256.0f +
                     __builtin_convertvector(low[row], Floats)) * rows[row].step;
}
