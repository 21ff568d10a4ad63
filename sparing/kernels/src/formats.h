// The packed formats: the layout of a weight matrix in memory, and the unpacking of a block to codes.
//
// A panel holds eight rows (outputs) side by side. It is a run of blocks; each block covers the next 32 columns
// (inputs) of the eight rows. A block of codes is eight steps of four columns. Step s is one vector:
//
//     byte 4 r + j of step s = code of row r, column 4 s + j            r = 0..7, j = 0..3, s = 0..7
//
// One load serves eight rows, and a product needs four activations broadcast to all lanes.
//     low four bits        two steps in 32 bytes (low and high nibbles)
//     fifth bit            32 bytes a block, bit s of a byte for step s
//     fifth and sixth bit  2 x 32 bytes a block, two bits a step
// Scales precede the codes, eight side by side, with the file's values: nothing is rounded again.
//
//     format  a block, in bytes                                                            bits a weight
//     Q8_0    8 d (f16) | 8 steps                                                          8.5
//     Q4_0    8 d | 4 x 2 steps                                                            4.5
//     Q4_1    8 d, 8 m | 4 x 2 steps                                                       5
//     Q5_0    8 d | fifth bits | 4 x 2 steps                                               5.5
//     Q5_1    8 d, 8 m | fifth bits | 4 x 2 steps                                          6
//     Q4_K    of 256 columns: 8 d, 8 dmin | 8 x (8 scales, 8 mins (u8) | 4 x 2 steps)      4.625
//     Q5_K    of 256 columns: 8 d, 8 dmin | 8 x (8 scales, 8 mins | fifth bits | 4 x 2)    5.625
//     Q6_K    of 256 columns: 8 d | 8 x (8 x 2 scales (s8) | 2 x upper bits | 4 x 2)       6.5625
//
// weight = d (code - 8), d code + m, d (code - 16), d code + m, d scale code - dmin min, d scale (code - 32).
// Float formats (F32, F16, BF16) have panels of 16 rows: for each column 16 weights.
#pragma once

#include "lanes.h"

namespace sparing {

enum Format : int32_t { F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K, FORMATS };

constexpr int ROWS = 8;         // of a packed panel
constexpr int FLOAT_ROWS = 16;  // of a float panel
constexpr int BLOCK = 32;       // columns
constexpr int GROUP = 256;      // columns with one float scale in a K format

INLINE bool is_float(int32_t format) { return format <= BF16; }

// A part of a block: ``count`` runs of eight cells, one cell a row.
struct Cells {
    int size;   // bytes of a cell
    int count;
};

// The layout of a format: a ``head`` for ``group`` columns, then group / 32 blocks of ``body``.
struct Shape {
    int group;
    Cells head[2];
    Cells body[3];

    constexpr int head_bytes() const { return 8 * (head[0].size * head[0].count + head[1].size * head[1].count); }
    constexpr int body_bytes() const {
        return 8 * (body[0].size * body[0].count + body[1].size * body[1].count + body[2].size * body[2].count);
    }
    constexpr int bytes() const { return head_bytes() + group / BLOCK * body_bytes(); }
};

constexpr Shape SHAPES[FORMATS] = {
    {}, {}, {},
    {32, {{2, 1}}, {{4, 8}}},                   // Q8_0
    {32, {{2, 1}}, {{4, 4}}},                   // Q4_0
    {32, {{2, 2}}, {{4, 4}}},                   // Q4_1
    {32, {{2, 1}}, {{4, 1}, {4, 4}}},           // Q5_0
    {32, {{2, 2}}, {{4, 1}, {4, 4}}},           // Q5_1
    {256, {{2, 2}}, {{1, 2}, {4, 4}}},          // Q4_K
    {256, {{2, 2}}, {{1, 2}, {4, 1}, {4, 4}}},  // Q5_K
    {256, {{2, 1}}, {{2, 1}, {4, 2}, {4, 4}}},  // Q6_K
};

INLINE int64_t panel_bytes(int32_t format, int64_t columns) {
    if (is_float(format)) return FLOAT_ROWS * columns * (format == F32 ? 4 : 2);
    return columns / SHAPES[format].group * SHAPES[format].bytes();
}
INLINE int panel_rows(int32_t format) { return is_float(format) ? FLOAT_ROWS : ROWS; }
INLINE int64_t panels(int32_t format, int64_t rows) { return (rows + panel_rows(format) - 1) / panel_rows(format); }

// A matrix of packed weights [rows, columns]; the unused rows of its last panel are zero.
struct Matrix {
    int32_t format;
    int32_t rows;
    int32_t columns;
    int32_t unused;
    const uint8_t* data;
    const float* bias;  // [rows] or null

