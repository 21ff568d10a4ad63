// Products of packed weights with activations.
//
// A packed format multiplies integers. The activations of a token are quantized in blocks of 32 columns:
//
//     d = max |x| / 127,   a = round(x / d),   in -127..127
//
// and an output is, for its row of the weight,
//
//     y = bias + sum over blocks b of  d[b] (scale[b] (sum code a - zero sum a) + shift[b] sum a)
//
// Sums inside a block are of integers, hence exact; the sum over blocks is in float32, in the order of the blocks.
// A float format multiplies floats and sums over columns in their order, fused. Either way a token's output
// depends on that token and the weight alone: not on how many tokens are multiplied at once, nor on threads.
//
// Cost: one token reads each weight once and is bound by memory; eight tokens share the unpacking, some 30
// instructions a block of 8 x 32 weights and token.
#pragma once

#include "formats.h"
#include "threads.h"

namespace sparing {

constexpr int TILE = 8;  // tokens that a packed panel is multiplied with at once

// A block of 32 columns of the TOKENS tokens of a tile, side by side.
template <int TOKENS>
struct Quantized {
    int8_t a[TOKENS][BLOCK];
    float d[TOKENS];
    float sum[TOKENS];               // d times the sum of a
    float low[TOKENS], high[TOKENS];  // the same of its first and its last 16
};

// Tokens that enter a product: floats [tokens, columns], and quantized where a packed matrix wants them.
struct Activations {
    const float* x;
    int tokens, columns;
    uint8_t* quantized;  // tiles of up to eight tokens, each a run of blocks

    static int64_t bytes(int64_t columns) { return columns / BLOCK * (int64_t)sizeof(Quantized<1>); }  // a token
    const uint8_t* tile(int token) const { return quantized + token * bytes(columns); }

    // Quantizes one token; all tokens of a tile before it is multiplied.
    void quantize(int token) const;
};

// A product in a pass: ``out[token * stride + row] = or += ...``
struct Product {
    const Matrix* matrix;
    float* out;
    int64_t stride;
    bool add;
};

// Multiplies all tokens with several matrices as one parallel region.
void multiply(Pool& pool, const Activations& x, const Product* products, int count);

// One row of a weight as floats.
void row(const Matrix& matrix, int64_t index, float* out);

}  // namespace sparing
