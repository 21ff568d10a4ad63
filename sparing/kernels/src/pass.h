// One pass of a Llama-like decoder in one call. sparing/kernels/native.py fills in the structs.
//
//     x = embedding or given vector of each new token
//     for each layer, unless its attention is skipped:  x += O attend(rope(norm(Q h)), rope(norm(K h)), V h),   h = rms(x) w
//                     unless its mlp is skipped:        x += D (silu(G h) * U h),                               h = rms(x) w
//     hidden = rms(x) w;  logits = H hidden  for the scored tokens
//
// A token's values depend on that token and its visible slots, in a fixed order: see product.h and attention.h.
#pragma once

#include <mutex>

#include "attention.h"
#include "product.h"

namespace sparing {

struct Layer {
    const float *attention_norm, *mlp_norm;  // [width]
    const float *query_norm, *key_norm;      // [dim] or null
    Matrix query, key, value, output, gate, up, down;
};

struct Model {
    int32_t layers, width, heads, key_heads, dim, mlp_width;
    float norm_eps, rope_scale;
    const float* frequencies;  // [dim / 2]
    const float* norm;         // [width]
    const Layer* layer;
    Matrix embedding;
};

// The new tokens of all rows, row after row.
struct Batch {
    int32_t rows, tokens, vectors, scored;
    const int32_t *ids, *positions;                       // [tokens]
    const int32_t *row, *count, *cached, *visible, *attended;  // [rows]
    const uint8_t* const* ancestors;                      // [rows] of [count, count], or null: causal
    float* const* attention;                              // [rows] of [attended, cached + count], zeroed; or null
    const int32_t* vector_tokens;                         // [vectors]: tokens with a given input vector
    const float* vector_values;                           // [vectors, width]
    const int32_t* scored_tokens;                         // [scored]
    const uint8_t *runs_attention, *runs_mlp;             // [layers], or null: all run
    int32_t wanted_layer, unused;                         // layer of Output.layer_hidden, 0 .. layers - 1; or -1
};

struct Cache {
    int32_t stored, rows;
    int64_t slots;
    void* const* layer;     // [layers] of [2, rows, key_heads, slots, dim]
    float* const* scales;   // [layers] of [2, rows, key_heads, slots], at 8 bits
};

struct Output {
    float* hidden;        // [tokens, width]
    float* layer_hidden;  // [tokens, width] or null
    float* logits;        // [scored, head.rows]
    int32_t* argmax;      // [scored]: the likeliest token of each ...
    float* confidence;    // ... and its probability
};

// Threads and buffers for passes, one pass at a time.
struct Context {
    explicit Context(int threads) : pool(threads) {}

    Pool pool;
    std::mutex busy;
    std::vector<float> x, h, q, k, v, attended, gate, up, cos, sin;
    std::vector<uint8_t> quantized;
};

void run(Context& context, const Model& model, const Batch& batch, const Cache& cache, const Matrix& head, const Output& output);

}  // namespace sparing
