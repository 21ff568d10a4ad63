#include "pass.h"

#include <algorithm>

#include "top.h"

namespace sparing {

namespace {

// x / sqrt(mean x^2 + eps) * weight (RMSNorm, arXiv 1910.07467, eq. 4)
void rms_norm(const float* x, const float* weight, int width, float eps, float* out) {
    f8 squares[4] = {all(0.0f), all(0.0f), all(0.0f), all(0.0f)};
    int i = 0;
    for (; i + 32 <= width; i += 32)
        for (int j = 0; j < 4; j++) {
            const f8 v = load<f8>(x + i + 8 * j);
            squares[j] = fma(v, v, squares[j]);
        }
    float total = sum((squares[0] + squares[2]) + (squares[1] + squares[3]));
    for (; i < width; i++) total += x[i] * x[i];
    const float by = 1.0f / std::sqrt(total / (float)width + eps);
    for (i = 0; i + 8 <= width; i += 8) store(out + i, load<f8>(x + i) * all(by) * load<f8>(weight + i));
    for (; i < width; i++) out[i] = x[i] * by * weight[i];
}

// out = silu(gate) * up,  silu(g) = g / (1 + e^-g)
void gated(const float* gate, const float* up, int width, float* out) {
    int i = 0;
    const auto eight = [](f8 g, f8 u) { return g / (all(1.0f) + exponential(-g)) * u; };
    for (; i + 8 <= width; i += 8) store(out + i, eight(load<f8>(gate + i), load<f8>(up + i)));
    for (; i < width; i++) out[i] = eight(all(gate[i]), all(up[i]))[0];
}

// Rotates the halves of a head's vector (RoPE, arXiv 2104.09864) and multiplies it by ``scale``
void rotate(float* x, const float* cos, const float* sin, int dim, float scale) {
    const int half = dim / 2;
    int i = 0;
    for (; i + 8 <= half; i += 8) {
        const f8 a = load<f8>(x + i), b = load<f8>(x + half + i), c = load<f8>(cos + i), s = load<f8>(sin + i);
        store(x + i, (a * c - b * s) * all(scale));
        store(x + half + i, (b * c + a * s) * all(scale));
    }
    for (; i < half; i++) {
        const float a = x[i], b = x[half + i];
        x[i] = (a * cos[i] - b * sin[i]) * scale;
        x[half + i] = (b * cos[i] + a * sin[i]) * scale;
    }
}

template <class Work>
void each_token(Pool& pool, int tokens, const Work& work) {
    constexpr int TOGETHER = 8;  // a tile: its tokens' quantized blocks share cache lines
    const int tasks = (tokens + TOGETHER - 1) / TOGETHER;
    pool.run(tasks, [&](int task, int) {
        for (int t = task * TOGETHER; t < std::min(tokens, (task + 1) * TOGETHER); t++) work(t);
    });
}

std::vector<Row> rows_of(const Batch& batch) {
    std::vector<Row> rows(batch.rows);
    int first = 0;
    for (int r = 0; r < batch.rows; r++) {
        Row& row = rows[r];
        row.row = batch.row[r], row.first = first, row.tokens = batch.count[r];
        row.cached = batch.cached[r], row.visible = batch.visible[r], row.attended = batch.attended[r];
        row.attention = batch.attention ? batch.attention[r] : nullptr;
        first += row.tokens;
        const uint8_t* sees = batch.ancestors ? batch.ancestors[r] : nullptr;
        if (!sees && row.visible == row.cached) continue;
        row.tails.resize(row.tokens);
        for (int t = 0; t < row.tokens; t++)
            for (int s = 0; s <= t; s++)
                if (!sees || sees[t * row.tokens + s]) row.tails[t].push_back(row.cached + s);
    }
    return rows;
}

class Pass {
public:
    Pass(Context& context, const Model& model, const Batch& batch)
        : c_(context), m_(model), tokens_(batch.tokens), rows_(rows_of(batch)),
          attention_(context.pool, rows_, batch.tokens, model.heads, model.key_heads, model.dim) {
        const size_t n = tokens_, queries = (size_t)m_.heads * m_.dim, keys = (size_t)m_.key_heads * m_.dim;
        const int widest = std::max({m_.width, m_.mlp_width, (int)queries});
        grow(c_.x, n * m_.width), grow(c_.h, n * widest);
        grow(c_.q, n * queries), grow(c_.k, n * keys), grow(c_.v, n * keys), grow(c_.attended, n * queries);
        grow(c_.gate, n * m_.mlp_width), grow(c_.up, n * m_.mlp_width);
        grow(c_.cos, n * m_.dim / 2), grow(c_.sin, n * m_.dim / 2);
        if (const size_t bytes = n * Activations::bytes((widest + BLOCK - 1) / BLOCK * BLOCK); c_.quantized.size() < bytes) c_.quantized.resize(bytes);
        watched_ = std::any_of(rows_.begin(), rows_.end(), [](const Row& row) { return row.attended > 0; });
    }

