// One pass of a decoder of the Llama kind, in one call. The structs are the ones that sparing/kernels/native.py fills in.
//
//     x = embedding or given vector of each new token
//     of each layer that runs its attention:  x += O attend(rope(norm(Q h)), rope(norm(K h)), V h),   h = rms(x) w
//     of each layer that runs its mlp:        x += D (silu(G h) * U h),                               h = rms(x) w
//     hidden = rms(x) w;  logits = H hidden  of the tokens that are scored
//
// A token's values come from that token and the slots it sees, in one order: see product.h and attention.h.
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
    const uint8_t* const* ancestors;                      // [rows] of [count, count], or null: each sees all before it
    float* const* attention;                              // [rows] of [attended, cached + count], zeroed; or null
    const int32_t* vector_tokens;                         // [vectors]: whose input is given ...
    const float* vector_values;                           // ... [vectors, width]
    const int32_t* scored_tokens;                         // [scored]
    const uint8_t *runs_attention, *runs_mlp;             // [layers], or null: all run
    int32_t wanted_layer, unused;                         // whose residual stream is wanted, 0 .. layers - 1; or -1
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
};

// What passes need beside their arguments: threads, and buffers that are kept. One pass at a time.
struct Context {
    explicit Context(int threads) : pool(threads) {}

    Pool pool;
    std::mutex busy;
    std::vector<float> x, h, q, k, v, attended, gate, up, cos, sin;
    std::vector<uint8_t> quantized;
};

void run(Context& context, const Model& model, const Batch& batch, const Cache& cache, const Matrix& head, const Output& output);

}  // namespace sparing
