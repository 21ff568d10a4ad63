"""Exact 1: without a budget, greedy tokens equal those of transformers, whatever is drafted,
however rows share a batch, and whenever they come and go."""

from typing import Any

import pytest
import torch

from sparing.api import load
from sparing.depth.lookup import PromptLookup
from sparing.engine.drafter import NoDrafter
from sparing.engine.result import Result
from tests.engine.drafters import Branching, all_drafters
from tests.engine.driving import greedy, run
from tests.tiny import assert_same_tokens, engine, next_logits, reference, reference_tokens, tiny

COUNT = 28
PROMPTS = [list(b"Q"), list(b"count to 7"), list(b"the cat sat on the mat and the cat sat on " * 2)]
PROMPTS.append(list(range(3, 40)))


def rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0} | more}


LLAMA3 = rope(
    "llama3", low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
)
YARN = rope("yarn", original_max_position_embeddings=32)
LINEAR = rope("linear")
# family, query heads, key-value heads, head dim, tied, the rest
MODELS = [
    ("llama", 4, 4, 10, False, {}),
    ("llama", 6, 2, 8, True, LLAMA3),
    ("llama", 9, 1, 6, False, YARN | {"attention_bias": True, "mlp_bias": True}),
    ("mistral", 6, 2, 24, True, LINEAR),
    ("mistral", 9, 1, 8, False, {}),
    ("qwen2", 9, 1, 6, True, YARN),
    ("qwen2", 6, 6, 8, False, LINEAR),
    ("qwen3", 6, 2, 10, True, LLAMA3),
    ("qwen3", 9, 3, 6, False, {"attention_bias": True}),
    ("qwen3", 5, 5, 14, True, YARN),
]


def model(number: int) -> Any:
    family, heads, kv_heads, head_dim, tied, more = MODELS[number]
    width = {"head_dim": head_dim, "hidden_size": 36 if family != "qwen2" else heads * head_dim}
    heads_of = {"num_attention_heads": heads, "num_key_value_heads": kv_heads}
    more = more | {"num_hidden_layers": 2, "tie_word_embeddings": tied}
    return tiny(family, seed=number, **width, **heads_of, **more)


def expected(path: Any, dtype: str) -> list[list[int]]:
    return [reference_tokens(reference(path, dtype), prompt, COUNT) for prompt in PROMPTS]


def assert_as_reference(results: list[Result], path: Any, dtype: str, outputs: Any) -> None:
    for prompt, result, output in zip(PROMPTS, results, outputs, strict=True):
        assert result.finish_reason == "length"
        logits = next_logits(reference(path, dtype), prompt)
        assert_same_tokens(result.token_ids, output, logits)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "number", range(len(MODELS)), ids=lambda n: "-".join(map(str, MODELS[n][:5]))
)
def test_any_model_any_drafter(number, dtype):
    path = model(number)
    outputs = expected(path, dtype)
    assert len({token for output in outputs for token in output}) > 20, "they must say something"
    texts = [prompt + output for prompt, output in zip(PROMPTS, outputs, strict=True)]
    drafters = {"off": NoDrafter(), "lookup": PromptLookup()} | all_drafters(texts)
    names = drafters if dtype == "float64" else ("lookup", "tree")
    for turn, name in enumerate(names):
        results = run(
            engine(path, dtype),
            PROMPTS,
            greedy(COUNT),
            batch_size=1 + turn % 4,
            drafter=drafters[name],
            chunk=(256, 1, 7, 16)[(turn + number) % 4],
        )
        assert_as_reference(results, path, dtype, outputs)


def test_the_drafts_of_these_tests_do_what_they_say():
    path = model(0)
    outputs = expected(path, "float64")
    drafters = all_drafters([p + o for p, o in zip(PROMPTS, outputs, strict=True)])
    shares = {}
    for name, drafter in drafters.items():
        results = run(engine(path), PROMPTS, greedy(COUNT), drafter=drafter)
        drafted = sum(r.stats.drafted for r in results)
        shares[name] = sum(r.stats.accepted for r in results) / drafted
        assert sum(d for d, _ in drafter.learned) == drafted
    assert shares["right"] == 1.0
    assert shares["wrong"] == 0.0
    assert 0.05 < shares["half"] < 0.95
    assert 0.05 < shares["tree"] < 0.95


def test_the_compiled_pass():
    path = model(1)
    outputs = expected(path, "float32")
    loaded = load(str(path), dtype="float32")
    results = run(loaded, PROMPTS, greedy(COUNT), drafter=PromptLookup(), chunk=5)
    assert_as_reference(results, path, "float32", outputs)


@pytest.mark.parametrize("number", [2, 4, 8])
def test_queries_dealt_out_to_threads(number):
    """Key heads that the threads do not divide: a lone row's queries are dealt out to them."""
    path, threads = model(number), torch.get_num_threads()
    outputs = expected(path, "float32")
    texts = [prompt + output for prompt, output in zip(PROMPTS, outputs, strict=True)]
    torch.set_num_threads(2)
    try:
        drafter = Branching(texts, 0.9)
        results = run(
            engine(path, "float32"), PROMPTS, greedy(COUNT), batch_size=1, drafter=drafter
        )
    finally:
        torch.set_num_threads(threads)
    assert_as_reference(results, path, "float32", outputs)


@pytest.mark.parametrize("number", [1, 8])
def test_repetition_penalty(number):
    path = model(number)
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        found = reference(path).generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=COUNT,
            repetition_penalty=1.7,
        )
        [result] = run(engine(path), [prompt], greedy(COUNT, repetition_penalty=1.7))
        assert result.token_ids == found[0, len(prompt) :].tolist()


def test_reference_decoder_in_the_loop():
    path = model(7)
    outputs = expected(path, "float64")
    loaded = load(str(path), dtype="float64", decoder="hub")
    texts = [prompt + output for prompt, output in zip(PROMPTS, outputs, strict=True)]
    for drafter in all_drafters(texts).values():
        results = run(loaded, PROMPTS, greedy(COUNT), drafter=drafter, chunk=9)
        assert_as_reference(results, path, "float64", outputs)
