"""A stream says what generate says, and may be left at any time."""

import gc
import itertools
from typing import Any

import pytest
import torch

from sparing.api import load
from sparing.engine.events import DoneEvent, TokenEvent
from sparing.engine.run import close_all
from sparing.errors import ModelError, PromptError
from sparing.options import Depth, Memory, Sampling
from tests.engine.driving import greedy, said
from tests.tiny import engine, tiny

PROMPT = "2, 4, 2, 4, 2, 4"
MEMORY, LOOKUP = Memory(budget=40), Depth(draft="lookup")


def model() -> Any:
    return engine(tiny(num_hidden_layers=2, tie_word_embeddings=True))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("memory", [None, MEMORY])
def test_event_by_event_as_generate(temperature, memory):
    sampling = Sampling(temperature=temperature, seed=1, max_new_tokens=70, ignore_eos=True)
    stream = model().stream(PROMPT, memory, sampling=sampling)
    events = list(stream)
    [result] = model().generate([PROMPT], memory, sampling=sampling)
    assert said(stream.result()) == said(result)
    assert len(events) == len(result.events)
    assert "".join(getattr(event, "text", "") for event in events) == result.text
    assert list(stream) == []
    assert stream.result().stats == stream.result().stats


@pytest.mark.slow
def test_closed_after_any_event():
    """The row is free at once; the result is what had been told, and is consistent."""
    [whole] = model().generate([PROMPT], MEMORY, LOOKUP, sampling=greedy(50))
    assert whole.stats.accepted > 5, "several events a step, or closing between them shows nothing"
    assert whole.stats.evictions > 1
    for count in range(1, len(whole.events)):
        stream = model().stream(PROMPT, MEMORY, LOOKUP, sampling=greedy(50))
        events = list(itertools.islice(stream, count))
        stream.close()
        assert not stream._run.loop.live
        assert stream._run.loop.cache.lengths == [0]
        assert list(stream) == []
        result = stream.result()
        assert result.finish_reason == "interrupted"
        assert result.token_ids == [e.id for e in events if isinstance(e, TokenEvent)]
        assert result.text == "".join(getattr(e, "text", "") for e in events)
        assert result.token_ids == whole.token_ids[: len(result.token_ids)]
        assert result.stats.new_tokens == len(result.token_ids)


def test_a_block_closes_its_stream():
    with model().stream(PROMPT, MEMORY, sampling=greedy(50)) as stream:
        assert not stream.begun
        assert stream.budget.slots == 40
        next(stream)
        assert stream.begun
    assert not stream._run.loop.live
    assert list(stream) == []


def test_what_an_error_of_the_reader_s_leaves_open_is_closed_at_exit():
    """Its traceback keeps the stream alive, and torch aborts a process that ends so."""
    stream = model().stream(PROMPT, sampling=greedy(50))
    for _ in range(3):
        next(stream)
    assert stream._run.loop.live
    close_all()
    assert not stream._run.loop.live


def test_thinking_and_answer_of_what_has_been_told():
    model = engine(tiny(num_hidden_layers=2))
    stream = model.stream("So<think>", sampling=greedy(40, think_budget=20))
    for event in stream:
        result = stream.result()
        told = result.text.replace("</think>", "").replace("<think>", "")
        assert len(result.thinking) + len(result.answer) <= len(told)
        if event.kind == "thought":
            assert result.answer == ""
        if isinstance(event, TokenEvent) and event.position > 30:
            break
    assert result.thinking
    assert result.answer
    assert result.finish_reason == "interrupted"


def test_result_while_it_goes_on():
    stream = model().stream(PROMPT, sampling=greedy(20))
    with pytest.raises(ValueError, match="must have been iterated"):
        stream.result()
    for count, event in enumerate(stream, 1):
        result = stream.result()
        done = isinstance(event, DoneEvent)
        assert len(result.events) == count + (not done)  # one that says it was interrupted
        assert result.finish_reason == ("length" if done else "interrupted")
        assert len(result.token_ids) == count - done


def test_left_without_a_word():
    """A stream that is dropped, or left by an error, frees its row as well."""
    stream = model().stream(PROMPT, sampling=greedy(20))
    next(stream)
    loop = stream._run.loop
    assert loop.live
    del stream
    gc.collect()
    assert not loop.live


def test_closed_before_it_began():
    stream = model().stream(PROMPT, sampling=greedy(20))
    stream.close()
    assert list(stream) == []


def test_bad_prompts_are_refused_at_the_call():
    with pytest.raises(PromptError, match="pass a budget of 18 or more"):
        model().stream(PROMPT, Memory(budget=5))


def test_a_broken_checkpoint_is_an_error_and_frees_the_row():
    broken = load(str(tiny(num_hidden_layers=2)), dtype="float32")
    with torch.inference_mode():
        broken.decoder.norm[3] = torch.nan
    stream = broken.stream("a", sampling=greedy(5))
    with pytest.raises(ModelError, match="logits must be finite"):
        next(stream)
    assert not stream._run.loop.live


def test_no_prompts_no_results():
    assert model().generate([]) == []
