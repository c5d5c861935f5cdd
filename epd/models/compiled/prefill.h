// All layers of a decoder for many new tokens of some sequences, in one parallel region.
//
// What decode.h does for single tokens, where arithmetic and not memory is what takes time. What
// stands between products is done by rows, each read and written once.

#pragma once

#ifdef __AVX512BF16__

#include <memory>
#include <vector>

#include "layers.h"
#include "many.h"
#include "spans.h"

class Prefill {
  public:
    Prefill(const Decoder& decoder, const Step& step)
        : decoder(decoder), heads(decoder.heads), step(step), rows(step.rows),
          hidden(room(decoder.hidden)), normed(room(decoder.hidden)), qkv(room(heads.width())),
          attended(room(heads.num * heads.dim)), activated(room(decoder.intermediate)) {
        std::copy_n(step.embeds, rows * decoder.hidden, hidden.get());
        int64_t row = 0;
        for (int64_t sequence = 0; sequence < step.sequences; ++sequence) {
            const int64_t num = step.counts[sequence];
            const int64_t before = step.pages.lengths[sequence] - num;
            for (int64_t i = 0; i < num; ++i) owners.push_back({sequence, before + i});
            const int64_t group = heads.group(), most = span_tokens(group);
            for (int64_t first = 0; first < num; first += most)
                for (int64_t head = 0; head < heads.num; head += group)
                    spans.push_back({row + first, std::min(most, num - first), head, group,
                                     before + first + 1, 1});
            row += num;
        }
    }

    void all_layers() {
#pragma omp parallel num_threads(step.threads)
        {
            for (int64_t number = 0; number < decoder.num_layers; ++number) {
                layer(number);
                if (number < step.levels) add_level(number);
            }
            norm_all(decoder.norm, step.out);
        }
    }

  private:
    struct Owner {
        int64_t sequence, token;
    };
    // Pages of one KV head.
    struct Source {
        const Prefill& all;
        int64_t layer, sequence, kv_head;

        int64_t at(int64_t token) const {
            const Heads& heads = all.heads;
            return all.step.pages.at(heads, layer, sequence, token) + kv_head * heads.dim;
        }
        const bf16* key(int64_t token) const { return all.step.pages.keys + at(token); }
        const bf16* value(int64_t token) const { return all.step.pages.values + at(token); }
    };
    using Values = std::unique_ptr<bf16[]>;

    Values room(int64_t width) const { return Values(new bf16[rows * width]); }

    void layer(int64_t number) {
        const Layer& layer = decoder.layers[number];
        const int64_t size = decoder.hidden;
        const auto add = onto(hidden.get(), size);
        norm_all(layer.input_norm, normed.get());
        multiply_many(layer.qkv, {normed.get(), size}, rows, into(qkv.get(), heads.width()));
        place_all(layer, number);
        attend_all(number);
        multiply_many(layer.o, {attended.get(), heads.num * heads.dim}, rows, add);
        norm_all(layer.post_norm, normed.get());
        multiply_gated_many(layer.gate_up, {normed.get(), size}, rows,
                            into(activated.get(), decoder.intermediate));
        multiply_many(layer.down, {activated.get(), decoder.intermediate}, rows, add);
    }

    void norm_all(const bf16* weight, bf16* to) const {
        const int64_t size = decoder.hidden;
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; ++row)
            rms_norm(&hidden[row * size], weight, size, heads.eps, to + row * size);
    }

    // Turns queries and keys, and writes keys and values to their pages.
    void place_all(const Layer& layer, int64_t number) {
        const int64_t dim = heads.dim, wide = heads.num_kv * dim;
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; ++row) {
            bf16* head = &qkv[row * heads.width()];
            const bf16 *cos = step.cos + row * dim, *sin = step.sin + row * dim;
            for (int64_t i = 0; i < heads.num; ++i, head += dim)
                turn(head, layer.q_norm, cos, sin);
            for (int64_t i = 0; i < heads.num_kv; ++i)
                turn(head + i * dim, layer.k_norm, cos, sin);
            const auto [sequence, token] = owners[row];
            const int64_t at = step.pages.at(heads, number, sequence, token);
            std::copy_n(head, wide, step.pages.keys + at);
            std::copy_n(head + wide, wide, step.pages.values + at);
        }
    }

    void turn(bf16* head, const bf16* norm, const bf16* cos, const bf16* sin) const {
        if (norm) rms_norm(head, norm, heads.dim, heads.eps, head);
        rotate(head, cos, sin, heads.dim / 2);
    }

    void attend_all(int64_t number) {
        const Rows queries = {qkv.get(), heads.width()};
#pragma omp for schedule(dynamic)
        for (size_t i = 0; i < spans.size(); ++i) {
            const Span& span = spans[i];
            const Source source = {*this, number, owners[span.row].sequence,
                                   span.head / heads.group()};
            Attending(span, source, queries, heads.dim, heads.scaling)
                .run(attended.get(), heads.num * heads.dim);
        }
    }

    // Rows of pictures get more behind the first layers: see Qwen3-VL's deepstack.
    void add_level(int64_t level) {
        const int64_t size = decoder.hidden;
        const bf16* more = step.more + level * step.num_places * size;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < step.num_places; ++i) {
            bf16* row = &hidden[step.places[i] * size];
            for (int64_t d = 0; d < size; d += LANES)
                write(row + d, widened(row + d) + widened(more + i * size + d));
        }
    }

    const Decoder& decoder;
    const Heads& heads;
    const Step& step;
    const int64_t rows;
    const Values hidden, normed, qkv, attended, activated;
    std::vector<Owner> owners;  // of each row
    std::vector<Span> spans;
};

#endif
