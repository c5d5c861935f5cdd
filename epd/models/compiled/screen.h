// Which output of a product is the largest, in half the bytes of its weights.
//
// Beside the weights lie bytes: output o is about scale[o] * (bytes[o] . x), and no further from
// that than error[o] * |x|, which covers rounding weights to bytes (Cauchy and Schwarz) and summing
// in float32. Only tiles of which an output may be the largest are computed from the weights, as
// the whole product would be, so the result is that of the whole product.

#pragma once

#include <immintrin.h>

#include <cmath>
#include <vector>

#include "product.h"

struct Screen {
    const int8_t* bytes;  // [out / 32][in][32]
    const float *scale, *error;  // [out]
};

// __builtin_convertvector takes bytes one by one.
inline Floats widened(const int8_t* from) {
    return Floats(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(read<__m128i>(from))));
}

// Ends of a range that has an output's value; not numbers where nothing is known.
struct Range {
    float low, high;
};

struct Best {
    float value = -INFINITY;
    int64_t id = -1;
    bool broken = false;

    void see(float found, int64_t at) {
        if (!std::isfinite(found)) broken = true;
        if (found > value || (found == value && at < id)) value = found, id = at;
    }
    void see(const Best& other) {
        broken |= other.broken;
        if (other.id >= 0) see(other.value, other.id);
    }
};

// The largest ends of one tile's outputs, for ROWS rows of x [rows, in] of lengths `norms`.
template <int ROWS>
inline void estimate(const Product& product, const Screen& screen, int64_t tile, const float* x,
                     const float* norms, Range* out) {
    const int8_t* bytes = screen.bytes + tile * TILE_OUT * product.in;
    Floats sums[ROWS][VECTORS] = {};
    for (int64_t i = 0; i < product.in; ++i, bytes += TILE_OUT) {
        __builtin_prefetch(bytes + 2 * AHEAD);
        for (int v = 0; v < VECTORS; ++v) {
            const Floats weights = widened(bytes + v * LANES);
            for (int row = 0; row < ROWS; ++row) sums[row][v] += weights * x[row * product.in + i];
        }
    }
    for (int row = 0; row < ROWS; ++row) {
        Range& range = out[row] = {-INFINITY, -INFINITY};
        for (int v = 0; v < VECTORS; ++v) {
            const int64_t at = tile * TILE_OUT + v * LANES;
            const Floats middle = sums[row][v] * read<Floats>(screen.scale + at);
            const Floats around = read<Floats>(screen.error + at) * norms[row];
            const Floats low = middle - around, high = middle + around;
            for (int lane = 0; lane < LANES; ++lane) {
                // What is not a number is the largest, and stays it.
                const bool number = range.high == range.high;
                if (number && !(high[lane] <= range.high)) range.high = high[lane];
                if (low[lane] > range.low) range.low = low[lane];
            }
        }
    }
}

inline void estimate(const Product& product, const Screen& screen, int64_t tile, const float* x,
                     const float* norms, int64_t rows, Range* out) {
    static_assert(GROUP == 8);
    switch (rows) {
        case 1: return estimate<1>(product, screen, tile, x, norms, out);
        case 2: return estimate<2>(product, screen, tile, x, norms, out);
        case 3: return estimate<3>(product, screen, tile, x, norms, out);
        case 4: return estimate<4>(product, screen, tile, x, norms, out);
        case 5: return estimate<5>(product, screen, tile, x, norms, out);
        case 6: return estimate<6>(product, screen, tile, x, norms, out);
        case 7: return estimate<7>(product, screen, tile, x, norms, out);
        default: return estimate<8>(product, screen, tile, x, norms, out);
    }
}

// The first of the largest outputs of each row of x [rows, in]; -1 where one is not finite.
class Search {
  public:
    Search(const Product& product, const Screen& screen, const float* x, int64_t rows,
           int64_t threads)
        : product(product), screen(screen), x(x), rows(rows), threads(threads),
          ranges(product.tiles() * rows), bests(rows) {
        for (int64_t row = 0; row < rows; ++row) {
            double squares = 0;
            for (int64_t i = 0; i < product.in; ++i) {
                const double value = x[row * product.in + i];
                squares += value * value;
            }
            norms.push_back(float(std::sqrt(squares) * (1 + 1e-6)));
        }
    }

    void run(int64_t* ids) {
#pragma omp parallel num_threads(threads)
        {
            estimate_all();
            std::vector<Best> own(rows);
            compare_all(own);
#pragma omp critical
            for (int64_t row = 0; row < rows; ++row) bests[row].see(own[row]);
        }
        for (int64_t row = 0; row < rows; ++row) ids[row] = bests[row].broken ? -1 : bests[row].id;
    }

  private:
    void estimate_all() {
#pragma omp for schedule(dynamic, 8)
        for (int64_t tile = 0; tile < product.tiles(); ++tile)
            for (int64_t first = 0; first < rows; first += GROUP)
                estimate(product, screen, tile, x + first * product.in, &norms[first],
                         std::min<int64_t>(GROUP, rows - first), &ranges[tile * rows + first]);
    }

    void compare_all(std::vector<Best>& own) {
        std::vector<float> least(rows, -INFINITY);  // the largest output is no smaller
        for (int64_t tile = 0; tile < product.tiles(); ++tile)
            for (int64_t row = 0; row < rows; ++row)
                least[row] = std::max(least[row], ranges[tile * rows + row].low);
#pragma omp for schedule(dynamic, 64)
        for (int64_t tile = 0; tile < product.tiles(); ++tile)
            for (int64_t row = 0; row < rows; ++row)
                // Rounding keeps order, but may make equals of different values.
                if (!(rounded(ranges[tile * rows + row].high) < rounded(least[row])))
                    see_tile(tile, row, own[row]);
    }

    void see_tile(int64_t tile, int64_t row, Best& best) const {
        Outputs out;
        multiply(product, tile, paired(x + row * product.in, product.in), 1, out);
        for (int v = 0; v < VECTORS; ++v)
            for (int lane = 0; lane < LANES; ++lane)
                best.see(out[0][v][lane], tile * TILE_OUT + v * LANES + lane);
    }

    const Product& product;
    const Screen& screen;
    const float* x;
    const int64_t rows, threads;
    std::vector<float> norms;
    std::vector<Range> ranges;
    std::vector<Best> bests;
};
