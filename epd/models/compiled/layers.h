// What a decoder consists of, and what is computed at once.

#pragma once

#include "attention.h"
#include "product.h"

struct Layer {
    const bf16* input_norm;  // [hidden]
    Product qkv;             // q, k and v one above the other
    const bf16 *q_norm, *k_norm;
    Product o;
    const bf16* post_norm;  // [hidden]
    Product gate_up;        // gate above up
    Product down;
};

struct Decoder {
    int64_t hidden, intermediate, num_layers;
    Heads heads;
    const Layer* layers;
    const bf16* norm;  // [hidden]
};

// New tokens of some sequences, `counts` of each, one behind the other. Behind each of the first
// `levels` layers, some rows of the hidden states get `more`.
struct Step {
    int64_t rows, threads;
    const bf16* embeds;     // [rows, hidden]
    const bf16 *cos, *sin;  // [rows, head_dim]
    bf16* out;              // [rows, hidden]
    Pages pages;
    int64_t sequences;
    const int32_t* counts;  // [sequences]
    int64_t levels, num_places;
    const int64_t* places;  // [num_places] rows
    const bf16* more;       // [levels, num_places, hidden]
};
