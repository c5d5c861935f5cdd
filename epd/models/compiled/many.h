// Products of many rows, for CPUs that multiply pairs of bfloat16.
//
// A panel is 32 columns in pairs of terms, [terms / 2][32][2]: a tile of product.h is one. Twelve
// rows times a panel have 24 registers of sums, and each vector that is read is used twelve times:
// arithmetic is what takes time. The floor is 2 * rows * in * out over the CPU's rate.

#pragma once

#ifdef __AVX512BF16__

#include <algorithm>

#include "known.h"
#include "pairs.h"
#include "product.h"
#include "rowwise.h"

extern "C" int omp_get_num_threads();  // not every compiler brings omp.h

constexpr int MOST = 12;           // rows at once
constexpr int64_t TASK_PARTS = 8;  // of at most so many rows, in one thread's task

// Rows of bfloat16, `stride` values apart.
struct Rows {
    const bf16* first;
    int64_t stride;

    Rows from(int64_t row) const { return {first + row * stride, stride}; }
};

template <int NUM>
using Sums = Floats[NUM][VECTORS];

// sums[row] += rows[row] . panel
template <int NUM>
inline void add_panel(const bf16* panel, Rows rows, int64_t terms, Sums<NUM>& sums) {
    const bf16* x = rows.first;
    Floats own[NUM][VECTORS];  // in registers, as nobody else can see them
    std::memcpy(own, sums, sizeof own);
#pragma GCC unroll 4
    for (int64_t i = 0; i < terms; i += 2, x += 2, panel += 2 * TILE_OUT) {
        const Pairs left(read<Words>(panel)), right(read<Words>(panel + TILE_OUT));
#pragma GCC unroll 12
        for (int row = 0; row < NUM; ++row) {
            const Pair pair = read<Pair>(x + row * rows.stride);
            own[row][0] = left.times(pair, own[row][0]);
            own[row][1] = right.times(pair, own[row][1]);
        }
    }
    std::memcpy(sums, own, sizeof own);
}

// [0, rows) in parts of nearly one size, MOST at most.
struct Parts {
    int64_t rows, num;

    explicit Parts(int64_t rows) : rows(rows), num((rows + MOST - 1) / MOST) {}
    int64_t first(int64_t part) const { return rows * part / num; }

    // work(first, number), the number of rows being a constant for the compiler.
    template <class Work>
    void each(int64_t from, int64_t to, Work work) const {
        for (int64_t part = from; part < to; ++part)
            known<MOST>(first(part + 1) - first(part),
                        [&](auto number) { work(first(part), number); });
    }
};

// One tile times NUM rows, rounded.
template <int NUM>
inline void multiply_rows(const Product& product, int64_t tile, Rows rows, Sums<NUM>& out) {
    for (auto& row : out)
        for (Floats& sum : row) sum = Floats{};
    add_panel<NUM>(product.weight + tile * TILE_OUT * product.in, rows, product.in, out);
    for (int v = 0; v < VECTORS; ++v) {
        const bf16* bias = product.bias + tile * TILE_OUT + v * LANES;
        const Floats added = product.bias ? widened(bias) : Floats{};
        for (auto& row : out) row[v] = rounded(row[v] + added);
    }
}

// Asks memory for a share of a tile: the first rows would wait for it longer than they compute.
inline void fetch(const Product& product, int64_t tile, int64_t share, int64_t shares) {
    const int64_t size = TILE_OUT * product.in, line = 32;
    const bf16* first = product.weight + tile * size;
    for (int64_t i = size * share / shares; i < size * (share + 1) / shares; i += line)
        __builtin_prefetch(first + i, 0, 2);
}

// For all threads of a parallel region: work(tile, first row, number of rows) for all of them, and
// ahead(tile, share, shares) of the tile that this thread is likely to get next.
template <class Work, class Ahead>
inline void each_tile(int64_t tiles, int64_t rows, Work work, Ahead ahead) {
    const Parts parts(rows);
    const int64_t tasks = (parts.num + TASK_PARTS - 1) / TASK_PARTS;
    const int64_t threads = omp_get_num_threads();
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < tiles * tasks; ++task) {
        const int64_t tile = task / tasks, from = task % tasks * TASK_PARTS;
        const int64_t next = (task + threads) / tasks;
        const int64_t to = std::min(parts.num, from + TASK_PARTS);
        int64_t share = 0;
        parts.each(from, to, [&](int64_t first, auto num) {
            work(tile, first, num);
            if (next != tile && next < tiles) ahead(next, share++, to - from);
        });
    }
}

// What stores outputs in rows of `width` values, and what adds them to what is there.
inline auto into(bf16* to, int64_t width) {
    return [=](int64_t row, int64_t i, Floats values) { write(to + row * width + i, values); };
}

inline auto onto(bf16* to, int64_t width) {
    return [=](int64_t row, int64_t i, Floats values) {
        bf16* sum = to + row * width + i;
        write(sum, widened(sum) + values);
    };
}

// For all threads: `store(row, output, values)` for all of x W^T + b, sixteen outputs at a time.
template <class Store>
inline void multiply_many(const Product& product, Rows x, int64_t rows, Store store) {
    const auto work = [&](int64_t tile, int64_t first, auto num) {
        Sums<num> out;
        multiply_rows<num>(product, tile, x.from(first), out);
        for (int row = 0; row < num; ++row)
            for (int v = 0; v < VECTORS; ++v)
                store(first + row, tile * TILE_OUT + v * LANES, out[row][v]);
    };
    each_tile(product.tiles(), rows, work, [&](int64_t tile, int64_t share, int64_t shares) {
        fetch(product, tile, share, shares);
    });
}

// The same for two matrices of out / 2 outputs, one above the other: silu(x A^T) * (x B^T).
template <class Store>
inline void multiply_gated_many(const Product& product, Rows x, int64_t rows, Store store) {
    const int64_t tiles = product.tiles() / 2;
    const auto work = [&](int64_t tile, int64_t first, auto num) {
        Sums<num> gate, up;
        multiply_rows<num>(product, tile, x.from(first), gate);
        multiply_rows<num>(product, tiles + tile, x.from(first), up);
        for (int row = 0; row < num; ++row)
            for (int v = 0; v < VECTORS; ++v)
                store(first + row, tile * TILE_OUT + v * LANES,
                      rounded(silu(gate[row][v]) * up[row][v]));
    };
    each_tile(tiles, rows, work, [&](int64_t tile, int64_t share, int64_t shares) {
        fetch(product, tile, share, shares);
        fetch(product, tiles + tile, share, shares);
    });
}

#endif
