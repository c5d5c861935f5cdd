// Products of a few rows with a weight matrix that is read from memory exactly once.
//
// A matrix [out, in] of bfloat16 lies in tiles of 32 outputs: [out / 32][in / 2][32][2]. A thread
// reads tile after tile from one end to the other; lanes of a vector are outputs, so nothing is
// summed across them. Up to some 12 rows memory is what takes time. Sums are float32.

#pragma once

#include <algorithm>
#include <vector>

#include "known.h"
#include "pairs.h"
#include "vectors.h"

constexpr int VECTORS = 2;
constexpr int TILE_OUT = VECTORS * LANES;
constexpr int64_t AHEAD = 2048;   // weights: memory answers after about as long

struct Product {
    const bf16* weight;
    const bf16* bias;  // [out] or null
    int64_t in, out;

    int64_t tiles() const { return out / TILE_OUT; }
};

using Outputs = Floats[GROUP][VECTORS];

// One tile times ROWS rows of x [rows, in / 2], rounded.
template <int ROWS>
inline void multiply(const Product& product, int64_t tile, const Pair* x, Outputs& out) {
    const bf16* weight = product.weight + tile * TILE_OUT * product.in;
    const int64_t num = product.in / 2;
    Floats sums[ROWS][VECTORS] = {};
    for (int64_t i = 0; i < num; ++i) {
        Pairs pairs[VECTORS];
        for (int v = 0; v < VECTORS; ++v, weight += 2 * LANES) {
            pairs[v] = Pairs(read<Words>(weight));
            __builtin_prefetch(weight + AHEAD);
        }
        for (int row = 0; row < ROWS; ++row)
            for (int v = 0; v < VECTORS; ++v)
                sums[row][v] = pairs[v].times(x[row * num + i], sums[row][v]);
    }
    for (int v = 0; v < VECTORS; ++v) {
        const bf16* bias = product.bias + tile * TILE_OUT + v * LANES;
        const Floats added = product.bias ? widened(bias) : Floats{};
        for (int row = 0; row < ROWS; ++row) out[row][v] = rounded(sums[row][v] + added);
    }
}

inline void multiply(const Product& product, int64_t tile, const Pair* x, int64_t rows,
                     Outputs& out) {
    known<GROUP>(rows, [&](auto num) { multiply<num>(product, tile, x, out); });
}

// For all threads of a parallel region: `store(row, output, values)` for all of x W^T + b, sixteen
// outputs at a time. x is [rows, in]. `meanwhile` is called for every tile.
template <class Store, class Meanwhile>
inline void multiply_all(const Product& product, const float* x, int64_t rows, Store store,
                         Meanwhile meanwhile) {
    const Pair* pairs = paired(x, rows * product.in);
#pragma omp for schedule(dynamic)
    for (int64_t tile = 0; tile < product.tiles(); ++tile) {
        meanwhile();
        for (int64_t first = 0; first < rows; first += GROUP) {
            const int64_t num = std::min<int64_t>(GROUP, rows - first);
            Outputs out;
            multiply(product, tile, pairs + first * product.in / 2, num, out);
            for (int64_t row = 0; row < num; ++row)
                for (int v = 0; v < VECTORS; ++v)
                    store(first + row, tile * TILE_OUT + v * LANES, out[row][v]);
        }
    }
}

template <class Store>
inline void multiply_all(const Product& product, const float* x, int64_t rows, Store store) {
    multiply_all(product, x, rows, store, [] {});
}

inline Floats silu(Floats x) { return rounded(x / (exponential(-x) + 1.0f)); }

// The same for two matrices of out / 2 outputs, one above the other: silu(x A^T) * (x B^T).
template <class Store>
inline void multiply_gated(const Product& product, const float* x, int64_t rows, Store store) {
    const int64_t tiles = product.tiles() / 2;
    const Pair* pairs = paired(x, rows * product.in);
#pragma omp for schedule(dynamic)
    for (int64_t tile = 0; tile < tiles; ++tile)
        for (int64_t first = 0; first < rows; first += GROUP) {
            const int64_t num = std::min<int64_t>(GROUP, rows - first);
            Outputs gate, up;
            const Pair* of_rows = pairs + first * product.in / 2;
            multiply(product, tile, of_rows, num, gate);
            multiply(product, tiles + tile, of_rows, num, up);
            for (int64_t row = 0; row < num; ++row)
                for (int v = 0; v < VECTORS; ++v)
                    store(first + row, tile * TILE_OUT + v * LANES,
                          rounded(silu(gate[row][v]) * up[row][v]));
        }
}
