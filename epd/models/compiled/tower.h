// One block of a vision tower for the patches of some items, in one parallel region.
//
//     hidden += proj(attention(rotated q, k and v of norm(hidden)))
//     hidden += down(silu(gate(norm(hidden))) * up(norm(hidden)))
//
// All patches between two ends see each other. Rounded where transformers' modules round.

#pragma once

#include "product.h"

struct Block {
    int64_t hidden, intermediate, heads;
    float scaling, eps1, eps2;
    const bf16 *norm1, *norm2;  // [hidden]
    Product qkv;                // q, k and v one above the other
    Product proj;
    Product gate_up;  // gate above up
    Product down;
};

struct Patches {
    int64_t rows, threads;
    bf16* hidden;             // [rows, hidden], which become what comes out
    const float *cos, *sin;   // [rows, head_dim]
    int64_t num_ends;
    const int64_t* ends;      // ascending, from 0 to `rows`
};

#ifdef __AVX512BF16__

#include <memory>
#include <vector>

#include "many.h"
#include "spans.h"

class TowerBlock {
  public:
    TowerBlock(const Block& block, const Patches& patches)
        : block(block), patches(patches), rows(patches.rows), dim(block.hidden / block.heads),
          normed(new bf16[rows * block.hidden]), qkv(new bf16[rows * 3 * block.hidden]),
          attended(new bf16[rows * block.hidden]), activated(new bf16[rows * block.intermediate]) {
        for (int64_t end = 1; end < patches.num_ends; ++end) {
            const int64_t first = patches.ends[end - 1], num = patches.ends[end] - first;
            for (int64_t at = 0; at < num; at += span_tokens(1))
                for (int64_t head = 0; head < block.heads; ++head) {
                    spans.push_back({first + at, std::min(span_tokens(1), num - at), head, 1, num,
                                     0});
                    firsts.push_back(first);
                }
        }
    }

    void run() {
        const int64_t size = block.hidden;
        const auto add = onto(patches.hidden, size);
        const Rows inputs = {normed.get(), size};
#pragma omp parallel num_threads(patches.threads)
        {
            norm_all(block.norm1, block.eps1);
            multiply_many(block.qkv, inputs, rows, into(qkv.get(), 3 * size));
            turn_all();
            attend_all();
            multiply_many(block.proj, {attended.get(), size}, rows, add);
            norm_all(block.norm2, block.eps2);
            multiply_gated_many(block.gate_up, inputs, rows,
                                into(activated.get(), block.intermediate));
            multiply_many(block.down, {activated.get(), block.intermediate}, rows, add);
        }
    }

  private:
    using Values = std::unique_ptr<bf16[]>;

    // Keys and values of one head of one item.
    struct Source {
        const bf16 *keys, *values;
        int64_t stride;

        const bf16* key(int64_t token) const { return keys + token * stride; }
        const bf16* value(int64_t token) const { return values + token * stride; }
    };

    void norm_all(const bf16* weight, float eps) const {
        const int64_t size = block.hidden;
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; ++row)
            rms_norm(patches.hidden + row * size, weight, size, eps, &normed[row * size]);
    }

    // Queries and keys, in float32.
    void turn_all() const {
        const int64_t half = dim / 2;
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; ++row) {
            const float *cos = patches.cos + row * dim, *sin = patches.sin + row * dim;
            bf16* head = &qkv[row * 3 * block.hidden];
            for (int64_t number = 0; number < 2 * block.heads; ++number, head += dim)
#pragma omp simd
                for (int64_t i = 0; i < half; ++i) {
                    const float a = widened(head[i]), b = widened(head[i + half]);
                    head[i] = narrowed(a * cos[i] - b * sin[i]);
                    head[i + half] = narrowed(b * cos[i + half] + a * sin[i + half]);
                }
        }
    }

    void attend_all() const {
        const int64_t size = block.hidden;
#pragma omp for schedule(dynamic)
        for (size_t i = 0; i < spans.size(); ++i) {
            const bf16* first = &qkv[firsts[i] * 3 * size + spans[i].head * dim];
            const Source source = {first + size, first + 2 * size, 3 * size};
            Attending(spans[i], source, {qkv.get(), 3 * size}, dim, block.scaling)
                .run(attended.get(), size);
        }
    }

    const Block& block;
    const Patches& patches;
    const int64_t rows, dim;
    const Values normed, qkv, attended, activated;
    std::vector<Span> spans;
    std::vector<int64_t> firsts;  // of each span: where its item begins
};

#endif
