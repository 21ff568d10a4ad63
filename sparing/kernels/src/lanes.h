// Vectors of eight floats or int32, and of 32 bytes: the processor-specific operations of the kernels.
//
// The types are the compiler's own vectors, so + - * and comparisons work on every processor. Other operations are
// written here once for AVX2 (with VNNI where the processor has it), NEON and plain C++; no other source has
// intrinsics. A vector always has eight lanes, so AVX2 and AVX-512 give the same bits.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include <immintrin.h>
#define LANES_AVX2 1
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#define LANES_NEON 1
#endif

namespace sparing {

typedef float f8 __attribute__((vector_size(32)));
typedef int32_t i8 __attribute__((vector_size(32)));
typedef uint8_t b32 __attribute__((vector_size(32)));
typedef int16_t s16 __attribute__((vector_size(32)));

#define INLINE inline __attribute__((always_inline))

template <class V, class T>
INLINE V load(const T* from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

template <class V, class T>
INLINE void store(T* to, V v) {
    std::memcpy(to, &v, sizeof v);
}

INLINE f8 all(float x) { return f8{x, x, x, x, x, x, x, x}; }
INLINE i8 all(int32_t x) { return i8{x, x, x, x, x, x, x, x}; }

// Keeps a vector in a register; the compiler would reload it from memory at each use.
INLINE f8 kept(f8 v) {
#if LANES_AVX2
    asm("" : "+x"(v));
#endif
    return v;
}

INLINE void prefetch(const void* at) { __builtin_prefetch(at, 0, 3); }

INLINE f8 to_float(i8 v) { return __builtin_convertvector(v, f8); }

// a b + c, with one rounding on AVX2 and NEON, two in plain C++
INLINE f8 fma(f8 a, f8 b, f8 c) {
#if LANES_AVX2
    return (f8)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif LANES_NEON
    float32x4_t x[2], y[2], z[2];
    std::memcpy(x, &a, 32), std::memcpy(y, &b, 32), std::memcpy(z, &c, 32);
    z[0] = vfmaq_f32(z[0], x[0], y[0]), z[1] = vfmaq_f32(z[1], x[1], y[1]);
    std::memcpy(&c, z, 32);
    return c;
#else
    return a * b + c;
#endif
}

// to the nearest integer, ties to even
INLINE i8 to_int(f8 v) {
#if LANES_AVX2
    return (i8)_mm256_cvtps_epi32((__m256)v);
#else
    i8 r;
    for (int i = 0; i < 8; i++) r[i] = (int32_t)std::nearbyintf(v[i]);
    return r;
#endif
}

INLINE f8 max(f8 a, f8 b) {
#if LANES_AVX2
    return (f8)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return a > b ? a : b;
#endif
}

INLINE f8 absolute(f8 v) { return (f8)((i8)v & all(0x7fffffff)); }

// The largest lane; the lanes must not be negative. A NaN counts as larger than any number.
INLINE float largest(f8 v) {
    i8 bits = (i8)v;
    int32_t best = bits[0];
    for (int i = 1; i < 8; i++) best = bits[i] > best ? bits[i] : best;
    float value;
    std::memcpy(&value, &best, 4);
    return value;
}

// the sum of eight lanes, in a fixed order
INLINE float sum(f8 v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }

INLINE int32_t sum(i8 v) {
    int32_t total = 0;
    for (int i = 0; i < 8; i++) total += v[i];
    return total;
}

// the sums of the lanes of four vectors, in a fixed order
INLINE void sum4(const f8* v, float* out) {
#if LANES_AVX2
    __m256 a = _mm256_hadd_ps((__m256)v[0], (__m256)v[1]), b = _mm256_hadd_ps((__m256)v[2], (__m256)v[3]);
    __m256 c = _mm256_hadd_ps(a, b);
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(c), _mm256_extractf128_ps(c, 1)));
#else
    for (int i = 0; i < 4; i++) {
        f8 x = v[i];
        out[i] = ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7]));
    }
#endif
}

// float16

