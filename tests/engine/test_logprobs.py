"""Logprobs of a whole answer: those of transformers, drafted or not, in a batch or not."""

import pytest
import torch

from sparing.engine.events import TokenEvent
from sparing.options import Depth, Memory, Sampling
from tests.tiny import engine, reference, tiny

PROMPT = list(range(20))


def told(result):
    return [event.logprobs for event in result.events if isinstance(event, TokenEvent)]


@pytest.mark.parametrize("draft", ["off", "lookup", "layers"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_each_tokens_logprobs_are_those_of_the_full_model(draft, temperature):
    path = tiny("llama")
    sampling = Sampling(
        temperature=temperature, seed=1, max_new_tokens=30, ignore_eos=True, logprobs=3
    )
    [found, _] = engine(path).generate([PROMPT, [1, 2]], None, Depth(draft=draft), None, sampling)
    ids = torch.tensor([PROMPT + found.token_ids])
    with torch.inference_mode():
        expected = reference(path)(ids).logits[0, len(PROMPT) - 1 : -1].log_softmax(-1)
    assert len(told(found)) == 30
    for logprobs, token, row in zip(told(found), found.token_ids, expected, strict=True):
        assert logprobs.token == pytest.approx(float(row[token]), abs=1e-4)
        best = row.topk(3)
        assert [id_ for id_, _ in logprobs.top] == best.indices.tolist()
        assert [p for _, p in logprobs.top] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_they_change_nothing_and_are_not_there_unless_asked_for():
    model = engine(tiny("llama"))
    options = {"temperature": 0.8, "seed": 2, "max_new_tokens": 40}
    [plain] = model.generate([PROMPT], Memory(budget=30), sampling=Sampling(**options))
    [asked] = model.generate([PROMPT], Memory(budget=30), sampling=Sampling(**options, logprobs=0))
    assert plain.token_ids == asked.token_ids
    assert not any(told(plain))
    assert [logprobs.top for logprobs in told(asked)] == [[]] * len(asked.token_ids)
