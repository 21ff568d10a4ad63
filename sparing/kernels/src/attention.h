// Attention of new tokens over the visible slots of a cache.
//
// A token's visible slots, in the order of their positions, are the slots cached before the pass, then its ancestors among
// the new tokens, itself last. With i a visible slot, in spans of 256 visible slots:
//
//     s[i] = q k[i] / sqrt(D);   m = max s,  l = sum exp(s - m),  a = sum exp(s - m) v[i]      of a span
//     (M, L, A) + (m, l, a):   T = max(M, m),  L = L exp(M - T) + l exp(m - T),  A likewise     in the order of spans
//     out = A / L
//
// (online softmax, arXiv 1805.02867; split over slots as in FlashDecoding). With few tokens a task is one span, so threads
// share the slots of a single token. A span's values depend neither on the thread nor on the other tokens.
//
// Cost, one layer: every cached byte is read once for a tile of up to 32 queries of a key head; 2 D products for each
// query and slot, about 1.3 instructions for 8 of them.
#pragma once

#include <vector>

#include "lanes.h"
#include "threads.h"

namespace sparing {

enum Stored : int32_t { KV_F32, KV_F16, KV_Q8 };  // storage of keys and values

constexpr int SPAN = 256;   // visible slots
constexpr int TILE_QUERIES = 32;
constexpr int CHUNK = 32;   // slots converted to floats at a time

// Keys and values of one layer, [2, rows, heads, slots, dim]; at 8 bits with scales [2, rows, heads, slots].
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
    int first, tokens;    // first token among all new tokens, and number of tokens
    int cached, visible;  // slots in use, and the number of them that are seen
    int attended;         // number of last tokens with attention weights in the output
    float* attention;     // [attended, cached + tokens], added to
    std::vector<std::vector<int32_t>> tails;  // by token, its visible slots from number ``visible``; empty: ``visible``, ``visible`` + 1, ...

    int count(int token) const { return visible + (tails.empty() ? token + 1 : (int)tails[token].size()); }
    int64_t slot(int token, int index) const {
        return index < visible || tails.empty() ? index : tails[token][index - visible];
    }
    bool plain(int until) const { return tails.empty() || until <= visible; }
};

class Attention {
public:
    // Plans the tasks of a pass, the same in every layer.
    Attention(Pool& pool, const std::vector<Row>& rows, int tokens, int heads, int key_heads, int dim);

    // q [tokens, heads, dim], already divided by sqrt(dim); out [tokens, heads, dim].
    void run(const float* q, const KeyValues& kv, float* out);
    // Adds the attention weights of each row's ``attended`` tokens, summed over heads. Call it after ``run`` of this layer.
    void watch(const float* q, const KeyValues& kv);

private:
    struct Task {
        const Row* row;
        int head, first, end;       // key head; tokens of the row, first .. end - 1
        int first_span, end_span;
    };
    struct Scratch {
        std::vector<float> keys, queries, scores, sums, most, total;
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
    int spans_ = 0;       // of the longest row
    bool split_ = false;  // whether every span is a task
    std::vector<Task> tasks_;
    std::vector<float> parts_;   // [tokens, heads, spans] of m, l and a
    std::vector<float> most_, total_;  // [tokens, heads]: M and L, for ``watch``
    std::vector<Scratch> scratch_;
};

}  // namespace sparing