INLINE float half_to_float(uint16_t h) {
#if LANES_AVX2
    return _cvtsh_ss(h);
#else
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 1023, bits;
    if (exponent == 31) {
        bits = sign | 0x7f800000 | fraction << 13;
    } else if (exponent == 0) {
        float f = (float)fraction * 5.9604644775390625e-8f;  // 2^-24
        std::memcpy(&bits, &f, 4);
        bits |= sign;
    } else {
        bits = sign | (exponent + 112) << 23 | fraction << 13;
    }
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
#endif
}

INLINE uint16_t float_to_half(float f) {
#if LANES_AVX2
    return _cvtss_sh(f, 0);
#else
    uint32_t bits;
    std::memcpy(&bits, &f, 4);
    uint32_t sign = (bits >> 16) & 0x8000, rest = bits & 0x7fffffff;
    if (rest >= 0x7f800000) return sign | 0x7c00 | (rest > 0x7f800000 ? 0x200 : 0);
    if (rest >= 0x477ff000) return sign | 0x7c00;  // rounds to infinity
    if (rest < 0x38800000) {                       // subnormal in float16
        float magnitude;
        std::memcpy(&magnitude, &rest, 4);
        return sign | (uint32_t)std::nearbyintf(magnitude * 16777216.0f);
    }
    uint32_t half = (rest - 0x38000000) >> 13, cut = rest & 0x1fff;
    return sign | (half + (cut > 0x1000 || (cut == 0x1000 && (half & 1))));
#endif
}

INLINE f8 halves(const uint16_t* from) {
#if LANES_AVX2
    return (f8)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)from));
#elif LANES_NEON
    float16x8_t h = vreinterpretq_f16_u16(vld1q_u16(from));
    float32x4_t x[2] = {vcvt_f32_f16(vget_low_f16(h)), vcvt_f32_f16(vget_high_f16(h))};
    return load<f8>((const float*)x);
#else
    f8 v;
    for (int i = 0; i < 8; i++) v[i] = half_to_float(from[i]);
    return v;
#endif
}

INLINE void store_halves(uint16_t* to, f8 v) {
#if LANES_AVX2
    _mm_storeu_si128((__m128i*)to, _mm256_cvtps_ph((__m256)v, 0));
#else
    for (int i = 0; i < 8; i++) to[i] = float_to_half(v[i]);
#endif
}

INLINE float bfloat_to_float(uint16_t h) {
    uint32_t bits = (uint32_t)h << 16;
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
}

INLINE uint16_t float_to_bfloat(float f) {
    uint32_t bits;
    std::memcpy(&bits, &f, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return (bits >> 16) | 0x40;  // stays a NaN
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

// small integers to eight int32

INLINE i8 bytes(const uint8_t* from) {
#if LANES_AVX2
    return (i8)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)from));
#else
    typedef uint8_t eight __attribute__((vector_size(8)));
    return __builtin_convertvector(load<eight>(from), i8);
#endif
}

INLINE i8 words(const void* from) {
#if LANES_AVX2
    return (i8)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)from));
#else
    typedef uint16_t eight __attribute__((vector_size(16)));
    return __builtin_convertvector(load<eight>((const char*)from), i8);
#endif
}

INLINE i8 signed_bytes(const int8_t* from) {
#if LANES_AVX2
    return (i8)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)from));
#else
    typedef int8_t eight __attribute__((vector_size(8)));
    return __builtin_convertvector(load<eight>(from), i8);
#endif
}

INLINE void store_signed_bytes(int8_t* to, i8 v) {
#if LANES_AVX2
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
    _mm_storel_epi64((__m128i*)to, _mm_packs_epi16(words, words));
#else
    typedef int8_t eight __attribute__((vector_size(8)));
    store(to, __builtin_convertvector(v, eight));
#endif
}

