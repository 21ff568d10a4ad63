#include "attention.h"

#include <algorithm>
#include <limits>

namespace sparing {

namespace {

constexpr float NONE = -std::numeric_limits<float>::infinity();
constexpr int QUERIES = 3;  // times 4 keys, or times 32 dimensions: 12 sums, all in registers
constexpr int FEW = 2 * QUERIES;  // queries that read keys and values as they lie

int spans_of(int count) { return (count + SPAN - 1) / SPAN; }

float exponential_of(float x) { return exponential(all(x))[0]; }

// Keys or values in their stored form, [slots, dim].
struct Vectors {
    const void* data;
    const float* scales;
    int dim;

    template <int STORED>
    static constexpr int size() { return STORED == KV_F32 ? 4 : STORED == KV_F16 ? 2 : 1; }

    // Dimensions d .. d + 7 of a slot, as floats
    template <int STORED>
    INLINE f8 eight(int64_t slot, int d) const {
        const int64_t at = slot * dim + d;
        if constexpr (STORED == KV_F32) return load<f8>((const float*)data + at);
        if constexpr (STORED == KV_F16) return halves((const uint16_t*)data + at);
        return to_float(signed_bytes((const int8_t*)data + at)) * all(scales[slot]);
    }

    template <int STORED>
    INLINE void fetch(int64_t slot) const {
        const char* line = (const char*)data + slot * dim * size<STORED>();
        for (int i = 0; i < dim * size<STORED>(); i += 64) prefetch(line + i);
    }
};

// Dot products of Q queries with four keys
template <int Q, int STORED>
INLINE void score(const float* q, const Vectors& keys, const int64_t* slots, float* out) {
    const int dim = keys.dim;
    f8 y[Q][4];
    for (int i = 0; i < Q; i++)
        for (int j = 0; j < 4; j++) y[i][j] = all(0.0f);
    for (int d = 0; d < dim; d += 8) {
        f8 query[Q];
        for (int i = 0; i < Q; i++) query[i] = kept(load<f8>(q + i * dim + d));
        for (int j = 0; j < 4; j++) {
            const f8 key = kept(keys.eight<STORED>(slots[j], d));
            for (int i = 0; i < Q; i++) y[i][j] = fma(query[i], key, y[i][j]);
        }
    }
    for (int i = 0; i < Q; i++) sum4(y[i], out + i * SPAN);
}

// out[i][j] = q[i] k[first + j] for j = 0 .. count - 1; writes up to three more numbers behind them
template <int STORED>
void score_all(const float* q, int queries, const Vectors& keys, int64_t first, int count, float* out) {
    for (int j = 0; j < count; j += 4) {
        int64_t slots[4];
        for (int n = 0; n < 4; n++) slots[n] = first + std::min(j + n, count - 1);
        for (int i = 0; i < queries; i += QUERIES) {
            const float* of = q + (int64_t)i * keys.dim;
            float* to = out + (int64_t)i * SPAN + j;
            switch (std::min(QUERIES, queries - i)) {
                case 1: score<1, STORED>(of, keys, slots, to); break;
                case 2: score<2, STORED>(of, keys, slots, to); break;
                default: score<3, STORED>(of, keys, slots, to);
            }
        }
    }
}

// sums[i] += p[i][j] v[j] over slots j, for Q queries and the 8 N dimensions from d
template <int Q, int N, int STORED>
INLINE void add_values(const float* p, const Vectors& v, int64_t first, int count, int d, float* sums) {
    const int dim = v.dim;
    f8 y[Q][N];
    for (int i = 0; i < Q; i++)
        for (int n = 0; n < N; n++) y[i][n] = load<f8>(sums + i * dim + d + 8 * n);
    for (int j = 0; j < count; j++) {
        f8 weight[Q];
        for (int i = 0; i < Q; i++) weight[i] = all(p[i * SPAN + j]);
        for (int n = 0; n < N; n++) {
            const f8 value = kept(v.eight<STORED>(first + j, d + 8 * n));
            for (int i = 0; i < Q; i++) y[i][n] = fma(weight[i], value, y[i][n]);
        }
    }
    for (int i = 0; i < Q; i++)
        for (int n = 0; n < N; n++) store(sums + i * dim + d + 8 * n, y[i][n]);
}

template <int Q, int STORED>
void add_values(const float* p, const Vectors& v, int64_t first, int count, float* sums) {
    int d = 0;
    for (; d + 32 <= v.dim; d += 32) add_values<Q, 4, STORED>(p, v, first, count, d, sums);
    for (; d < v.dim; d += 8) add_values<Q, 1, STORED>(p, v, first, count, d, sums);
}

// Query i adds the seen(i) slots from ``first``; seen never falls from one query to the next.
template <int STORED, class Seen>
void add_all(const float* p, int queries, const Vectors& v, int64_t first, const Seen& seen, float* sums) {
    for (int i = 0; i < queries; i += QUERIES, p += QUERIES * SPAN, sums += QUERIES * v.dim) {
        const int together = std::min(QUERIES, queries - i), shared = seen(i);
        switch (together) {
            case 1: add_values<1, STORED>(p, v, first, shared, sums); break;
            case 2: add_values<2, STORED>(p, v, first, shared, sums); break;
            default: add_values<3, STORED>(p, v, first, shared, sums);
        }
        for (int n = 1; n < together; n++)
            if (const int more = seen(i + n) - shared; more > 0)
                add_values<1, STORED>(p + n * SPAN + shared, v, first + shared, more, sums + (int64_t)n * v.dim);
    }
}

template <class Do>
void as_stored(int32_t stored, const Do& what) {
    switch (stored) {
        case KV_F32: return what(std::integral_constant<int, KV_F32>());
        case KV_F16: return what(std::integral_constant<int, KV_F16>());
        default: return what(std::integral_constant<int, KV_Q8>());
    }
}

// Calls ``what(stored, vectors, first)`` for the visible slots begin .. end - 1 of a token, at most CHUNK: where they lie, or
// copied as floats first, for a draft tree and where many queries share the conversion. Fetches the next chunk meanwhile.
template <class Do>
void read_chunk(const KeyValues& kv, int64_t run, const Row& row, int token, int queries, int begin, int end, float* floats, const Do& what) {
    as_stored(kv.stored, [&](auto stored) {
        const int size = Vectors::size<stored>();
        const Vectors from{(const char*)kv.data + run * kv.dim * size, kv.scales ? kv.scales + run : nullptr, kv.dim};
        const bool plain = row.plain(end);
        for (int i = begin; i < end && plain; i++) from.fetch<stored>(i + CHUNK);
        if (plain && (queries <= FEW || stored == KV_F32)) return what(stored, from, begin);
        for (int i = begin; i < end; i++)
            for (int d = 0; d < kv.dim; d += 8) store(floats + (int64_t)(i - begin) * kv.dim + d, from.eight<stored>(row.slot(token, i), d));
        what(std::integral_constant<int, KV_F32>(), Vectors{floats, nullptr, kv.dim}, 0);
    });
}

}  // namespace

void KeyValues::write(int which, int row, int head, int64_t slot, const float* from) const {
    const int64_t at = run(which, row, head) + slot;
    if (stored == KV_F32) {
        std::memcpy((float*)data + at * dim, from, 4 * dim);
    } else if (stored == KV_F16) {
        for (int d = 0; d < dim; d += 8) store_halves((uint16_t*)data + at * dim + d, load<f8>(from + d));
    } else {
        int8_t* to = (int8_t*)data + at * dim;
        scales[at] = to_8_bits(from, dim / 8, [&](int i, i8 eight) { store_signed_bytes(to + 8 * i, eight); });
    }
}

Attention::Attention(Pool& pool, const std::vector<Row>& rows, int tokens, int heads, int key_heads, int dim)
    : pool_(pool), rows_(rows), heads_(heads), key_heads_(key_heads), group_(heads / key_heads), dim_(dim) {
    const int per_tile = std::max(1, TILE_QUERIES / group_);
    int tiles = 0;
    for (const Row& row : rows) {
        tiles += key_heads * ((row.tokens + per_tile - 1) / per_tile);
        spans_ = std::max(spans_, spans_of(row.visible + row.tokens));
    }
    split_ = spans_ > 1 && tiles < 16 * pool.threads();
    for (const Row& row : rows)
        for (int first = 0; first < row.tokens; first += per_tile) {
            const int end = std::min(row.tokens, first + per_tile);
            int spans = 0;
            for (int t = first; t < end; t++) spans = std::max(spans, spans_of(row.count(t)));
            for (int head = 0; head < key_heads; head++) {
                if (!split_) tasks_.push_back({&row, head, first, end, 0, spans});
                for (int s = 0; split_ && s < spans; s++) tasks_.push_back({&row, head, first, end, s, s + 1});
            }
        }
    if (split_) parts_.resize((size_t)tokens * heads * spans_ * (dim + 8));
    most_.resize((size_t)tokens * heads), total_.resize((size_t)tokens * heads);
    const int queries = std::max(per_tile * group_, group_);
    scratch_.resize(pool.threads());
    for (Scratch& s : scratch_) {
        s.keys.resize((size_t)CHUNK * dim), s.scores.resize((size_t)queries * SPAN);
        s.queries.resize((size_t)queries * dim), s.sums.resize((size_t)queries * dim), s.most.resize(queries), s.total.resize(queries);
    }
}

void Attention::run(const float* q, const KeyValues& kv, float* out) {
    pool_.run((int)tasks_.size(), [&](int task, int thread) { spans(tasks_[task], q, kv, out, scratch_[thread]); });
    if (!split_) return;
    for (const Row& row : rows_) {
        const auto all_heads = [&](int token, int) {
            for (int head = 0; head < heads_; head++) combine(row, token, head, out);
        };
        if (row.tokens * spans_ < 32) {
            for (int token = 0; token < row.tokens; token++) all_heads(token, 0);
        } else {
            pool_.run(row.tokens, all_heads);
        }
    }
}

// Merges a span (m, l, a) into the spans before it.
static INLINE void merge(float* most, float* total, float* sums, float m, float l, const float* a, int dim) {
    const float top = m > *most ? m : *most;
    const float before = exponential_of(*most - top), now = exponential_of(m - top);
    *total = *total * before + l * now;
    *most = top;
    for (int d = 0; d < dim; d += 8) store(sums + d, fma(load<f8>(a + d), all(now), load<f8>(sums + d) * all(before)));
}

static INLINE void finish(float* out, float total, int dim) {
    const f8 by = all(total);
    for (int d = 0; d < dim; d += 8) store(out + d, load<f8>(out + d) / by);
}

void Attention::combine(const Row& row, int token, int head, float* out) {
    const int64_t query = (int64_t)(row.first + token) * heads_ + head;
    float* to = out + query * dim_;
    const float* first = part(query, 0);
    float most = first[0], total = first[1];
    std::memcpy(to, first + 8, 4 * dim_);
    for (int s = 1; s < spans_of(row.count(token)); s++) {
        const float* next = part(query, s);
        merge(&most, &total, to, next[0], next[1], next + 8, dim_);
    }
    finish(to, total, dim_);
    most_[query] = most, total_[query] = total;
}

void Attention::spans(const Task& task, const float* q, const KeyValues& kv, float* out, Scratch& s) {
    const Row& row = *task.row;
    for (int n = task.first_span; n < task.end_span; n++) {
        // the tokens of a draft tree see different slots: one at a time in spans that reach them
        const bool together = row.plain((n + 1) * SPAN);
        for (int first = task.first, end; first < task.end; first = end) {
            end = together ? task.end : first + 1;
            float *most = s.most.data(), *total = s.total.data();
            span(row, task.head, first, end, n, q, kv, s, most, total);
            for (int t = first; t < end; t++) {
                if (n >= spans_of(row.count(t))) continue;
                for (int h = 0; h < group_; h++) {
                    const int i = (t - first) * group_ + h;
                    const int64_t query = (int64_t)(row.first + t) * heads_ + task.head * group_ + h;
                    const float* a = s.sums.data() + (size_t)i * dim_;
                    if (split_) {
                        float* to = part(query, n);
                        to[0] = most[i], to[1] = total[i];
                        std::memcpy(to + 8, a, 4 * dim_);
                        continue;
                    }
                    float* to = out + query * dim_;
                    if (n == 0) {
                        most_[query] = most[i], total_[query] = total[i];
                        std::memcpy(to, a, 4 * dim_);
                    } else {
                        merge(&most_[query], &total_[query], to, most[i], total[i], a, dim_);
                    }
                    if (n + 1 == spans_of(row.count(t))) finish(to, total_[query], dim_);
                }
            }
        }
    }
}

// Fills s.scores [queries, SPAN]: tokens first .. end - 1 over the visible slots begin .. until - 1
void Attention::scores(const Row& row, int head, int first, int end, int begin, int until, const float* q, const KeyValues& kv, Scratch& s) {
    const int queries = (end - first) * group_;
    const int64_t run = kv.run(0, row.row, head);
    for (int t = first; t < end; t++) {  // the queries of one key head, side by side
        const float* from = q + ((int64_t)(row.first + t) * heads_ + head * group_) * dim_;
        std::memcpy(s.queries.data() + (size_t)(t - first) * group_ * dim_, from, 4 * (size_t)group_ * dim_);
    }
    for (int chunk = begin; chunk < until; chunk += CHUNK) {
        const int count = std::min(CHUNK, until - chunk);
        float* to = s.scores.data() + chunk - begin;
        read_chunk(kv, run, row, end - 1, queries, chunk, chunk + count, s.keys.data(), [&](auto stored, const Vectors& keys, int from) {
            score_all<stored>(s.queries.data(), queries, keys, from, count, to);
        });
    }
}

void Attention::span(const Row& row, int head, int first, int end, int span, const float* q, const KeyValues& kv, Scratch& s,
                     float* most, float* total) {
    const int begin = span * SPAN, queries = (end - first) * group_;
    const auto seen = [&](int i) { return std::clamp(row.count(first + i / group_) - begin, 0, SPAN); };
    const int until = begin + seen(queries - 1);  // the last token sees the most
    scores(row, head, first, end, begin, until, q, kv, s);
    for (int i = 0; i < queries; i++) {
        float* p = s.scores.data() + (size_t)i * SPAN;
        const int count = seen(i), padded = (count + 7) / 8 * 8;
        for (int j = count; j < padded; j++) p[j] = NONE;
        f8 tops = all(NONE);
        for (int j = 0; j < padded; j += 8) tops = max(load<f8>(p + j), tops);
        float top = tops[0];
        for (int j = 1; j < 8; j++) top = tops[j] > top ? tops[j] : top;
        f8 sums = all(0.0f);
        for (int j = 0; j < padded; j += 8) {
            const f8 e = exponential(load<f8>(p + j) - all(top));
            store(p + j, e);
            sums += e;
        }
        most[i] = top, total[i] = sum(sums);
        std::memset(s.sums.data() + (size_t)i * dim_, 0, 4 * dim_);
    }
    const int64_t run = kv.run(1, row.row, head);
    for (int chunk = begin; chunk < until; chunk += CHUNK) {
        const int count = std::min(CHUNK, until - chunk);
        const auto here = [&](int i) { return std::clamp(seen(i) - (chunk - begin), 0, count); };
        const float* p = s.scores.data() + chunk - begin;
        read_chunk(kv, run, row, end - 1, queries, chunk, chunk + count, s.keys.data(), [&](auto stored, const Vectors& values, int from) {
            add_all<stored>(p, queries, values, from, here, s.sums.data());
        });
    }
}

void Attention::watch(const float* q, const KeyValues& kv) {
    struct Watched {
        const Row* row;
        int token, span;
    };
    std::vector<Watched> tasks;
    for (const Row& row : rows_)
        for (int t = row.tokens - row.attended; t < row.tokens; t++)
            for (int n = 0; n < spans_of(row.count(t)); n++) tasks.push_back({&row, t, n});
    pool_.run((int)tasks.size(), [&](int task, int thread) {
        const auto [of, token, n] = tasks[task];
        const Row& row = *of;
        Scratch& s = scratch_[thread];
        const int begin = n * SPAN, until = std::min(row.count(token), begin + SPAN);
        float* to = row.attention + (int64_t)(token - (row.tokens - row.attended)) * (row.cached + row.tokens);
        for (int head = 0; head < key_heads_; head++) {
            scores(row, head, token, token + 1, begin, until, q, kv, s);
            for (int h = 0; h < group_; h++) {
                const int64_t query = (int64_t)(row.first + token) * heads_ + head * group_ + h;
                const float* p = s.scores.data() + (size_t)h * SPAN;
                for (int i = begin; i < until; i++)
                    to[row.slot(token, i)] += exponential_of(p[i - begin] - most_[query]) / total_[query];
            }
        }
    });
}

}  // namespace sparing
