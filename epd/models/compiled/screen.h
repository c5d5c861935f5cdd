// Which output of a product is the largest, in half the bytes of its weights.
//
// Beside the weights lie bytes: output o is about scale[o] * ((bytes[o] - 128) . x), and no further
// from that than error[o] * |x|, which covers rounding weights to bytes and x to two of them (Cauchy
// and Schwarz), and sums. Only tiles of which an output may be the largest are computed from the
// weights, as the whole product would be, so the result is that of the whole product.

#pragma once

#include <cmath>
#include <vector>

#include "bytes.h"
#include "product.h"

struct Screen {
    const uint8_t* bytes;  // [out / 16][in / FOUR][16][FOUR]
    const float *scale, *error;  // [out]
};

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

// The largest ends of one tile's outputs, for ROWS rows.
template <int ROWS>
inline void estimate(const Product& product, const Screen& screen, int64_t tile, const Asked* rows,
                     Range* out) {
    const int64_t fours = (product.in + FOUR - 1) / FOUR;
    Floats low[ROWS], high[ROWS];
    Ints unknown[ROWS] = {};
    for (int row = 0; row < ROWS; ++row) low[row] = high[row] = Floats{} - INFINITY;
    for (int64_t v = tile * VECTORS; v < (tile + 1) * VECTORS; ++v) {
        Floats sums[ROWS];
        add_bytes<ROWS>(screen.bytes + v * fours * LANES * FOUR, rows, fours, sums);
        const Floats scale = read<Floats>(screen.scale + v * LANES);
        const Floats error = read<Floats>(screen.error + v * LANES);
        for (int row = 0; row < ROWS; ++row) {
            const Floats middle = sums[row] * scale, around = error * rows[row].norm;
            const Floats least = middle - around, most = middle + around;
            low[row] = least > low[row] ? least : low[row];
            high[row] = most > high[row] ? most : high[row];
            unknown[row] |= most != most;
        }
    }
    for (int row = 0; row < ROWS; ++row)
        out[row] = {largest(low[row]), any(unknown[row]) ? NAN : largest(high[row])};
}

// The first of the largest outputs of each row of x [rows, in]; -1 where one is not finite.
class Search {
  public:
    Search(const Product& product, const Screen& screen, const float* x, int64_t rows,
           int64_t threads)
        : product(product), screen(screen), x(x), rows(rows), threads(threads),
          ranges(product.tiles() * rows), bests(rows) {
        for (int64_t row = 0; row < rows; ++row) asked.emplace_back(x + row * product.in, product.in);
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
                known<GROUP>(std::min<int64_t>(GROUP, rows - first), [&](auto num) {
                    estimate<num>(product, screen, tile, &asked[first],
                                  &ranges[tile * rows + first]);
                });
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
    std::vector<Asked> asked;
    std::vector<Range> ranges;
    std::vector<Best> bests;
};
