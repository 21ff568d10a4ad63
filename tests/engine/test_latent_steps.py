"""The way of latent steps through the loop, with a switch whose thought is a word's own embedding:
then thinking it is the same as saying it, and every position must be as in plain decoding."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sparing.api import Engine
from sparing.depth.lookup import PromptLookup
from sparing.engine.drafter import NoDrafter
from sparing.engine.events import EvictEvent, LatentEvent, TokenEvent
from sparing.engine.latent_switch import Latents, Thought
from sparing.engine.result import Result
from sparing.options import Memory
from tests.engine.drafters import all_drafters
from tests.engine.driving import Recorder, greedy, run, said
from tests.tiny import engine, reference, reference_tokens, tiny, unchecked

PROMPTS = [list(b"Q"), list(b"one two one two one"), list(range(30, 42))]
COUNT = 40


class Saying:
    """Thinks the likeliest token instead of saying it, where ``when(token, latents)``."""

    name, layer, token, silent = "saying", None, None, False

    def __init__(self, model: Engine, when: Callable[[int, int], bool]) -> None:
        self.embedding, self.when = model.decoder.embedding, when

    def think(
        self, hidden: Tensor, logits: Tensor, token: int, confidence: float, latents: Latents
    ) -> Thought | None:
        if not self.when(token, latents.in_a_row):
            return None
        return Thought(self.embedding.rows(torch.tensor([token]))[0], [(str(token), 1.0)])


SOMETIMES = {
    "every third": lambda token, latents: token % 3 == 0,
    "at most two": lambda token, latents: latents < 2,
    "nearly all": lambda token, latents: latents < 9,
    "never": lambda token, latents: False,
}


def positions(result: Result) -> list[int]:
    """The token at every generated position, thought or said."""
    steps = [e for e in result.events if isinstance(e, TokenEvent | LatentEvent)]
    start = len(result.prompt_token_ids)
    assert [e.position for e in steps] == list(range(start, start + len(steps)))
    return [e.id if isinstance(e, TokenEvent) else int(e.top[0][0]) for e in steps]


def evictions(result: Result) -> list[Any]:
    return [(e.positions, e.at) for e in result.events if isinstance(e, EvictEvent)]


@pytest.mark.slow
@pytest.mark.parametrize("when", SOMETIMES)
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_thinking_a_word_is_saying_it(family, when):
    path = tiny(family, markers=None, num_hidden_layers=2)
    model = engine(path)
    switch = Saying(model, SOMETIMES[when])
    plain = [reference_tokens(reference(path), prompt, COUNT) for prompt in PROMPTS]
    texts = [prompt + output for prompt, output in zip(PROMPTS, plain, strict=True)]
    first = None
    for turn, drafter in enumerate([NoDrafter(), PromptLookup(), *all_drafters(texts).values()]):
        results = run(
            model, PROMPTS, greedy(COUNT), switch=switch, drafter=drafter, batch_size=1 + turn % 3
        )
        for result, output in zip(results, plain, strict=True):
            assert positions(result) == output
            assert result.stats.new_tokens + result.stats.latent_tokens == COUNT
            assert (result.stats.latent_tokens > 4) == (when != "never")
        first = first or results
        assert [said(a) for a in first] == [said(b) for b in results]


@pytest.mark.parametrize("policy", ["window", "streaming", "random"])
@unchecked()
def test_thoughts_without_words_are_evicted_like_any_other(policy):
    model = engine(tiny(markers=None, num_hidden_layers=2))
    memories = [Memory(budget=len(prompt) + 16, policy=policy) for prompt in PROMPTS]
    plain = run(model, PROMPTS, greedy(90), memories, drafter=NoDrafter())
    texts = [result.prompt_token_ids + result.token_ids for result in plain]
    for drafter in all_drafters(texts).values():
        switch = Saying(model, SOMETIMES["every third"])
        results = run(model, PROMPTS, greedy(90), memories, switch=switch, drafter=drafter)
        for a, b in zip(plain, results, strict=True):
            assert positions(b) == a.token_ids
            assert evictions(a) == evictions(b)
            assert len(evictions(b)) > 5
            latent = {e.position for e in b.events if isinstance(e, LatentEvent)}
            assert latent & {position for gone, _ in evictions(b) for position in gone}


def test_a_latent_position_takes_the_vector_and_no_token():
    model = engine(tiny(markers=None, num_hidden_layers=2))
    recorder = Recorder(model.decoder)
    switch = Saying(model, SOMETIMES["every third"])
    [result] = run(model, PROMPTS[:1], greedy(20), switch=switch, decoder=recorder)
    latent = [e.position for e in result.events if isinstance(e, LatentEvent)]
    fed = [i.positions[0] for [i], _ in recorder.passes if i.vectors]
    assert fed == [position for position in latent if position < len(PROMPTS[0]) + 19]
    assert len(result.token_ids) == 20 - len(latent)


def test_latents_alone_end_at_the_limit_and_what_was_held_back_is_told():
    """The last token before the thoughts began half a stop string: it is text when the row ends."""
    model = engine(tiny(markers=None, num_hidden_layers=2))
    [plain] = run(model, ["Q"], greedy(12))
    at = next(i for i, e in enumerate(plain.events) if getattr(e, "text", "").isalnum())
    letter = plain.events[at].text
    spoken = iter([*range(at + 1)])
    switch = Saying(model, lambda token, latents: next(spoken, None) is None)
    [result] = run(model, ["Q"], greedy(12, stop=[letter + "never said"]), switch=switch)
    assert result.finish_reason == "length"
    assert result.stats.new_tokens == at + 1
    assert result.stats.latent_tokens == 12 - (at + 1)
    assert "".join(getattr(e, "text", "") for e in result.events) == result.text
    assert result.text.endswith(letter)
