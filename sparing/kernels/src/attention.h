// Attention of new tokens over the slots of a cache, each token over what it sees.
//
// A token sees slots in the order of their positions: those that were cached before the pass, then its ancestors among the
// new tokens, itself last. With visible slot i, in spans of 256 visible slots:
//
//     s[i] = q k[i] / sqrt(D);   m = max s,  l = sum exp(s - m),  a = sum exp(s - m) v[i]      of a span
//     (M, L, A) + (m, l, a):   T = max(M, m),  L = L exp(M - T) + l exp(m - T),  A likewise     in the order of spans
//     out = A / L
//
// (online softmax, arXiv 1805.02867; split over slots as in FlashDecoding). A span is the unit of work where tokens are few, so
// the threads share even one token's slots; its values do not depend on who computes it, nor on the other tokens.
//
// Cost, one layer: every cached byte is read once for a tile of up to 32 queries of a key head; 2 D products a
// query and slot, some 1.3 instructions for 8 of them.
#pragma once

#include <vector>

#include "lanes.h"
#include "threads.h"

namespace sparing {

enum Stored : int32_t { KV_F32, KV_F16, KV_Q8 };  // how keys and values lie in a cache

constexpr int SPAN = 256;   // visible slots
constexpr int TILE_QUERIES = 32;
constexpr int CHUNK = 32;   // slots whose keys are turned to floats at once

// Keys and values of one layer, [2, rows, heads, slots, dim]; at 8 bits with a scale [2, rows, heads, slots].
struct KeyValues {
    int32_t stored;
    int32_t rows, heads, dim;
    int64_t slots;
    void* data;
    float* scales;

    int64_t run(int which, int row, int head) const { return (((int64_t)which * rows + row) * heads + head) * slots; }
    void write(int which, int row, int head, int64_t slot, const float* from) const;
};

// The new tokens of one row.
struct Row {
    int row;              // in the cache
    int first, tokens;    // among all new tokens
    int cached, visible;  // slots in use, and how many of them are seen
    int attended;         // the attention of so many last tokens is wanted ...
    float* attention;     // ... [attended, cached + tokens], added to
    std::vector<std::vector<int32_t>> tails;  // a token's slots behind ``visible``; empty: just the next ones

    int count(int token) const { return visible + (tails.empty() ? token + 1 : (int)tails[token].size()); }
    int64_t slot(int token, int index) const {
        return index < visible || tails.empty() ? index : tails[token][index - visible];
    }
    bool plain(int until) const { return tails.empty() || until <= visible; }
};

class Attention {
public:
    // The plan of a pass; used in every layer.
    Attention(Pool& pool, const std::vector<Row>& rows, int tokens, int heads, int key_heads, int dim);

    // q [tokens, heads, dim], already divided by sqrt(dim); out likewise.
    void run(const float* q, const KeyValues& kv, float* out);
    // Adds the softmax of the tokens whose attention is wanted, summed over heads. After ``run`` of this layer.
    void watch(const float* q, const KeyValues& kv);

private:
    struct Task {
        const Row* row;
        int head, first, end;       // key head and tokens of the row
        int first_span, end_span;
    };
    struct Scratch {
        std::vector<float> keys, queries, scores, sums;
    };

    void spans(const Task& task, const float* q, const KeyValues& kv, float* out, Scratch& s);
    void span(const Row& row, int head, int first, int end, int span, const float* q, const KeyValues& kv, Scratch& s,
              float* most, float* total);
    void scores(const Row& row, int head, int first, int end, int begin, int until, const float* q, const KeyValues& kv, Scratch& s);
    float* part(int64_t query, int span) { return parts_.data() + (query * spans_ + span) * (dim_ + 8); }
    void combine(const Row& row, int token, int head, float* out);

    Pool& pool_;
    const std::vector<Row>& rows_;
    int heads_, key_heads_, group_, dim_;
    int spans_ = 0;   // of the longest row, where spans are tasks of their own
    bool split_ = false;
    std::vector<Task> tasks_;
    std::vector<float> parts_;   // [tokens, heads, spans] of m, l and a
    std::vector<float> most_, total_;  // [tokens, heads]: M and L, for ``watch``
    std::vector<Scratch> scratch_;
};

}  // namespace sparing
