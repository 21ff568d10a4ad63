// The exported functions, called from Python (native.py).
#include <algorithm>

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "pack.h"
#include "pass.h"
#include "top.h"

using namespace sparing;

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT Context* sparing_open(int threads) { return new Context(std::max(1, threads)); }
EXPORT void sparing_close(Context* context) { delete context; }

EXPORT int64_t sparing_packed_bytes(int32_t format, int64_t rows, int64_t columns) {
    return panels(format, rows) * panel_bytes(format, columns);
}

EXPORT int32_t sparing_pack(Context* context, int32_t type, int32_t format, int64_t rows, int64_t columns, const uint8_t* from,
                         int64_t row_bytes, const int32_t* order, uint8_t* to) {
    std::lock_guard<std::mutex> lock(context->busy);
    return pack(context->pool, type, format, rows, columns, from, row_bytes, order, to);
}

EXPORT void sparing_copy_row(int32_t format, int64_t columns, const uint8_t* from, int64_t from_row, uint8_t* to, int64_t to_row) {
    copy_row(format, columns, from, from_row, to, to_row);
}

EXPORT void sparing_rows(const Matrix* matrix, const int64_t* ids, int64_t count, float* out) {
    for (int64_t i = 0; i < count; i++) row(*matrix, ids[i], out + i * matrix->columns);
}

// out [tokens, rows] = x [tokens, columns] W^T + bias
EXPORT void sparing_multiply(Context* context, const Matrix* matrix, const float* x, int32_t tokens, float* out) {
    std::lock_guard<std::mutex> lock(context->busy);
    const Product product{matrix, out, matrix->rows, false};
    std::vector<uint8_t> quantized(tokens * Activations::bytes(matrix->columns));
    const Activations in(x, tokens, matrix->columns, quantized.data(), &product, 1);
    for (int t = 0; t < tokens; t++) in.quantize(t);
    multiply(context->pool, in, &product, 1);
}

// argmax and confidence [tokens] of logits [tokens, count]
EXPORT void sparing_top(Context* context, const float* logits, int32_t tokens, int32_t count, int32_t* argmax, float* confidence) {
    std::lock_guard<std::mutex> lock(context->busy);
    top(context->pool, logits, tokens, count, argmax, confidence);
}

EXPORT void sparing_run(Context* context, const Model* model, const Batch* batch, const Cache* cache, const Matrix* head, const Output* output) {
    run(*context, *model, *batch, *cache, *head, *output);
}

// Asks for huge pages for a cache: fewer pages make its reads faster.
EXPORT void sparing_huge(void* data, int64_t bytes) {
#if defined(__linux__)
    const uintptr_t page = 1 << 21, begin = ((uintptr_t)data + page - 1) & ~(page - 1), end = ((uintptr_t)data + bytes) & ~(page - 1);
    if (end > begin) madvise((void*)begin, end - begin, MADV_HUGEPAGE);
#else
    (void)data, (void)bytes;
#endif
}

// The best build for this processor: 0 plain, 1 AVX2 or NEON with dot products, 2 AVX-512 with VNNI.
EXPORT int32_t sparing_level() {
#if defined(__x86_64__)
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    const bool avx512 = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
    return avx2 + (avx2 && avx512);
#elif defined(__aarch64__) && defined(__linux__)
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(__aarch64__)
    return 1;  // every Apple processor
#else
    return 0;
#endif
}