// Rounds 8 * count floats to 8 bits: d = max |x| / 127, a = round(x (127 / max |x|)). ``put(i, a)`` takes eight at a time.
// Returns d; a NaN makes it one.
template <class Put>
INLINE float to_8_bits(const float* x, int count, const Put& put) {
    i8 most = all(0);  // magnitudes have the same order as integers, and a NaN comes last, so it is kept
    for (int i = 0; i < count; i++) {
        const i8 magnitude = (i8)absolute(load<f8>(x + 8 * i));
        most = most > magnitude ? most : magnitude;
    }
    const float top = largest((f8)most), inverse = 127.0f / top;
    const f8 by = all(inverse <= 3.0e38f ? inverse : 0.0f);
    for (int i = 0; i < count; i++) put(i, to_int(load<f8>(x + 8 * i) * by));
    return top * (1.0f / 127.0f);
}

INLINE f8 bfloats(const uint16_t* from) { return (f8)(words(from) << 16); }

// Logical shifts within 16 bits; ``masked`` then clears the bits of the neighbouring byte
INLINE b32 right(b32 v, int bits) {
    typedef uint16_t u16 __attribute__((vector_size(32)));
    return (b32)((u16)v >> (uint16_t)bits);
}
INLINE b32 left(b32 v, int bits) {
    typedef uint16_t u16 __attribute__((vector_size(32)));
    return (b32)((u16)v << (uint16_t)bits);
}
INLINE b32 masked(b32 v, uint8_t mask) { return v & (b32)all((int32_t)(mask * 0x01010101u)); }

// Dot products of bytes over STEPS steps of four columns. Lane r of the result is
// the sum over s, j of v[s].byte(4 r + j) * a[4 s + j].

#if LANES_AVX2
INLINE __m256i four(const int8_t* a) {  // four activations in every lane
    int32_t word;
    std::memcpy(&word, a, 4);
    return _mm256_set1_epi32(word);
}
#endif

// Codes 0 .. 2^BITS - 1, at most six bits, times ``factor``, the ``twice`` of an integer a row. AVX2 adds in 16 bits as long
// as the sum fits, then in 32.
template <int BITS, int STEPS>
INLINE i8 dot(const b32* v, const int8_t* a, i8 factor) {
#if LANES_AVX2 && (defined(__AVX512VNNI__) && defined(__AVX512VL__))
    __m256i even = _mm256_setzero_si256(), odd = _mm256_setzero_si256();
    for (int s = 0; s < STEPS; s += 2) {
        even = _mm256_dpbusd_epi32(even, (__m256i)v[s], four(a + 4 * s));
        odd = _mm256_dpbusd_epi32(odd, (__m256i)v[s + 1], four(a + 4 * s + 4));
    }
    return (i8)_mm256_add_epi32(even, odd) * factor;
#elif LANES_AVX2
    constexpr int TOGETHER = BITS == 4 ? 8 : BITS == 5 ? 4 : 2;  // 2 * 127 * (2^BITS - 1) * this < 2^15
    const auto two = [&](int s) {  // pairs shorten the chain of dependent sums
        __m256i sum = _mm256_add_epi16(_mm256_maddubs_epi16((__m256i)v[s], four(a + 4 * s)),
                                       _mm256_maddubs_epi16((__m256i)v[s + 1], four(a + 4 * s + 4)));
        asm volatile("" : "+x"(sum));  // fixes the order: earlier broadcasts would push the codes out of the registers
        return sum;
    };
    __m256i total;
    for (int s = 0; s < STEPS; s += TOGETHER) {
        __m256i sum = two(s);
        for (int more = 2; more < TOGETHER; more += 2) sum = _mm256_add_epi16(sum, two(s + more));
        sum = _mm256_madd_epi16(sum, (__m256i)factor);
        total = s ? _mm256_add_epi32(total, sum) : sum;
    }
    return (i8)total;
#elif LANES_NEON && defined(__ARM_FEATURE_DOTPROD)
    int32x4_t low = vdupq_n_s32(0), high = vdupq_n_s32(0);
    for (int s = 0; s < STEPS; s++) {
        int8x16_t w[2], x = vreinterpretq_s8_s32(vdupq_n_s32(0));
        int32_t word;
        std::memcpy(w, &v[s], 32), std::memcpy(&word, a + 4 * s, 4);
        x = vreinterpretq_s8_s32(vdupq_n_s32(word));
        low = vdotq_s32(low, w[0], x), high = vdotq_s32(high, w[1], x);
    }
    int32x4_t both[2] = {low, high};
    return load<i8>((const int32_t*)both) * factor;
#else
    int32_t total[8] = {};
    for (int s = 0; s < STEPS; s++)
        for (int r = 0; r < 8; r++)
            for (int j = 0; j < 4; j++) total[r] += (int)v[s][4 * r + j] * a[4 * s + j];
    return load<i8>(total) * factor;
#endif
}

