// All layers of a decoder for one new token of each of a few sequences, in one parallel region.
//
//     hidden += o(attention(rotated q, k and v of norm(hidden)))      5 meetings of the threads
//     hidden += down(silu(gate(norm(hidden))) * up(norm(hidden)))     per layer
//
// Weights and pages are bfloat16, sums float32, and values are rounded to bfloat16 where
// transformers' modules round them. Norms every thread computes for itself, which takes less time
// than a meeting.
//
// The floor of a step is reading every weight once: bytes of weights / memory bandwidth.

#include <sys/mman.h>
#include <unistd.h>

#include <vector>

#include "attention.h"
#include "layers.h"
#include "prefill.h"
#include "product.h"
#include "rowwise.h"
#include "screen.h"
#include "tower.h"

namespace {

struct Task {
    int64_t sequence, kv_head, piece;
};

class Run {
  public:
    Run(const Decoder& decoder, const Step& step)
        : decoder(decoder), heads(decoder.heads), step(step), rows(step.rows),
          hidden(rows * decoder.hidden), qkv(rows * heads.width()),
          activated(rows * decoder.intermediate) {
        for (size_t i = 0; i < hidden.size(); ++i) hidden[i] = widened(step.embeds[i]);
        int64_t pieces = 0;
        for (int64_t row = 0; row < rows; ++row) {
            first_piece.push_back(pieces);
            for (int64_t piece = 0; piece < step.pages.num_pieces(row); ++piece, ++pieces)
                for (int64_t head = 0; head < heads.num_kv; ++head)
                    tasks.push_back({row, head, piece});
        }
        partials.resize(pieces * heads.num);
        outs.resize(pieces * heads.num * heads.dim);
    }

    void all_layers() {
#pragma omp parallel num_threads(step.threads)
        {
            const int64_t widest = std::max(decoder.hidden, heads.num * heads.dim);
            std::vector<float> own(rows * widest);
            for (int64_t number = 0; number < decoder.num_layers; ++number)
                layer(number, own.data());
        }
        std::vector<float> normed(rows * decoder.hidden);
        norm_all(decoder.norm, normed.data());
        for (size_t i = 0; i < normed.size(); ++i) step.out[i] = narrowed(normed[i]);
    }

  private:
    // `own` is this thread's: the input of a product.
    void layer(int64_t number, float* own) {
        const Layer& layer = decoder.layers[number];
        const auto into = [](std::vector<float>& to, int64_t width) {
            return [&to, width](int64_t row, int64_t i, Floats values) {
                write(&to[row * width + i], values);
            };
        };
        const auto add = [&](int64_t row, int64_t i, Floats values) {
            float* sum = &hidden[row * decoder.hidden + i];
            write(sum, rounded(read<Floats>(sum) + values));
        };
        norm_all(layer.input_norm, own);
        multiply_all(layer.qkv, own, rows, into(qkv, heads.width()));
        attend_all(layer, number);
        merge_all(own);
        multiply_all(layer.o, own, rows, add);
        norm_all(layer.post_norm, own);
        multiply_gated(layer.gate_up, own, rows, into(activated, decoder.intermediate));
        multiply_all(layer.down, activated.data(), rows, add);
    }

    void norm_all(const bf16* weight, float* to) const {
        const int64_t size = decoder.hidden;
        for (int64_t row = 0; row < rows; ++row)
            normalise(&hidden[row * size], weight, size, heads.eps, to + row * size);
    }

    void attend_all(const Layer& layer, int64_t number) {
#pragma omp for schedule(dynamic)
        for (size_t i = 0; i < tasks.size(); ++i) {
            const Task& task = tasks[i];
            const NewToken token{&qkv[task.sequence * heads.width()], layer.q_norm, layer.k_norm,
                                 step.cos + task.sequence * heads.dim,
                                 step.sin + task.sequence * heads.dim};
            const int64_t at = (first_piece[task.sequence] + task.piece) * heads.num +
                               task.kv_head * heads.group();
            attend(heads, step.pages, token, number, task.sequence, task.kv_head,
                   task.piece * PIECE, &partials[at], &outs[at * heads.dim]);
        }
    }

    void merge_all(float* to) const {
        for (int64_t row = 0; row < rows; ++row)
            for (int64_t head = 0; head < heads.num; ++head, to += heads.dim) {
                const int64_t at = first_piece[row] * heads.num + head;
                merge(heads, &partials[at], &outs[at * heads.dim], step.pages.num_pieces(row),
                      heads.num, to);
            }
    }

    const Decoder& decoder;
    const Heads& heads;
    const Step& step;
    const int64_t rows;
    std::vector<float> hidden, qkv, activated, outs;
    std::vector<Partial> partials;
    std::vector<int64_t> first_piece;
    std::vector<Task> tasks;
};

}  // namespace

extern "C" void epd_decode(const Decoder* decoder, const Step* step) {
    Run(*decoder, *step).all_layers();
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

static auto into(bf16* out, int64_t width) {
    return [=](int64_t row, int64_t i, Floats values) { write(out + row * width + i, values); };
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
