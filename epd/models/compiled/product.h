// Products of a few rows with a weight matrix that is read from memory exactly once.
//
// A matrix [out, in] of bfloat16 lies in tiles of 4 outputs: [out / 4][in / 32][4][32]. A thread
// reads tile after tile from one end to the other, so nothing but memory bounds it up to about
// four rows; more rows meet a tile while it is in the cache. Sums are float32.

#pragma once

#include <algorithm>

#include "vectors.h"

constexpr int TILE_OUT = 4, TILE_IN = 32;
constexpr int GROUP = 4;                  // rows that are summed at once
constexpr int64_t CHUNK_BYTES = 1 << 15;  // of weights that a thread takes at a time
constexpr int64_t AHEAD = 2048;           // weights: memory answers after about as long

struct Product {
    const bf16* weight;
    const bf16* bias;  // [out] or null
    int64_t in, out;

    int64_t tiles() const { return out / TILE_OUT; }
    int64_t tiles_per_chunk() const {
        return std::max<int64_t>(1, CHUNK_BYTES / (TILE_OUT * in * int64_t(sizeof(bf16))));
    }
};

// Rows [rows, in] -> groups of rows [in / 32][2][rows of the group][16]: in every block of 32 first
// the even places, then the odd ones, as they come out of words of two bfloat16.
inline void pack(const float* x, int64_t rows, int64_t in, float* to) {
    for (int64_t first = 0; first < rows; first += GROUP) {
        const int64_t num = std::min<int64_t>(GROUP, rows - first);
        for (int64_t block = 0; block < in; block += TILE_IN)
            for (int64_t row = 0; row < num; ++row) {
                const float* from = x + (first + row) * in + block;
                float* even = to + (first * in) + (2 * block / TILE_IN * num + row) * LANES;
                float* odd = even + num * LANES;
                for (int i = 0; i < LANES; ++i) {
                    even[i] = from[2 * i];
                    odd[i] = from[2 * i + 1];
                }
            }
    }
}

// One tile times one group: the four outputs of each row, rounded.
template <int ROWS>
inline void multiply(const Product& product, int64_t tile, const float* x, float (*out)[TILE_OUT]) {
    const bf16* weight = product.weight + tile * TILE_OUT * product.in;
    const Words upper = Words{} + 0xffff0000u;
    Floats sums[TILE_OUT][ROWS] = {};
    for (int64_t block = 0; block < product.in; block += TILE_IN) {
        Floats even[TILE_OUT], odd[TILE_OUT];
        for (int i = 0; i < TILE_OUT; ++i) {
            const Words pairs = read<Words>(weight + i * TILE_IN);
            even[i] = Floats(pairs << 16);
            odd[i] = Floats(pairs & upper);
            __builtin_prefetch(weight + i * TILE_IN + AHEAD);
        }
        for (int row = 0; row < ROWS; ++row, x += LANES)
            for (int i = 0; i < TILE_OUT; ++i) sums[i][row] += even[i] * read<Floats>(x);
        for (int row = 0; row < ROWS; ++row, x += LANES)
            for (int i = 0; i < TILE_OUT; ++i) sums[i][row] += odd[i] * read<Floats>(x);
        weight += TILE_OUT * TILE_IN;
    }
    for (int i = 0; i < TILE_OUT; ++i) {
        const bf16* bias = product.bias ? product.bias + tile * TILE_OUT + i : nullptr;
        for (int row = 0; row < ROWS; ++row)
            out[row][i] = rounded(total(sums[i][row]) + (bias ? widened(*bias) : 0.0f));
    }
}

inline void multiply(const Product& product, int64_t tile, const float* x, int64_t rows,
                     float (*out)[TILE_OUT]) {
    static_assert(GROUP == 4);
    switch (rows) {
        case 1: return multiply<1>(product, tile, x, out);
        case 2: return multiply<2>(product, tile, x, out);
        case 3: return multiply<3>(product, tile, x, out);
        default: return multiply<4>(product, tile, x, out);
    }
}

// For all threads of a parallel region: `store(row, output, value)` for every value of x W^T + b.
// `x` is packed.
template <class Store>
inline void multiply_all(const Product& product, const float* x, int64_t rows, Store store) {
    const int64_t tiles = product.tiles(), step = product.tiles_per_chunk();
#pragma omp for schedule(dynamic)
    for (int64_t chunk = 0; chunk < tiles; chunk += step)
        for (int64_t tile = chunk; tile < std::min(tiles, chunk + step); ++tile)
            for (int64_t first = 0; first < rows; first += GROUP) {
                const int64_t num = std::min<int64_t>(GROUP, rows - first);
                float out[GROUP][TILE_OUT];
                multiply(product, tile, x + first * product.in, num, out);
                for (int64_t row = 0; row < num; ++row)
                    for (int i = 0; i < TILE_OUT; ++i)
                        store(first + row, tile * TILE_OUT + i, out[row][i]);
            }
}

// The same for two matrices of `product.out / 2` outputs each, one above the other:
// silu(x A^T) * (x B^T).
template <class Store>
inline void multiply_gated(const Product& product, const float* x, int64_t rows, Store store) {
    const int64_t tiles = product.tiles() / 2;
    const int64_t step = std::max<int64_t>(1, product.tiles_per_chunk() / 2);
#pragma omp for schedule(dynamic)
    for (int64_t chunk = 0; chunk < tiles; chunk += step)
        for (int64_t tile = chunk; tile < std::min(tiles, chunk + step); ++tile)
            for (int64_t first = 0; first < rows; first += GROUP) {
                const int64_t num = std::min<int64_t>(GROUP, rows - first);
                float gate[GROUP][TILE_OUT] = {}, up[GROUP][TILE_OUT] = {};
                multiply(product, tile, x + first * product.in, num, gate);
                multiply(product, tiles + tile, x + first * product.in, num, up);
                static_assert(GROUP * TILE_OUT == LANES);
                const Floats gates = read<Floats>(gate);
                const Floats smooth = gates / (exponential(-gates) + 1.0f);
                for (int64_t row = 0; row < num; ++row)
                    for (int i = 0; i < TILE_OUT; ++i) {
                        const float factor = rounded(smooth[row * TILE_OUT + i]);
                        store(first + row, tile * TILE_OUT + i, rounded(factor * up[row][i]));
                    }
            }
}
