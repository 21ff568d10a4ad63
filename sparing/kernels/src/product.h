// Products of packed weights with activations.
//
// A packed format multiplies integers. The activations of a token are quantized in runs of as many columns as share a
// scale in the format, 32, or 256 in a K format:
//
//     d = max |x| / 127,   a = round(x / d),   in -127..127
//
// and an output is, for its row of the weight,
//
//     y = bias + sum over runs b of  d[b] sum over the scales s in b of (scale[s] sum code a + shift[s] sum a)
//
// Sums under one scale are of integers, hence exact, and in a K format, whose scales are integers times one float, so is
// all of a run. The sum over runs is in float32, in their order. A float format multiplies floats and sums over columns
// in their order, fused. Either way a token's output depends on that token and the weight alone: not on how many tokens
// are multiplied at once, nor on threads.
//
// Cost: one token reads each weight once and is bound by memory; eight tokens share the unpacking, some 26 to 34
// instructions a block of 8 x 32 weights and token.
#pragma once

#include "formats.h"
#include "threads.h"

namespace sparing {

constexpr int TILE = 8;  // tokens that a packed panel is multiplied with at once

// A run of columns of the TOKENS tokens of a tile, side by side.
template <int TOKENS>
struct Quantized {
    int8_t a[TOKENS][BLOCK];
    float d[TOKENS];
    float sum[TOKENS];  // d times the sum of a
};
template <int TOKENS>
struct QuantizedGroup {
    int8_t a[GROUP / BLOCK][TOKENS][BLOCK];
    float d[TOKENS];
    int16_t sum[TOKENS][GROUP / BLOCK];       // of a
    int16_t half[TOKENS][2 * GROUP / BLOCK];  // of the first and the last 16 of a block
};

// A product in a pass: ``out[token * stride + row] = or += ...``
struct Product {
    const Matrix* matrix;
    float* out;
    int64_t stride;
    bool add;
};

// Tokens that enter products: floats [tokens, columns], and quantized where packed matrices want them.
struct Activations {
    const float* x;
    int tokens, columns;
    uint8_t* quantized;         // tiles of up to eight tokens, each its runs
    bool blocks, groups;        // which runs are wanted; if both, those of 256 come behind all of 32

    static int64_t block_bytes(int64_t columns) { return columns / BLOCK * (int64_t)sizeof(Quantized<1>); }  // a token
    static int64_t group_bytes(int64_t columns) { return columns / GROUP * (int64_t)sizeof(QuantizedGroup<1>); }
    static int64_t bytes(int64_t columns) { return block_bytes(columns) + group_bytes(columns); }

    const uint8_t* block_tile(int token) const { return quantized + token * block_bytes(columns); }
    const uint8_t* group_tile(int token) const {
        return quantized + (blocks ? tokens * block_bytes(columns) : 0) + token * group_bytes(columns);
    }

    Activations(const float* x, int tokens, int columns, uint8_t* quantized, const Product* products, int count);

    // Quantizes one token; all tokens of a tile before it is multiplied.
    void quantize(int token) const;
};

// Multiplies all tokens with several matrices as one parallel region.
void multiply(Pool& pool, const Activations& x, const Product* products, int count);

// One row of a weight as floats.
void row(const Matrix& matrix, int64_t index, float* out);

}  // namespace sparing
