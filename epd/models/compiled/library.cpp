// What Python calls; see kernels.py.

#include <sys/mman.h>
#include <unistd.h>

#include <vector>

#include "decode.h"
#include "prefill.h"
#include "rowwise.h"
#include "screen.h"
#include "tower.h"

extern "C" void epd_decode(const Decoder* decoder, const Step* step) {
    Decode(*decoder, *step).all_layers();
}

static std::vector<float> widened(const bf16* from, int64_t size) {
    std::vector<float> wide(size);
    for (int64_t i = 0; i < size; ++i) wide[i] = widened(from[i]);
    return wide;
}

// x [rows, in] -> the first of the largest of each row of the product; -1 where none is a number.
extern "C" void epd_likeliest(const Product* product, const Screen* screen, const bf16* x,
                              int64_t* ids, int64_t rows, int64_t threads) {
    const std::vector<float> wide = widened(x, rows * product->in);
    Search(*product, *screen, wide.data(), rows, threads).run(ids);
}

// x [rows, in] -> out [rows, out].
extern "C" void epd_multiply(const Product* product, const bf16* x, bf16* out, int64_t rows,
                             int64_t threads) {
    const std::vector<float> wide = widened(x, rows * product->in);
    const auto store = [&](int64_t row, int64_t i, Floats values) {
        for (int lane = 0; lane < LANES; ++lane)
            out[row * product->out + i + lane] = narrowed(values[lane]);
    };
#pragma omp parallel num_threads(threads)
    multiply_all(*product, wide.data(), rows, store);
}

#ifdef __AVX512BF16__

// Can the functions below be called?
extern "C" bool epd_takes_many() { return true; }

extern "C" void epd_prefill(const Decoder* decoder, const Step* step) {
    Prefill(*decoder, *step).all_layers();
}

extern "C" void epd_tower_block(const Block* block, const Patches* patches) {
    TowerBlock(*block, *patches).run();
}

// x [rows, in] -> out [rows, out].
extern "C" void epd_multiply_many(const Product* product, const bf16* x, bf16* out, int64_t rows,
                                  int64_t threads) {
#pragma omp parallel num_threads(threads)
    multiply_many(*product, {x, product->in}, rows, into(out, product->out));
}

// x [rows, in] -> silu(first half of the outputs) * second half, [rows, out / 2].
extern "C" void epd_multiply_gated(const Product* product, const bf16* x, bf16* out, int64_t rows,
                                   int64_t threads) {
#pragma omp parallel num_threads(threads)
    multiply_gated_many(*product, {x, product->in}, rows, into(out, product->out / 2));
}

#else

extern "C" bool epd_takes_many() { return false; }

#endif

// [rows, 2 * size] -> [rows, size].
extern "C" void epd_silu_mul(const bf16* joined, bf16* out, int64_t rows, int64_t size,
                             int64_t threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t row = 0; row < rows; ++row)
        silu_mul(joined + row * 2 * size, size, out + row * size);
}

// [rows, size] -> the same.
extern "C" void epd_rms_norm(const bf16* x, const bf16* weight, bf16* out, int64_t rows,
                             int64_t size, float eps, int64_t threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t row = 0; row < rows; ++row)
        rms_norm(x + row * size, weight, size, eps, out + row * size);
}

// Only advice: a system without large pages ignores it.
extern "C" void epd_prefer_large_pages(void* memory, int64_t bytes) {
    const uintptr_t page = uintptr_t(sysconf(_SC_PAGESIZE)), from = uintptr_t(memory);
    const uintptr_t first = (from + page - 1) / page * page, end = (from + bytes) / page * page;
    if (first < end) madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
}
