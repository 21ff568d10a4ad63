#include "attention.h"

#include <algorithm>
#include <limits>

namespace sparing {

namespace {

constexpr float NONE = -std::numeric_limits<float>::infinity();
constexpr int AHEAD = 4096;  // bytes that are fetched ahead
constexpr int QUERIES = 2;  // times 4 keys, or times 32 dimensions: 8 sums, all in registers

int spans_of(int count) { return (count + SPAN - 1) / SPAN; }

float exponential_of(float x) { return exponential(all(x))[0]; }

// Q queries times four keys
template <int Q>
INLINE void score(const float* q, const float* const* k, int dim, float* out) {
    f8 y[Q][4];
    for (int i = 0; i < Q; i++)
        for (int j = 0; j < 4; j++) y[i][j] = all(0.0f);
    for (int d = 0; d < dim; d += 8) {
        f8 query[Q];
        for (int i = 0; i < Q; i++) query[i] = kept(load<f8>(q + i * dim + d));
        for (int j = 0; j < 4; j++) {
            const f8 key = kept(load<f8>(k[j] + d));
            for (int i = 0; i < Q; i++) y[i][j] = fma(query[i], key, y[i][j]);
        }
    }
    for (int i = 0; i < Q; i++) sum4(y[i], out + i * SPAN);
}

// sums[i] += p[i][j] v[j] over slots j, for Q queries and 8 N dimensions
template <int Q, int N>
INLINE void add_values(const float* p, const float* v, int dim, int slots, float* sums) {
    f8 y[Q][N];
    for (int i = 0; i < Q; i++)
        for (int n = 0; n < N; n++) y[i][n] = load<f8>(sums + i * dim + 8 * n);
    for (int j = 0; j < slots; j++) {
        f8 weight[Q];
        for (int i = 0; i < Q; i++) weight[i] = all(p[i * SPAN + j]);
        for (int n = 0; n < N; n++) {
            const f8 value = kept(load<f8>(v + (int64_t)j * dim + 8 * n));
            for (int i = 0; i < Q; i++) y[i][n] = fma(weight[i], value, y[i][n]);
        }
    }
    for (int i = 0; i < Q; i++)
        for (int n = 0; n < N; n++) store(sums + i * dim + 8 * n, y[i][n]);
}

template <int Q>
void add_values(const float* p, const float* v, int dim, int slots, float* sums) {
    int d = 0;
    for (; d + 32 <= dim; d += 32) add_values<Q, 4>(p, v + d, dim, slots, sums + d);
    for (; d < dim; d += 8) add_values<Q, 1>(p, v + d, dim, slots, sums + d);
}

template <int STORED>
INLINE void to_floats(const KeyValues& kv, int64_t at, float* to) {
    const int dim = kv.dim;
    if constexpr (STORED == KV_F32) {
        std::memcpy(to, (const float*)kv.data + at * dim, 4 * dim);
    } else if constexpr (STORED == KV_F16) {
        const uint16_t* from = (const uint16_t*)kv.data + at * dim;
        for (int d = 0; d < dim; d += 8) store(to + d, halves(from + d));
    } else {
        const int8_t* from = (const int8_t*)kv.data + at * dim;
        const f8 scale = all(kv.scales[at]);
        for (int d = 0; d < dim; d += 8) store(to + d, to_float(signed_bytes(from + d)) * scale);
    }
}

template <int STORED>
void gather(const KeyValues& kv, int64_t run, const Row& row, int token, int begin, int end, float* to) {
    if (!row.plain(end)) {
        for (int i = begin; i < end; i++, to += kv.dim) to_floats<STORED>(kv, run + row.slot(token, i), to);
        return;
    }
    const int size = kv.dim * (STORED == KV_F32 ? 4 : STORED == KV_F16 ? 2 : 1);
    const char* ahead = (const char*)kv.data + (run + begin) * size + AHEAD;
    for (int i = begin; i < end; i++, to += kv.dim, ahead += size) {
        for (int line = 0; line < size; line += 64) prefetch(ahead + line);
        to_floats<STORED>(kv, run + i, to);
    }
}

void gather(const KeyValues& kv, int64_t run, const Row& row, int token, int begin, int end, float* to) {
    switch (kv.stored) {
        case KV_F32: return gather<KV_F32>(kv, run, row, token, begin, end, to);
        case KV_F16: return gather<KV_F16>(kv, run, row, token, begin, end, to);
        default: return gather<KV_Q8>(kv, run, row, token, begin, end, to);
    }
}

}  // namespace

void KeyValues::write(int which, int row, int head, int64_t slot, const float* from) const {
    const int64_t at = run(which, row, head) + slot;
    if (stored == KV_F32) {
        std::memcpy((float*)data + at * dim, from, 4 * dim);
    } else if (stored == KV_F16) {
        for (int d = 0; d < dim; d += 8) store_halves((uint16_t*)data + at * dim + d, load<f8>(from + d));
    } else {
        i8 most = all(0);
        for (int d = 0; d < dim; d += 8) {
            const i8 magnitude = (i8)absolute(load<f8>(from + d));
            most = most > magnitude ? most : magnitude;
        }
        const float top = largest((f8)most), inverse = 127.0f / top;
        const f8 by = all(inverse <= 3.0e38f ? inverse : 0.0f);
        scales[at] = top * (1.0f / 127.0f);
        for (int d = 0; d < dim; d += 8)
            store_signed_bytes((int8_t*)data + at * dim + d, to_int(load<f8>(from + d) * by));
    }
}

void KeyValues::read(int which, int row, int head, int64_t slot, float* to) const {
    const int64_t at = run(which, row, head) + slot;
    switch (stored) {
        case KV_F32: return to_floats<KV_F32>(*this, at, to);
        case KV_F16: return to_floats<KV_F16>(*this, at, to);
        default: return to_floats<KV_Q8>(*this, at, to);
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
    for (Scratch& s : scratch_) s.keys.resize((size_t)CHUNK * dim), s.queries.resize((size_t)queries * dim), s.scores.resize((size_t)queries * SPAN), s.sums.resize((size_t)queries * dim);
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

// Adds a span to what came before it.
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
        // tokens that see other slots than their neighbours are alone where it shows
        const bool together = row.plain((n + 1) * SPAN);
        for (int first = task.first, end; first < task.end; first = end) {
            end = together ? task.end : first + 1;
            float most[TILE_QUERIES * 4], total[TILE_QUERIES * 4];
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

// s.scores [queries, SPAN] of tokens first .. end - 1 over the visible slots begin .. until - 1
void Attention::scores(const Row& row, int head, int first, int end, int begin, int until, const float* q, const KeyValues& kv, Scratch& s) {
    const int queries = (end - first) * group_;
    const int64_t run = kv.run(0, row.row, head);
    for (int t = first; t < end; t++) {  // side by side, as they share their keys
        const float* from = q + ((int64_t)(row.first + t) * heads_ + head * group_) * dim_;
        std::memcpy(s.queries.data() + (size_t)(t - first) * group_ * dim_, from, 4 * (size_t)group_ * dim_);
    }
    for (int chunk = begin; chunk < until; chunk += CHUNK) {
        const int count = std::min(CHUNK, until - chunk);
        gather(kv, run, row, end - 1, chunk, chunk + count, s.keys.data());
        for (int j = 0; j < count; j += 4) {
            const float* k[4];
            for (int n = 0; n < 4; n++) k[n] = s.keys.data() + (size_t)std::min(j + n, count - 1) * dim_;
            for (int i = 0; i < queries; i += QUERIES) {
                const float* of = s.queries.data() + (size_t)i * dim_;
                float* to = s.scores.data() + (size_t)i * SPAN + chunk - begin + j;
                if (i + 1 < queries) {
                    score<2>(of, k, dim_, to);
                } else {
                    score<1>(of, k, dim_, to);
                }
            }
        }
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
        gather(kv, run, row, end - 1, chunk, chunk + count, s.keys.data());
        const auto here = [&](int i) { return std::clamp(seen(i) - (chunk - begin), 0, count); };
        for (int i = 0; i < queries; i += QUERIES) {
            const int together = std::min(QUERIES, queries - i);
            const float* p = s.scores.data() + (size_t)i * SPAN + chunk - begin;
            float* to = s.sums.data() + (size_t)i * dim_;
            const int shared = here(i);  // later queries see as much or more
            if (together == 2) add_values<2>(p, s.keys.data(), dim_, shared, to);
            if (together == 1) add_values<1>(p, s.keys.data(), dim_, shared, to);
            for (int n = 1; n < together; n++)
                if (here(i + n) > shared)
                    add_values<1>(p + n * SPAN + shared, s.keys.data() + (size_t)shared * dim_, dim_, here(i + n) - shared, to + (size_t)n * dim_);
        }
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