// The factor of ``dot`` from an integer of 16 bits a row.
INLINE i8 twice(i8 v) {
#if LANES_AVX2 && !(defined(__AVX512VNNI__) && defined(__AVX512VL__))
    return (v & all(0xffff)) | v << 16;  // each row has two sums of 16 bits
#else
    return v;
#endif
}

// first * two[0] + second * two[1]: two integers of 16 bits a row, side by side in its lane, times two shared by all rows.
INLINE i8 paired(i8 first, i8 second) { return (first & all(0xffff)) | second << 16; }
INLINE i8 dot_pair(i8 pairs, const int16_t* two) {
#if LANES_AVX2
    int32_t both;
    std::memcpy(&both, two, 4);
    return (i8)_mm256_madd_epi16((__m256i)pairs, _mm256_set1_epi32(both));
#else
    return (pairs << 16 >> 16) * all((int32_t)two[0]) + (pairs >> 16) * all((int32_t)two[1]);
#endif
}

// Codes -128 .. 127
template <int STEPS>
INLINE i8 dot_signed(const b32* v, const int8_t* a) {
#if LANES_AVX2 && (defined(__AVX512VNNI__) && defined(__AVX512VL__))
    __m256i total = _mm256_setzero_si256();
    for (int s = 0; s < STEPS; s++) {
        __m256i w = (__m256i)v[s];
        total = _mm256_dpbusd_epi32(total, _mm256_abs_epi8(w), _mm256_sign_epi8(four(a + 4 * s), w));
    }
    return (i8)total;
#elif LANES_AVX2
    const __m256i ones = _mm256_set1_epi16(1);
    const auto one = [&](int s) {  // |w| (a sign w): at most 2 * 127 * 128 in a pair, which fits 16 bits
        const __m256i w = (__m256i)v[s];
        return _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(four(a + 4 * s), w)), ones);
    };
    const auto two = [&](int s) { return _mm256_add_epi32(one(s), one(s + 1)); };
    static_assert(STEPS == 8);
    return (i8)_mm256_add_epi32(_mm256_add_epi32(two(0), two(2)), _mm256_add_epi32(two(4), two(6)));
#elif LANES_NEON && defined(__ARM_FEATURE_DOTPROD)
    return dot<6, STEPS>(v, a, twice(all(1)));  // vdotq takes signed codes
#else
    int32_t total[8] = {};
    for (int s = 0; s < STEPS; s++)
        for (int r = 0; r < 8; r++)
            for (int j = 0; j < 4; j++) total[r] += (int)(int8_t)v[s][4 * r + j] * a[4 * s + j];
    return load<i8>(total);
#endif
}

// e^x, within 2 units in the last place; 0 below -87
INLINE f8 exponential(f8 x) {
    const f8 none = all(0.0f);
    auto gone = x < all(-87.0f);
    x = max(all(-87.0f), x);  // this order of arguments keeps a NaN
    x = -max(all(-88.0f), -x);
    i8 n = to_int(x * all(1.44269504088896341f));
    f8 k = to_float(n);
    f8 r = fma(k, all(-0.693359375f), x);
    r = fma(k, all(2.12194440e-4f), r);
    f8 p = all(1.9875691500e-4f);
    p = fma(p, r, all(1.3981999507e-3f));
    p = fma(p, r, all(8.3334519073e-3f));
    p = fma(p, r, all(4.1665795894e-2f));
    p = fma(p, r, all(1.6666665459e-1f));
    p = fma(p, r, all(5.0000001201e-1f));
    f8 y = fma(p * r, r, r + all(1.0f));
    f8 scale = (f8)((n + all(127)) << 23);
    return gone ? none : y * scale;
}

}  // namespace sparing
