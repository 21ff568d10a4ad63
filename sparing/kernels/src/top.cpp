#include "top.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "lanes.h"

namespace sparing {

namespace {

constexpr int SPAN = 8192;
constexpr float NONE = -std::numeric_limits<float>::infinity();

struct Part {
    float most, total;  // max x, and the sum of exp(x - max x)
    int32_t index;
};

// The number to subtract from logits before exp; a span with only -inf sums to 0.
float finite(float most) { return most == NONE ? 0.0f : most; }

Part of_span(const float* x, int begin, int end) {
    f8 tops = all(NONE);
    int i = begin;
    for (; i + 8 <= end; i += 8) tops = max(load<f8>(x + i), tops);
    float most = tops[0];
    for (int lane = 1; lane < 8; lane++) most = std::max(most, tops[lane]);
    for (; i < end; i++) most = std::max(most, x[i]);
    const float by = finite(most);
    int index = begin;
    while (index + 1 < end && !(x[index] == most)) index++;
    f8 sums[2] = {all(0.0f), all(0.0f)};
    for (i = begin; i + 16 <= end; i += 16)
        for (int j = 0; j < 2; j++) sums[j] += exponential(load<f8>(x + i + 8 * j) - all(by));
    float total = sum(sums[0] + sums[1]);
    for (; i < end; i++) total += exponential(all(x[i] - by))[0];
    return {most, total, index};
}

}  // namespace

void top(Pool& pool, const float* logits, int tokens, int count, int32_t* argmax, float* confidence) {
    const int spans = (count + SPAN - 1) / SPAN;
    std::vector<Part> parts((size_t)tokens * spans);
    pool.run(tokens * spans, [&](int task, int) {
        const int begin = task % spans * SPAN;
        parts[task] = of_span(logits + (int64_t)(task / spans) * count, begin, std::min(count, begin + SPAN));
    });
    for (int token = 0; token < tokens; token++) {
        Part best = parts[(size_t)token * spans];
        for (int s = 1; s < spans; s++) {
            const Part& next = parts[(size_t)token * spans + s];
            const float most = std::max(best.most, next.most), by = finite(most);
            if (next.most > best.most) best.index = next.index;
            best.total = best.total * exponential(all(best.most - by))[0] + next.total * exponential(all(next.most - by))[0];
            best.most = most;
        }
        argmax[token] = best.index, confidence[token] = 1.0f / best.total;
    }
}

}  // namespace sparing
