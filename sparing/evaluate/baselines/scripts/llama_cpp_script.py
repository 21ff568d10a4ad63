"""llama.cpp, by the C functions of llama-cpp-python.

Each open context has a name. ``settings`` are what its users choose: ``flash`` for flash attention,
``unified`` for one buffer of keys and values for all sequences.
"""

import time
from importlib import import_module

import numpy as np

C = import_module("llama_cpp")
ERROR = 4  # ggml's level of a logged error
BATCH = 2048  # tokens a call, its default
SCORED_AT_ONCE = 64  # rows of logits, for the memory of their float64 copy


class Baseline:
    """A loaded model and its open contexts."""

    def __init__(self):
        self.said = []
        self.listener = C.llama_log_callback(self.listen)
        C.llama_log_set(self.listener, None)
        C.llama_backend_init()
        self.contexts = {}

    def listen(self, level, text, _):
        """Keep what llama.cpp says of an error."""
        if level == ERROR:
            self.said.append(text.decode(errors="replace").strip())

    def load(self, model, threads):
        """Read a GGUF; every context runs on as many threads."""
        self.threads, self.said = threads, []
        self.model = C.llama_model_load_from_file(model.encode(), C.llama_model_default_params())
        if not self.model:
            raise ValueError(self.said[0] if self.said else "the file cannot be read")
        self.vocabulary = C.llama_vocab_n_tokens(C.llama_model_get_vocab(self.model))
        return {"version": C.__version__, "system": C.llama_print_system_info().decode()}

    def fill(self, name, ids, slots, settings):
        """Seconds that prompts take, a list of ids a sequence, up to each one's next token."""
        if name not in self.contexts:
            self.contexts[name] = Context(self, slots, len(ids), settings)
        return self.contexts[name].fill(ids)

    def steps(self, name, count):
        """Seconds of each greedy step of one token a sequence; the contexts grow."""
        return [self.contexts[name].step() for _ in range(count)]

    def passes(self, name, tokens, count):
        """Seconds of each pass over new tokens, all scored, and each rolled back."""
        return [self.contexts[name].verify(tokens) for _ in range(count)]

    def drop(self, name):
        """Free a context."""
        self.contexts.pop(name).close()

    def generate(self, ids, new_tokens, ends, sampler, settings):
        """New ids, and seconds from the beginning to each of them."""
        context = Context(self, len(ids) + new_tokens, 1, settings, sampler)
        found, times = [], []
        begun = time.perf_counter()
        context.fill([ids])
        while True:
            found += context.pending
            times.append(time.perf_counter() - begun)
            if len(found) == new_tokens or found[-1] in ends:
                context.close()
                return {"ids": found, "times": times}
            context.step()

    def nll(self, ids):
        """Negative log likelihood of all but the first of some ids, in sum."""
        context = Context(self, len(ids), 1, {})
        context.decode([(token, at, 0, True) for at, token in enumerate(ids)])
        logits = np.ctypeslib.as_array(
            C.llama_get_logits(context.pointer), shape=(len(ids), self.vocabulary)
        )
        total = 0.0
        for begin in range(0, len(ids) - 1, SCORED_AT_ONCE):
            end = min(begin + SCORED_AT_ONCE, len(ids) - 1)
            some = logits[begin:end].astype(np.float64)
            some -= some.max(axis=1, keepdims=True)
            of_next = some[np.arange(end - begin), ids[begin + 1 : end + 1]]
            total += float(np.sum(np.log(np.exp(some).sum(axis=1)) - of_next))
        context.close()
        return total


