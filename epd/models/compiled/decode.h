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

#pragma once

#include <algorithm>
#include <vector>

#include "attention.h"
#include "layers.h"
#include "product.h"

extern "C" int omp_get_num_threads();  // not every compiler brings omp.h
extern "C" int omp_get_thread_num();

class Decode {
  public:
    Decode(const Decoder& decoder, const Step& step)
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
    struct Task {
        int64_t sequence, kv_head, piece;
    };

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
        Fetching fetching(*this, number);
        const auto fetch = [&] { fetching.some(); };
        multiply_all(layer.qkv, own, rows, into(qkv, heads.width()), fetch);
        attend_all(layer, number, fetching);
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

    // Keys and values of this thread's tasks, before they are read: to wait for each in its turn
    // would take most of the time of attention.
    class Fetching {
      public:
        Fetching(const Decode& decode, int64_t layer)
            : decode(decode), layer(layer), task(omp_get_thread_num()) {}

        // Of some tokens, unless those that are not read yet are many.
        void some() {
            if (num_ahead >= MOST_AHEAD) return;
            while (task < decode.tasks.size() && !decode.attention(layer, task).fetch(token)) {
                task += omp_get_num_threads();
                token = 0;
            }
            token += LANES;
            ++num_ahead;
        }
        // As many are read now.
        void read_some() {
            --num_ahead;
            some();
        }

      private:
        static constexpr int64_t MOST_AHEAD = 64;

        const Decode& decode;
        const int64_t layer;
        size_t task;
        int64_t token = 0, num_ahead = 0;
    };

    Attend attention(int64_t layer, size_t task) const {
        const auto& [sequence, kv_head, piece] = tasks[task];
        return {heads, step.pages, layer, sequence, kv_head, piece * PIECE};
    }

    void attend_all(const Layer& layer, int64_t number, Fetching& fetching) {
#pragma omp for schedule(static, 1)
        for (size_t i = 0; i < tasks.size(); ++i) {
            const Task& task = tasks[i];
            const NewToken token{&qkv[task.sequence * heads.width()], layer.q_norm, layer.k_norm,
                                 step.cos + task.sequence * heads.dim,
                                 step.sin + task.sequence * heads.dim};
            const int64_t at = (first_piece[task.sequence] + task.piece) * heads.num +
                               task.kv_head * heads.group();
            attention(number, i).run(token, &partials[at], &outs[at * heads.dim],
                                     [&] { fetching.read_some(); });
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