    void inputs(const Batch& batch) {
        each_token(c_.pool, tokens_, [&](int t) {
            float *cos = c_.cos.data() + (size_t)t * m_.dim / 2, *sin = c_.sin.data() + (size_t)t * m_.dim / 2;
            for (int i = 0; i < m_.dim / 2; i++) {
                const double angle = (float)batch.positions[t] * m_.frequencies[i];
                cos[i] = (float)std::cos(angle) * m_.rope_scale, sin[i] = (float)std::sin(angle) * m_.rope_scale;
            }
            row(m_.embedding, batch.ids[t], c_.x.data() + (size_t)t * m_.width);
        });
        for (int i = 0; i < batch.vectors; i++)
            std::memcpy(c_.x.data() + (size_t)batch.vector_tokens[i] * m_.width, batch.vector_values + (size_t)i * m_.width, 4 * m_.width);
    }

    void attend(const Layer& layer, const KeyValues& kv) {
        const int queries = m_.heads * m_.dim, keys = m_.key_heads * m_.dim;
        const Product project[] = {
            {&layer.query, c_.q.data(), queries, false}, {&layer.key, c_.k.data(), keys, false}, {&layer.value, c_.v.data(), keys, false}};
        normed(layer.attention_norm, project, 3);
        each_token(c_.pool, tokens_, [&](int t) { heads(layer, t); });
        for (const Row& row : rows_) {
            for (int t = 0; t < row.tokens; t++)
                for (int head = 0; head < m_.key_heads; head++) {
                    const size_t at = ((size_t)(row.first + t) * m_.key_heads + head) * m_.dim;
                    kv.write(0, row.row, head, row.cached + t, c_.k.data() + at);
                    kv.write(1, row.row, head, row.cached + t, c_.v.data() + at);
                }
        }
        attention_.run(c_.q.data(), kv, c_.attended.data());
        if (watched_) attention_.watch(c_.q.data(), kv);
        const Product back{&layer.output, c_.x.data(), m_.width, true};
        products(c_.attended.data(), tokens_, queries, [](int) {}, &back, 1);
    }

    void mlp(const Layer& layer) {
        const Product project[] = {{&layer.gate, c_.gate.data(), m_.mlp_width, false}, {&layer.up, c_.up.data(), m_.mlp_width, false}};
        normed(layer.mlp_norm, project, 2);
        const Product back{&layer.down, c_.x.data(), m_.width, true};
        const auto silu = [&](int t) {
            const size_t at = (size_t)t * m_.mlp_width;
            gated(c_.gate.data() + at, c_.up.data() + at, m_.mlp_width, c_.gate.data() + at);
        };
        products(c_.gate.data(), tokens_, m_.mlp_width, silu, &back, 1);
    }

