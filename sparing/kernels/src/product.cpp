#include "product.h"

#include <algorithm>

namespace sparing {

namespace {

constexpr int FLOAT_MOST = 6;  // tokens at once with a float panel: 12 sums, all in registers
constexpr int ABREAST = 4;     // float panels at once with a single token: independent sums hide the latency of fma
constexpr int AHEAD = 1024;    // bytes to prefetch
constexpr int64_t TASK_BYTES = 1 << 15;

// Writes the lanes of a panel, without the unused rows of the last one.
INLINE void put(f8 y, const Matrix& w, int64_t first, const Product& p, int token) {
    float* out = p.out + token * p.stride + first;
    const int64_t count = w.rows - first;
    if (count >= 8) {
        if (w.bias) y += load<f8>(w.bias + first);
        store(out, p.add ? load<f8>(out) + y : y);
        return;
    }
    for (int64_t r = 0; r < count; r++) {
        float value = w.bias ? y[r] + w.bias[first + r] : y[r];
        out[r] = p.add ? out[r] + value : value;
    }
}

INLINE void prefetch_block(const uint8_t* w, int bytes) {
    for (int line = 0; line < bytes; line += 64) prefetch(w + AHEAD + line);
}

// Multiplies a panel of eight rows with the TOKENS tokens of a tile.
template <int FORMAT, int TOKENS>
void packed(const uint8_t* w, const uint8_t* tile, int columns, f8* out) {
    using C = Codes<FORMAT>;
    constexpr Shape shape = C::shape;
    f8 y[TOKENS];
    for (int m = 0; m < TOKENS; m++) y[m] = all(0.0f);
    C codes;
    const i8 once = twice(all(1));
    const auto* x = (const Quantized<TOKENS>*)tile;
    for (const auto* end = x + columns / BLOCK; x < end; x++) {
        prefetch_block(w, shape.bytes());
        codes.load_from(w, w + shape.head_bytes());
        w += shape.bytes();
#pragma GCC unroll 8
        for (int m = 0; m < TOKENS; m++) {
            i8 total;
            if constexpr (C::bits == 8) {
                total = dot_signed<8>(codes.step, x->a[m]);
            } else {
                total = dot<C::bits, 8>(codes.step, x->a[m], once);
            }
            y[m] = fma(codes.scale * all(x->d[m]), to_float(total), y[m]);
            if constexpr (C::shifted) y[m] = fma(codes.shift, all(x->sum[m]), y[m]);
        }
    }
    for (int m = 0; m < TOKENS; m++) out[m] = y[m];
}

// ``packed`` for a K format.
template <int FORMAT, int TOKENS>
void packed_groups(const uint8_t* w, const uint8_t* tile, int columns, f8* out) {
    using C = Codes<FORMAT>;
    constexpr Shape shape = C::shape;
    constexpr int BLOCKS = GROUP / BLOCK;
    f8 y[TOKENS];
    for (int m = 0; m < TOKENS; m++) y[m] = all(0.0f);
    C codes;
    const auto* x = (const QuantizedGroup<TOKENS>*)tile;
    for (const auto* end = x + columns / GROUP; x < end; x++) {
        const uint8_t* body = w + shape.head_bytes();
        i8 total[TOKENS], low[TOKENS];  // sums of scale code a, and of the part to subtract: scale a (Q6_K) or min a
        for (int m = 0; m < TOKENS; m++) total[m] = low[m] = all(0);
        for (int b = 0; b < BLOCKS; b++, body += shape.body_bytes()) {
            prefetch_block(body, shape.body_bytes());
            codes.load_from(w, body);
            const i8 first = twice(codes.first), second = twice(codes.second), pair = paired(codes.first, codes.second);
#pragma GCC unroll 8
            for (int m = 0; m < TOKENS; m++) {
                const int8_t* a = x->a[b][m];
                if constexpr (C::six) {
                    total[m] += dot<6, 4>(codes.step, a, first) + dot<6, 4>(codes.step + 4, a + 16, second);
                    low[m] += dot_pair(pair, x->half[m] + 2 * b);
                } else {
                    total[m] += dot<C::bits, 8>(codes.step, a, first);
                }
            }
        }
        const f8 d = halves((const uint16_t*)w);
        if constexpr (C::six) {
            for (int m = 0; m < TOKENS; m++) y[m] = fma(d * all(x->d[m]), to_float(total[m] - low[m] * all(C::zero)), y[m]);
        } else {
            const uint8_t* block = w + shape.head_bytes();
            for (int b = 0; b < BLOCKS; b += 2, block += 2 * shape.body_bytes()) {
                const i8 pair = paired(bytes(block + 8), bytes(block + shape.body_bytes() + 8));
                for (int m = 0; m < TOKENS; m++) low[m] += dot_pair(pair, x->sum[m] + b);
            }
            const f8 least = -halves((const uint16_t*)(w + 16));
            for (int m = 0; m < TOKENS; m++) {
                y[m] = fma(d * all(x->d[m]), to_float(total[m]), y[m]);
                y[m] = fma(least * all(x->d[m]), to_float(low[m]), y[m]);
            }
        }
        w = body;
    }
    for (int m = 0; m < TOKENS; m++) out[m] = y[m];
}

template <int FORMAT, int TOKENS>
void some(const uint8_t* w, const Activations& x, int token, f8* out) {
    if constexpr (Codes<FORMAT>::k) {
        packed_groups<FORMAT, TOKENS>(w, x.group_tile(token), x.columns, out);
    } else {
        packed<FORMAT, TOKENS>(w, x.block_tile(token), x.columns, out);
    }
}

template <class Do>
void with_tokens(int tokens, const Do& what) {
    switch (tokens) {
        case 1: return what(std::integral_constant<int, 1>());
        case 2: return what(std::integral_constant<int, 2>());
        case 3: return what(std::integral_constant<int, 3>());
        case 4: return what(std::integral_constant<int, 4>());
        case 5: return what(std::integral_constant<int, 5>());
        case 6: return what(std::integral_constant<int, 6>());
        case 7: return what(std::integral_constant<int, 7>());
        default: return what(std::integral_constant<int, 8>());
    }
}

template <int FORMAT>
void packed_panels(const Product& p, const Activations& x, int64_t first, int64_t end) {
    const Matrix& w = *p.matrix;
    f8 y[TILE];
    for (int token = 0; token < x.tokens; token += TILE) {
        const int tokens = std::min(TILE, x.tokens - token);
        for (int64_t panel = first; panel < end; panel++) {
            with_tokens(tokens, [&](auto count) { some<FORMAT, count>(w.panel(panel), x, token, y); });
            for (int m = 0; m < tokens; m++) put(y[m], w, panel * ROWS, p, token + m);
        }
    }
}

template <int FORMAT>
struct Float {
    using type = uint16_t;
    static INLINE f8 get(const uint16_t* from) { return FORMAT == F16 ? halves(from) : bfloats(from); }
};
template <>
struct Float<F32> {
    using type = float;
    static INLINE f8 get(const float* from) { return load<f8>(from); }
};

// Multiplies PANELS panels of sixteen rows with TOKENS tokens.
template <int FORMAT, int PANELS, int TOKENS>
void floats(const Product& p, int64_t panel, const Activations& x, int token) {
    using W = typename Float<FORMAT>::type;
    const Matrix& w = *p.matrix;
    const int columns = x.columns;
    const W* from[PANELS];
    for (int i = 0; i < PANELS; i++) from[i] = (const W*)w.panel(panel + i);
    const float* in = x.x + (int64_t)token * columns;
    f8 y[PANELS][TOKENS][2];
    for (int i = 0; i < PANELS; i++)
        for (int m = 0; m < TOKENS; m++) y[i][m][0] = y[i][m][1] = all(0.0f);
    for (int c = 0; c < columns; c++) {
#pragma GCC unroll 8
        for (int i = 0; i < PANELS; i++) {
            f8 low = Float<FORMAT>::get(from[i] + c * FLOAT_ROWS), high = Float<FORMAT>::get(from[i] + c * FLOAT_ROWS + 8);
#pragma GCC unroll 8
            for (int m = 0; m < TOKENS; m++) {
                f8 one = all(in[(int64_t)m * columns + c]);
                y[i][m][0] = fma(low, one, y[i][m][0]);
                y[i][m][1] = fma(high, one, y[i][m][1]);
            }
        }
    }
    for (int i = 0; i < PANELS; i++)
        for (int m = 0; m < TOKENS; m++)
            for (int half = 0; half < 2; half++) put(y[i][m][half], w, (panel + i) * FLOAT_ROWS + 8 * half, p, token + m);
}

template <int FORMAT>
void float_panels(const Product& p, const Activations& x, int64_t first, int64_t end) {
    for (int token = 0; token < x.tokens; token += FLOAT_MOST) {
        const int tokens = std::min(FLOAT_MOST, x.tokens - token);
        int64_t panel = first;
        if (tokens == 1)
            for (; panel + ABREAST <= end; panel += ABREAST) floats<FORMAT, ABREAST, 1>(p, panel, x, token);
        if (tokens == 2)
            for (; panel + 2 <= end; panel += 2) floats<FORMAT, 2, 2>(p, panel, x, token);
        for (; panel < end; panel++) switch (tokens) {
                case 1: floats<FORMAT, 1, 1>(p, panel, x, token); break;
                case 2: floats<FORMAT, 1, 2>(p, panel, x, token); break;
                case 3: floats<FORMAT, 1, 3>(p, panel, x, token); break;
                case 4: floats<FORMAT, 1, 4>(p, panel, x, token); break;
                case 5: floats<FORMAT, 1, 5>(p, panel, x, token); break;
                default: floats<FORMAT, 1, 6>(p, panel, x, token);
            }
    }
}

void some_panels(const Product& p, const Activations& x, int64_t first, int64_t end) {
    switch (p.matrix->format) {
        case F32: return float_panels<F32>(p, x, first, end);
        case F16: return float_panels<F16>(p, x, first, end);
        case BF16: return float_panels<BF16>(p, x, first, end);
        case Q8_0: return packed_panels<Q8_0>(p, x, first, end);
        case Q4_0: return packed_panels<Q4_0>(p, x, first, end);
        case Q4_1: return packed_panels<Q4_1>(p, x, first, end);
        case Q5_0: return packed_panels<Q5_0>(p, x, first, end);
        case Q5_1: return packed_panels<Q5_1>(p, x, first, end);
        case Q4_K: return packed_panels<Q4_K>(p, x, first, end);
        case Q5_K: return packed_panels<Q5_K>(p, x, first, end);
        case Q6_K: return packed_panels<Q6_K>(p, x, first, end);
    }
}

}  // namespace

namespace {

template <int TOKENS>
void quantize_blocks(const float* x, int columns, uint8_t* tile, int m) {
    auto* to = (Quantized<TOKENS>*)tile;
    for (const float* end = x + columns; x < end; to++, x += BLOCK) {
        i8 a[4];
        to->d[m] = to_8_bits(x, 4, [&](int i, i8 eight) { a[i] = eight; });
        for (int i = 0; i < 4; i++) store_signed_bytes(to->a[m] + 8 * i, a[i]);
        to->sum[m] = to->d[m] * (float)sum(a[0] + a[1] + a[2] + a[3]);
    }
}

template <int TOKENS>
void quantize_groups(const float* x, int columns, uint8_t* tile, int m) {
    auto* to = (QuantizedGroup<TOKENS>*)tile;
    for (const float* end = x + columns; x < end; to++, x += GROUP) {
        i8 a[GROUP / 8];
        to->d[m] = to_8_bits(x, GROUP / 8, [&](int i, i8 eight) { a[i] = eight; });
        for (int b = 0; b < GROUP / BLOCK; b++) {
            for (int i = 0; i < 4; i++) store_signed_bytes(to->a[b][m] + 8 * i, a[4 * b + i]);
            for (int half = 0; half < 2; half++)
                to->half[m][2 * b + half] = (int16_t)sum(a[4 * b + 2 * half] + a[4 * b + 2 * half + 1]);
            to->sum[m][b] = to->half[m][2 * b] + to->half[m][2 * b + 1];
        }
    }
}

template <int TOKENS>
void quantize_token(const Activations& x, int token, int m) {
    const float* from = x.x + (int64_t)token * x.columns;
    if (x.blocks) quantize_blocks<TOKENS>(from, x.columns, (uint8_t*)x.block_tile(token - m), m);
    if (x.groups) quantize_groups<TOKENS>(from, x.columns, (uint8_t*)x.group_tile(token - m), m);
}

}  // namespace

Activations::Activations(const float* x, int tokens, int columns, uint8_t* quantized, const Product* products, int count)
    : x(x), tokens(tokens), columns(columns), quantized(quantized), blocks(false), groups(false) {
    for (int i = 0; i < count; i++) {
        const int32_t format = products[i].matrix->format;
        if (is_float(format)) continue;
        (SHAPES[format].group == GROUP ? groups : blocks) = true;
    }
}

void Activations::quantize(int token) const {
    const int m = token % TILE;
    with_tokens(std::min(TILE, tokens - (token - m)), [&](auto count) { quantize_token<count>(*this, token, m); });
}

void multiply(Pool& pool, const Activations& x, const Product* products, int count) {
    int64_t total = 0;  // bytes of all panels
    for (int i = 0; i < count; i++) {
        const Matrix& w = *products[i].matrix;
        total += panels(w.format, w.rows) * panel_bytes(w.format, w.columns);
    }
    const int64_t work = total * std::max(1, x.tokens / 8);
    const int wanted = (int)std::clamp<int64_t>(work / TASK_BYTES, 1, 8 * pool.threads());
    struct Task {
        int product;
        int64_t first, end;
    };
    Task tasks[256];
    int made = 0;
    for (int i = 0; i < count; i++) {
        const Matrix& w = *products[i].matrix;
        const int64_t all = panels(w.format, w.rows);
        const int64_t bytes = all * panel_bytes(w.format, w.columns);
        const int64_t parts = std::clamp<int64_t>(bytes * wanted / std::max<int64_t>(total, 1), 1, all);
        const int64_t most = std::min<int64_t>(parts, 64);
        for (int64_t part = 0; part < most; part++) tasks[made++] = {i, all * part / most, all * (part + 1) / most};
    }
    pool.run(made, [&](int task, int) { some_panels(products[tasks[task].product], x, tasks[task].first, tasks[task].end); });
}

void row(const Matrix& w, int64_t index, float* out) {
    const int64_t panel = index / panel_rows(w.format);
    const int r = index % panel_rows(w.format);
    const uint8_t* from = w.panel(panel);
    if (is_float(w.format)) {
        for (int c = 0; c < w.columns; c++) {
            const int64_t at = (int64_t)c * FLOAT_ROWS + r;
            out[c] = w.format == F32   ? ((const float*)from)[at]
                     : w.format == F16 ? half_to_float(((const uint16_t*)from)[at])
                                       : bfloat_to_float(((const uint16_t*)from)[at]);
        }
        return;
    }
    const auto unpack = [&](auto format) {
        using C = Codes<decltype(format)::value>;
        constexpr Shape shape = C::shape;
        C codes;
        for (int c = 0; c < w.columns;) {
            const uint8_t* head = from;
            const auto* heads = (const uint16_t*)head;
            from += shape.head_bytes();
            for (int inside = 0; inside < shape.group / BLOCK; inside++, from += shape.body_bytes()) {
                codes.load_from(head, from);
                for (int s = 0; s < 8; s++)
                    for (int j = 0; j < 4; j++, c++) {
                        const int code = C::bits == 8 ? (int8_t)codes.step[s][4 * r + j] : codes.step[s][4 * r + j] - C::zero;
                        if constexpr (C::six) {
                            out[c] = half_to_float(heads[r]) * (float)((s < 4 ? codes.first[r] : codes.second[r]) * code);
                        } else if constexpr (C::k) {
                            out[c] = half_to_float(heads[r]) * (float)(codes.first[r] * code) - half_to_float(heads[8 + r]) * (float)codes.second[r];
                        } else {
                            out[c] = codes.scale[r] * code;
                            if constexpr (C::shifted && !C::zero) out[c] += codes.shift[r];
                        }
                    }
            }
        }
    };
    switch (w.format) {
#define UNPACK(F) case F: return unpack(std::integral_constant<int, F>())
        UNPACK(Q8_0); UNPACK(Q4_0); UNPACK(Q4_1); UNPACK(Q5_0); UNPACK(Q5_1); UNPACK(Q4_K); UNPACK(Q5_K); UNPACK(Q6_K);
#undef UNPACK
    }
}

}  // namespace sparing