    const uint8_t* panel(int64_t index) const { return data + index * panel_bytes(format, columns); }
};

// Eight rows by 32 columns, unpacked for a product.
template <int FORMAT>
struct Codes {
    static constexpr Shape shape = SHAPES[FORMAT];
    static constexpr bool six = FORMAT == Q6_K;
    static constexpr bool k = shape.group > BLOCK;
    static constexpr bool shifted = FORMAT != Q8_0 && !k;
    static constexpr int bits = FORMAT == Q8_0 ? 8 : six ? 6 : FORMAT == Q5_0 || FORMAT == Q5_1 || FORMAT == Q5_K ? 5 : 4;
    static constexpr int zero = FORMAT == Q4_0 ? 8 : FORMAT == Q5_0 ? 16 : six ? 32 : 0;

    b32 step[8];
    f8 scale;          // not in K formats: factor of a code
    f8 shift;          // if ``shifted``: added to each weight
    i8 first, second;  // in K formats: scales of columns 0..15 and 16..31 (Q6_K), or scale and min of all 32 (Q4_K, Q5_K)

    // The integers of a K format; its floats, d and dmin (Q6_K: only d), are in the head.
    INLINE void load_integers(const uint8_t* body) {
        if constexpr (six) {  // the two scales of a row are side by side
            const i8 pairs = words(body);
            first = pairs << 24 >> 24;
            second = pairs << 16 >> 24;
        } else {
            first = bytes(body);
            second = bytes(body + 8);
        }
    }

    // Unpacks a block from its group's ``head`` and its own ``body``.
    INLINE void load_from(const uint8_t* head, const uint8_t* body) {
        if constexpr (k) {
            load_integers(body);
            body += 16;
        } else {
            scale = halves((const uint16_t*)head);
            if constexpr (zero) shift = scale * all(-(float)zero);
            if constexpr (FORMAT == Q4_1 || FORMAT == Q5_1) shift = halves((const uint16_t*)(head + 16));
        }
        if constexpr (bits == 8) {
            for (int s = 0; s < 8; s++) step[s] = load<b32>(body + 32 * s);
            return;
        }
        const uint8_t* upper = body;
        if constexpr (bits > 4) body += 32 * (bits - 4);
        for (int i = 0; i < 4; i++) {
            b32 two = load<b32>(body + 32 * i);
            step[2 * i] = masked(two, 0x0f);
            step[2 * i + 1] = masked(right(two, 4), 0x0f);
        }
        if constexpr (bits == 5) {
            b32 fifth = load<b32>(upper);
            for (int s = 0; s < 8; s++) step[s] |= masked(s < 4 ? left(fifth, 4 - s) : right(fifth, s - 4), 0x10);
        }
        if constexpr (bits == 6) {
            for (int half = 0; half < 2; half++) {
                b32 up = load<b32>(upper + 32 * half);
                for (int s = 0; s < 4; s++)
                    step[4 * half + s] |= masked(s < 2 ? left(up, 4 - 2 * s) : right(up, 2 * s - 4), 0x30);
            }
        }
    }
};

}  // namespace sparing