    void logits(const Batch& batch, const Matrix& head, const Output& output) {
        each_token(c_.pool, tokens_, [&](int t) {
            const size_t at = (size_t)t * m_.width;
            rms_norm(c_.x.data() + at, m_.norm, m_.width, m_.norm_eps, output.hidden + at);
        });
        if (!batch.scored) return;
        const Product product{&head, output.logits, head.rows, false};
        const auto pick = [&](int i) {
            std::memcpy(c_.h.data() + (size_t)i * m_.width, output.hidden + (size_t)batch.scored_tokens[i] * m_.width, 4 * m_.width);
        };
        products(c_.h.data(), batch.scored, m_.width, pick, &product, 1);
        top(c_.pool, output.logits, batch.scored, head.rows, output.argmax, output.confidence);
    }

    const std::vector<Row>& rows() const { return rows_; }

private:
    static void grow(std::vector<float>& buffer, size_t size) {
        if (buffer.size() < size) buffer.resize(size);
    }

    // Prepares and quantizes the input of each token, then multiplies all.
    template <class Prepare>
    void products(const float* x, int tokens, int columns, const Prepare& prepare, const Product* products, int count) {
        const Activations in(x, tokens, columns, c_.quantized.data(), products, count);
        each_token(c_.pool, tokens, [&](int t) {
            prepare(t);
            in.quantize(t);
        });
        multiply(c_.pool, in, products, count);
    }

    void normed(const float* weight, const Product* of, int count) {
        const auto norm = [&](int t) {
            const size_t at = (size_t)t * m_.width;
            rms_norm(c_.x.data() + at, weight, m_.width, m_.norm_eps, c_.h.data() + at);
        };
        products(c_.h.data(), tokens_, m_.width, norm, of, count);
    }

    // Norms and rotates a token's queries and keys, and divides the queries by sqrt(dim).
    void heads(const Layer& layer, int t) {
        const float *cos = c_.cos.data() + (size_t)t * m_.dim / 2, *sin = c_.sin.data() + (size_t)t * m_.dim / 2;
        const auto turn = [&](float* x, const float* norm, float scale) {
            if (norm) rms_norm(x, norm, m_.dim, m_.norm_eps, x);
            rotate(x, cos, sin, m_.dim, scale);
        };
        const float scale = 1.0f / std::sqrt((float)m_.dim);
        for (int head = 0; head < m_.heads; head++) turn(c_.q.data() + ((size_t)t * m_.heads + head) * m_.dim, layer.query_norm, scale);
        for (int head = 0; head < m_.key_heads; head++) turn(c_.k.data() + ((size_t)t * m_.key_heads + head) * m_.dim, layer.key_norm, 1.0f);
    }

    Context& c_;
    const Model& m_;
    const int tokens_;
    const std::vector<Row> rows_;
    Attention attention_;
    bool watched_ = false;
};

}  // namespace

void run(Context& context, const Model& model, const Batch& batch, const Cache& cache, const Matrix& head, const Output& output) {
    std::lock_guard<std::mutex> lock(context.busy);
    Pass pass(context, model, batch);
    pass.inputs(batch);
    const size_t bytes = (size_t)batch.tokens * model.width * 4;
    int attending = 0;
    for (int i = 0; i < model.layers; i++) {
        if (i == batch.wanted_layer) std::memcpy(output.layer_hidden, context.x.data(), bytes);
        if (!batch.runs_attention || batch.runs_attention[i]) {
            pass.attend(model.layer[i], {cache.stored, cache.rows, model.key_heads, model.dim, cache.slots, cache.layer[i],
                                         cache.scales ? cache.scales[i] : nullptr});
            attending++;
        }
        if (!batch.runs_mlp || batch.runs_mlp[i]) pass.mlp(model.layer[i]);
    }
    pass.logits(batch, head, output);
    for (const Row& row : pass.rows()) {  // sums become means over layers and heads
        const int64_t size = (int64_t)row.attended * (row.cached + row.tokens);
        for (int64_t i = 0; i < size && attending; i++) row.attention[i] /= (float)(attending * model.heads);
    }
}

}  // namespace sparing
