#include "pack.h"

#include <algorithm>
#include <atomic>
#include <type_traits>
#include <vector>

namespace sparing {

namespace {

uint16_t half_at(const uint8_t* at) {
    uint16_t h;
    std::memcpy(&h, at, 2);
    return h;
}

// Reads a block in ggml's layout, ``bytes`` for ``group`` columns: the codes of 32 columns as bytes, the float16 numbers of
// its head, and the integer scales of 32 columns.
template <int TYPE>
struct Block;

INLINE void nibbles(const uint8_t* q, uint8_t* code) {
    for (int j = 0; j < 16; j++) code[j] = q[j] & 15, code[j + 16] = q[j] >> 4;
}
INLINE void fifth_bits(const uint8_t* h, uint8_t* code) {
    uint32_t bits;
    std::memcpy(&bits, h, 4);
    for (int j = 0; j < 32; j++) code[j] |= (bits >> j & 1) << 4;
}

template <>
struct Block<Q8_0> {
    static constexpr int group = 32, bytes = 34;
    static void codes(const uint8_t* block, int, uint8_t* code) { std::memcpy(code, block + 2, 32); }
    static void head(const uint8_t* block, uint16_t* half) { half[0] = half_at(block); }
};
template <>
struct Block<Q4_0> {
    static constexpr int group = 32, bytes = 18;
    static void codes(const uint8_t* block, int, uint8_t* code) { nibbles(block + 2, code); }
    static void head(const uint8_t* block, uint16_t* half) { half[0] = half_at(block); }
};
template <>
struct Block<Q4_1> {
    static constexpr int group = 32, bytes = 20;
    static void codes(const uint8_t* block, int, uint8_t* code) { nibbles(block + 4, code); }
    static void head(const uint8_t* block, uint16_t* half) { half[0] = half_at(block), half[1] = half_at(block + 2); }
};
template <>
struct Block<Q5_0> {
    static constexpr int group = 32, bytes = 22;
    static void codes(const uint8_t* block, int, uint8_t* code) {
        nibbles(block + 6, code);
        fifth_bits(block + 2, code);
    }
    static void head(const uint8_t* block, uint16_t* half) { half[0] = half_at(block); }
};
template <>
struct Block<Q5_1> {
    static constexpr int group = 32, bytes = 24;
    static void codes(const uint8_t* block, int, uint8_t* code) {
        nibbles(block + 8, code);
        fifth_bits(block + 4, code);
    }
    static void head(const uint8_t* block, uint16_t* half) { half[0] = half_at(block), half[1] = half_at(block + 2); }
};

// the 6-bit scale and min of sub-block j, from 12 bytes
INLINE void scale_and_min(const uint8_t* q, int j, uint8_t* scale, uint8_t* least) {
    if (j < 4) {
        *scale = q[j] & 63, *least = q[j + 4] & 63;
    } else {
        *scale = (q[j + 4] & 15) | (q[j - 4] >> 6) << 4;
        *least = (q[j + 4] >> 4) | (q[j] >> 6) << 4;
    }
}

template <>
struct Block<Q4_K> {
    static constexpr int group = 256, bytes = 144;
    static void codes(const uint8_t* block, int sub, uint8_t* code) {
        const uint8_t* q = block + 16 + 32 * (sub / 2);
        const int shift = 4 * (sub % 2);
        for (int j = 0; j < 32; j++) code[j] = q[j] >> shift & 15;
    }
    static void head(const uint8_t* block, uint16_t* half) { half[0] = half_at(block), half[1] = half_at(block + 2); }
    static void scales(const uint8_t* block, int sub, uint8_t* scale) { scale_and_min(block + 4, sub, scale, scale + 1); }
};
template <>
struct Block<Q5_K> {
    static constexpr int group = 256, bytes = 176;
    static void codes(const uint8_t* block, int sub, uint8_t* code) {
        const uint8_t *q = block + 48 + 32 * (sub / 2), *h = block + 16;
        const int shift = 4 * (sub % 2);
        for (int j = 0; j < 32; j++) code[j] = (q[j] >> shift & 15) | (h[j] >> sub & 1) << 4;
    }
    static void head(const uint8_t* block, uint16_t* half) { half[0] = half_at(block), half[1] = half_at(block + 2); }
    static void scales(const uint8_t* block, int sub, uint8_t* scale) { scale_and_min(block + 4, sub, scale, scale + 1); }
};
template <>
struct Block<Q6_K> {
    static constexpr int group = 256, bytes = 210;
    static void codes(const uint8_t* block, int sub, uint8_t* code) {
        const int half = sub / 4, part = sub % 4;  // the four runs of 32 in each 128 columns share their bytes
        const uint8_t *low = block + 64 * half + 32 * (part % 2), *high = block + 128 + 32 * half;
        const int shift = 4 * (part / 2), up = 2 * part;
        for (int j = 0; j < 32; j++) code[j] = (low[j] >> shift & 15) | (high[j] >> up & 3) << 4;
    }
    static void head(const uint8_t* block, uint16_t* half) { half[0] = half_at(block + 208); }
    static void scales(const uint8_t* block, int sub, uint8_t* scale) {
        scale[0] = block[192 + 2 * sub], scale[1] = block[193 + 2 * sub];
    }
};

INLINE uint32_t word(const uint8_t* code, int step) {
    uint32_t w;
    std::memcpy(&w, code + 4 * step, 4);
    return w;
}
INLINE void put(uint8_t* to, int run, int r, uint32_t w) { std::memcpy(to + 32 * run + 4 * r, &w, 4); }

// Packs a panel of eight rows; a null row becomes zeros.
template <int FORMAT>
void pack_panel(const uint8_t* const* rows, int64_t columns, uint8_t* to) {
    using B = Block<FORMAT>;
    constexpr Shape shape = SHAPES[FORMAT];
    constexpr int bits = Codes<FORMAT>::bits;
    std::memset(to, 0, columns / shape.group * shape.bytes());
    for (int64_t g = 0; g < columns / shape.group; g++, to += shape.bytes()) {
        for (int r = 0; r < ROWS; r++) {
            if (!rows[r]) continue;
            const uint8_t* block = rows[r] + g * B::bytes;
            uint16_t half[2];
            B::head(block, half);
            for (int i = 0; i < shape.head[0].count; i++) std::memcpy(to + 16 * i + 2 * r, &half[i], 2);
            uint8_t* body = to + shape.head_bytes();
            for (int sub = 0; sub < shape.group / BLOCK; sub++, body += shape.body_bytes()) {
                uint8_t* at = body;
                if constexpr (Codes<FORMAT>::k) {
                    uint8_t scale[2];
                    B::scales(block, sub, scale);
                    if constexpr (FORMAT == Q6_K) {
                        at[2 * r] = scale[0], at[2 * r + 1] = scale[1];
                    } else {
                        at[r] = scale[0], at[8 + r] = scale[1];
                    }
                    at += 16;
                }
                uint8_t code[32];
                B::codes(block, sub, code);
                if constexpr (bits == 8) {
                    for (int s = 0; s < 8; s++) put(at, s, r, word(code, s));
                    continue;
                }
                if constexpr (bits == 5) {
                    uint32_t fifth = 0;
                    for (int s = 0; s < 8; s++) fifth |= (word(code, s) >> 4 & 0x01010101u) << s;
                    put(at, 0, r, fifth);
                    at += 32;
                }
                if constexpr (bits == 6) {
                    uint32_t upper[2] = {};
                    for (int s = 0; s < 8; s++) upper[s / 4] |= (word(code, s) >> 4 & 0x03030303u) << 2 * (s % 4);
                    put(at, 0, r, upper[0]), put(at, 1, r, upper[1]);
                    at += 64;
                }
                for (int i = 0; i < 4; i++)
                    put(at, i, r, (word(code, 2 * i) & 0x0f0f0f0fu) | (word(code, 2 * i + 1) & 0x0f0f0f0fu) << 4);
            }
        }
    }
}

void pack_panel(int32_t format, const uint8_t* const* rows, int64_t columns, uint8_t* to) {
    switch (format) {
        case Q8_0: return pack_panel<Q8_0>(rows, columns, to);
        case Q4_0: return pack_panel<Q4_0>(rows, columns, to);
        case Q4_1: return pack_panel<Q4_1>(rows, columns, to);
        case Q5_0: return pack_panel<Q5_0>(rows, columns, to);
        case Q5_1: return pack_panel<Q5_1>(rows, columns, to);
        case Q4_K: return pack_panel<Q4_K>(rows, columns, to);
        case Q5_K: return pack_panel<Q5_K>(rows, columns, to);
        case Q6_K: return pack_panel<Q6_K>(rows, columns, to);
    }
}

float element(int32_t type, const uint8_t* row, int64_t column) {
    if (type == F32) {
        float f;
        std::memcpy(&f, row + 4 * column, 4);
        return f;
    }
    const uint16_t h = half_at(row + 2 * column);
    return type == F16 ? half_to_float(h) : bfloat_to_float(h);
}

// Packs a panel of sixteen rows of floats; a null row becomes zeros.
void pack_floats(int32_t type, int32_t format, const uint8_t* const* rows, int64_t columns, uint8_t* to) {
    for (int64_t c = 0; c < columns; c++)
        for (int r = 0; r < FLOAT_ROWS; r++) {
            const int64_t at = c * FLOAT_ROWS + r;
            const float f = rows[r] ? element(type, rows[r], c) : 0.0f;
            if (format == F32) {
                ((float*)to)[at] = f;
            } else if (format == type) {
                ((uint16_t*)to)[at] = rows[r] ? half_at(rows[r] + 2 * c) : 0;
            } else {
                ((uint16_t*)to)[at] = format == F16 ? float_to_half(f) : float_to_bfloat(f);
            }
        }
}

// False where the number is none, or is beyond float16.
bool store_half(uint8_t* at, float f) {
    const uint16_t h = float_to_half(f);
    std::memcpy(at, &h, 2);
    return (h & 0x7c00) != 0x7c00;
}

// 1 / d; 0 where that is no number
float inverse_of(float d) {
    const float by = 1.0f / d;
    return std::isfinite(by) ? by : 0.0f;
}

// Quantizes 32 floats to a block in the file's layout, as ggml's reference does. The largest magnitude (Q4_1, Q5_1: the
// least and the greatest weight) becomes an exact code. Q8_0 rounds halves away from zero, the others round them up.
// False, with no codes, where a weight is no number or a scale is beyond float16.
bool quantize(int32_t format, const float* x, uint8_t* block) {
    for (int i = 0; i < 32; i++)
        if (!std::isfinite(x[i])) return false;
    uint8_t code[32];
    if (format == Q8_0) {
        float most = 0;
        for (int i = 0; i < 32; i++) most = std::max(most, std::fabs(x[i]));
        const float d = most / 127.0f, by = inverse_of(d);
        if (!store_half(block, d)) return false;
        for (int i = 0; i < 32; i++) block[2 + i] = (uint8_t)(int8_t)std::round(x[i] * by);
        return true;
    }
    const bool least = format == Q4_1 || format == Q5_1;
    const int top = format == Q4_0 || format == Q4_1 ? 15 : 31;
    float d, offset;
    if (least) {
        const auto [low, high] = std::minmax_element(x, x + 32);
        d = (*high - *low) / top, offset = *low;
        if (!store_half(block + 2, offset)) return false;
    } else {
        const float most = *std::max_element(x, x + 32, [](float a, float b) { return std::fabs(a) < std::fabs(b); });
        d = most / -(float)((top + 1) / 2), offset = 0;
    }
    if (!store_half(block, d)) return false;
    const float by = inverse_of(d), half = least ? 0.5f : (top + 1) / 2 + 0.5f;
    for (int i = 0; i < 32; i++) code[i] = (uint8_t)std::min(top, (int)((x[i] - offset) * by + half));
    uint8_t* at = block + (least ? 4 : 2);
    if (top == 31) {
        uint32_t fifth = 0;
        for (int i = 0; i < 32; i++) fifth |= (uint32_t)(code[i] >> 4) << i;
        std::memcpy(at, &fifth, 4);
        at += 4;
    }
    for (int j = 0; j < 16; j++) at[j] = (code[j] & 15) | (code[j + 16] & 15) << 4;
    return true;
}

int block_bytes(int32_t format) {
    switch (format) {
        case Q8_0: return Block<Q8_0>::bytes;
        case Q4_0: return Block<Q4_0>::bytes;
        case Q4_1: return Block<Q4_1>::bytes;
        case Q5_0: return Block<Q5_0>::bytes;
        default: return Block<Q5_1>::bytes;
    }
}

}  // namespace

bool pack(Pool& pool, int32_t type, int32_t format, int64_t rows, int64_t columns, const uint8_t* from,
          int64_t row_bytes, const int32_t* order, uint8_t* to) {
    const int64_t count = panels(format, rows), bytes = panel_bytes(format, columns);
    const int per_panel = panel_rows(format);
    const int tasks = (int)std::min<int64_t>(count, 16 * pool.threads());
    std::atomic<bool> good{true};
    pool.run(tasks, [&](int task, int) {
        std::vector<float> floats;
        std::vector<uint8_t> blocks;
        for (int64_t panel = count * task / tasks; panel < count * (task + 1) / tasks; panel++) {
            const uint8_t* source[FLOAT_ROWS];
            for (int r = 0; r < per_panel; r++) {
                const int64_t row = panel * per_panel + r;
                source[r] = row < rows ? from + (order ? order[row] : row) * row_bytes : nullptr;
            }
            uint8_t* panel_to = to + panel * bytes;
            if (is_float(format)) {
                pack_floats(type, format, source, columns, panel_to);
                continue;
            }
            if (type != format) {  // floats: quantize each row first
                const int64_t quantized = columns / BLOCK * block_bytes(format);
                floats.resize(columns), blocks.resize(quantized * ROWS);
                for (int r = 0; r < ROWS; r++) {
                    if (!source[r]) continue;
                    for (int64_t c = 0; c < columns; c++) floats[c] = element(type, source[r], c);
                    uint8_t* block = blocks.data() + r * quantized;
                    for (int64_t b = 0; b < columns / BLOCK; b++)
                        if (!quantize(format, floats.data() + b * BLOCK, block + b * block_bytes(format))) good = false;
                    source[r] = block;
                }
            }
            pack_panel(format, source, columns, panel_to);
        }
    });
    return good;
}

void copy_row(int32_t format, int64_t columns, const uint8_t* from, int64_t from_row, uint8_t* to, int64_t to_row) {
    const int per_panel = panel_rows(format);
    const int64_t bytes = panel_bytes(format, columns);
    from += from_row / per_panel * bytes, to += to_row / per_panel * bytes;
    const int a = from_row % per_panel, b = to_row % per_panel;
    if (is_float(format)) {
        const int size = format == F32 ? 4 : 2;
        for (int64_t c = 0; c < columns; c++)
            std::memcpy(to + (c * FLOAT_ROWS + b) * size, from + (c * FLOAT_ROWS + a) * size, size);
        return;
    }
    const Shape& shape = SHAPES[format];
    int64_t at = 0;
    const auto cells = [&](const Cells& run) {
        for (int i = 0; i < run.count; i++, at += 8 * run.size) std::memcpy(to + at + b * run.size, from + at + a * run.size, run.size);
    };
    for (int64_t g = 0; g < columns / shape.group; g++) {
        for (const Cells& run : shape.head) cells(run);
        for (int sub = 0; sub < shape.group / BLOCK; sub++)
            for (const Cells& run : shape.body) cells(run);
    }
}

}  // namespace sparing
