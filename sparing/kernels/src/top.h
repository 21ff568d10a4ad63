// The likeliest token of a distribution, and its probability.
//
//     argmax = the first index of max x;   confidence = exp(max x) / sum exp(x) = 1 / sum exp(x - max x)
//
// Spans of 8,192 logits are merged in order, like the spans of attention (attention.h), so a token's result is the same
// alone and in a batch. A NaN logit makes the confidence NaN.
#pragma once

#include <cstdint>

#include "threads.h"

namespace sparing {

// logits [tokens, count]; argmax and confidence [tokens]
void top(Pool& pool, const float* logits, int tokens, int count, int32_t* argmax, float* confidence);

}  // namespace sparing