class Context:
    """Sequences side by side, and the token that each of them says next."""

    def __init__(self, baseline, slots, sequences, settings, sampler=None):
        options = C.llama_context_default_params()
        options.n_ctx, options.n_batch = slots * sequences, BATCH
        options.n_seq_max = sequences
        options.n_threads = options.n_threads_batch = baseline.threads
        options.type_k = options.type_v = C.GGML_TYPE_F16
        options.flash_attn_type = int(settings.get("flash", False))
        options.kv_unified = settings.get("unified", False)
        self.pointer = C.llama_init_from_model(baseline.model, options)
        if not self.pointer:
            raise ValueError("; ".join(baseline.said) or f"no context for {settings}")
        self.memory = C.llama_get_memory(self.pointer)
        self.batch = C.llama_batch_init(BATCH, 0, 1)
        self.sampler = chain(sampler, baseline.vocabulary)
        self.lengths, self.pending = [], []

    def close(self):
        C.llama_sampler_free(self.sampler)
        C.llama_batch_free(self.batch)
        C.llama_free(self.pointer)

    def decode(self, tokens):
        """One call over tokens, each an id, a position, a sequence and whether it is scored."""
        self.batch.n_tokens = len(tokens)
        for at, (token, position, sequence, scored) in enumerate(tokens):
            self.batch.token[at] = token
            self.batch.pos[at] = position
            self.batch.n_seq_id[at] = 1
            self.batch.seq_id[at][0] = sequence
            self.batch.logits[at] = scored
        if code := C.llama_decode(self.pointer, self.batch):
            raise RuntimeError(f"llama_decode gave {code}")
        C.llama_synchronize(self.pointer)

    def fill(self, ids):
        C.llama_memory_clear(self.memory, True)
        C.llama_sampler_reset(self.sampler)
        begun = time.perf_counter()
        self.pending = []
        for sequence, row in enumerate(ids):
            last = len(row) - 1
            tokens = [(token, at, sequence, at == last) for at, token in enumerate(row)]
            for begin in range(0, len(row), BATCH):
                self.decode(tokens[begin : begin + BATCH])
            for token in row:
                C.llama_sampler_accept(self.sampler, token)
            self.pending.append(C.llama_sampler_sample(self.sampler, self.pointer, -1))
        self.lengths = [len(row) for row in ids]
        return time.perf_counter() - begun

    def step(self):
        begun = time.perf_counter()
        places = enumerate(zip(self.pending, self.lengths))  # noqa: B905
        self.decode([(token, length, sequence, True) for sequence, (token, length) in places])
        self.pending = [
            C.llama_sampler_sample(self.sampler, self.pointer, at)
            for at in range(len(self.lengths))
        ]
        self.lengths = [length + 1 for length in self.lengths]
        return time.perf_counter() - begun

    def verify(self, tokens):
        begun = time.perf_counter()
        length = self.lengths[0]
        self.decode([(token, length + at, 0, True) for at, token in enumerate(tokens)])
        seconds = time.perf_counter() - begun
        C.llama_memory_seq_rm(self.memory, 0, length, -1)
        return seconds


def chain(sampler, vocabulary):
    """Greedy without a sampler or at temperature 0; else penalty, temperature, filters, a draw."""
    found = C.llama_sampler_chain_init(C.llama_sampler_chain_default_params())
    sampler = sampler or {"temperature": 0}
    penalty = sampler.get("repetition_penalty", 1.0)
    parts = []
    if penalty != 1:
        parts.append(C.llama_sampler_init_penalties(vocabulary, 1 << 20, penalty, 0.0, 0.0))
    if sampler["temperature"] == 0:
        parts.append(C.llama_sampler_init_greedy())
    else:
        parts.append(C.llama_sampler_init_temp(sampler["temperature"]))
        if sampler.get("top_k"):
            parts.append(C.llama_sampler_init_top_k(sampler["top_k"]))
        if sampler.get("top_p", 1.0) < 1:
            parts.append(C.llama_sampler_init_top_p(sampler["top_p"], 1))
        if sampler.get("min_p"):
            parts.append(C.llama_sampler_init_min_p(sampler["min_p"], 1))
        parts.append(C.llama_sampler_init_dist(sampler["seed"] % (1 << 32)))
    for part in parts:
        C.llama_sampler_chain_add(found, part)
    return found
