// Products of packed weights with activations.
//
// A packed format multiplies integers. The activations of a token are quantized in runs of 32 columns, 256 in a K format:
//
//     d = max |x| (1 / 127),   a = round(x (127 / max |x|)),   in -127..127
//
// The output for a row of the weight is
//
//     y = bias + sum over runs b of  d[b] sum over the scales s in b of (scale[s] sum code a + shift[s] sum a)
//
// The sums under one scale are sums of integers, hence exact. The scales of a K format are integers times one float, so
// its sums over a whole run are exact too. Runs are added in float32, in ascending order. A float format multiplies floats
// and adds columns in ascending order, with fma. So a token's output depends on that token and the weight alone, neither
// on the other tokens nor on the threads.
//
// Cost: one token reads each weight once and is bound by memory; eight tokens share the unpacking, about 26 to 34
// instructions for each token and block of 8 x 32 weights.
#pragma once

#include "formats.h"
#include "threads.h"

namespace sparing {

constexpr int TILE = 8;  // tokens at once with a packed panel

// A run of 32 columns of the TOKENS tokens of a tile, side by side.
template <int TOKENS>
struct Quantized {
    int8_t a[TOKENS][BLOCK];
    float d[TOKENS];
    float sum[TOKENS];  // d times the sum of a
};
// A run of 256 columns.
template <int TOKENS>
struct QuantizedGroup {
    int8_t a[GROUP / BLOCK][TOKENS][BLOCK];
    float d[TOKENS];
    int16_t sum[TOKENS][GROUP / BLOCK];       // sum of a in each block
    int16_t half[TOKENS][2 * GROUP / BLOCK];  // sum of a in each half of a block
};

// A product in a pass: ``out[token * stride + row] = y``, or ``+= y`` with ``add``.
struct Product {
    const Matrix* matrix;
    float* out;
    int64_t stride;
    bool add;
};

// The inputs of products: floats [tokens, columns], and quantized runs for packed matrices.
struct Activations {
    const float* x;
    int tokens, columns;
    uint8_t* quantized;         // tiles of up to eight tokens, a run after the other
    bool blocks, groups;        // whether there are runs of 32 and of 256; the latter follow all of the former

    static int64_t block_bytes(int64_t columns) { return columns / BLOCK * (int64_t)sizeof(Quantized<1>); }  // of a token
    static int64_t group_bytes(int64_t columns) { return columns / GROUP * (int64_t)sizeof(QuantizedGroup<1>); }
    static int64_t bytes(int64_t columns) { return block_bytes(columns) + group_bytes(columns); }

    const uint8_t* block_tile(int token) const { return quantized + token * block_bytes(columns); }
    const uint8_t* group_tile(int token) const {
        return quantized + (blocks ? tokens * block_bytes(columns) : 0) + token * group_bytes(columns);
    }

    Activations(const float* x, int tokens, int columns, uint8_t* quantized, const Product* products, int count);

    // Quantizes one token; a product needs all tokens of a tile.
    void quantize(int token) const;
};

// Multiplies all tokens with several matrices in one parallel region.
void multiply(Pool& pool, const Activations& x, const Product* products, int count);

// One row of a weight as floats.
void row(const Matrix& matrix, int64_t index, float* out);

}  // namespace sparing
