"""What a call hands back: events that add up to the result and to every one of its stats."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparing.engine import events as events_of
from sparing.engine.events import DoneEvent, Event, EvictEvent, LatentEvent, TokenEvent, replay
from sparing.engine.result import Result
from sparing.errors import OptionError, PromptError
from sparing.options import Depth, Memory, Sampling
from tests.engine.driving import greedy, run
from tests.tiny import END, engine, tiny, unchecked

TYPES = {t.type: t for t in (TokenEvent, LatentEvent, EvictEvent, DoneEvent)}


def from_json(line: str) -> Event:
    values = json.loads(line)
    return TYPES[values.pop("type")](**values)


def assert_adds_up(result: Result) -> None:
    """The events, sent as JSON and read again, say all that the result says."""
    told = [from_json(json.dumps(event.to_dict())) for event in result.events]
    assert replay(told) == result.stats
    tokens = [event for event in told if isinstance(event, TokenEvent)]
    assert [event.id for event in tokens] == result.token_ids
    start = len(result.prompt_token_ids)
    assert [event.position for event in tokens] == list(range(start, start + len(tokens)))
    assert "".join(getattr(event, "text", "") for event in told) == result.text
    assert isinstance(told[-1], DoneEvent)
    assert told[-1].finish_reason == result.finish_reason
    assert sum(isinstance(event, DoneEvent) for event in told) == 1
    stats = result.stats
    assert stats.new_tokens == len(result.token_ids)
    assert stats.thinking_tokens == sum(event.kind == "thought" for event in tokens)
    assert 0 <= stats.accepted <= stats.drafted
    assert stats.accepted == sum(event.origin == "draft" for event in tokens)
    assert stats.tokens_per_second == pytest.approx(stats.new_tokens / stats.seconds)
    evicted = [event for event in told if isinstance(event, EvictEvent)]
    assert stats.evictions == len(evicted)
    assert stats.evicted_tokens == len({p for event in evicted for p in event.positions})
    assert all(0 < event.confidence <= 1 for event in tokens)
    as_json = json.loads(json.dumps(result.to_dict(events=True)))
    assert as_json["stats"] == json.loads(json.dumps(stats.to_dict()))
    assert len(as_json["events"]) == len(told)
    assert "events" not in result.to_dict()


@settings(max_examples=25, deadline=None)
@given(
    prompts=st.lists(st.sampled_from(["a", "a<think>", "1, 2, 1, 2, 1"]), min_size=1, max_size=3),
    markers=st.sampled_from(["single", "several", None]),
    sampling=st.builds(
        Sampling,
        temperature=st.sampled_from([0.0, 0.9]),
        seed=st.integers(0, 9),
        max_new_tokens=st.integers(1, 70),
        ignore_eos=st.booleans(),
        stop=st.lists(st.text("abc1 ", min_size=1, max_size=2), max_size=3),
    ),
    room=st.none() | st.integers(3, 30),
)
@unchecked()
def test_events_add_up(prompts, markers, sampling, room):
    model = engine(tiny(markers=markers, num_hidden_layers=2))
    memories = [room and Memory(budget=len(model.chat.encode(p).ids) + room) for p in prompts]
    for result in model.generate(prompts, memories, Depth(draft="lookup"), sampling=sampling):
        assert_adds_up(result)
        assert not any(stop in result.text for stop in sampling.stop)
        assert result.stats.policy == ("full" if room is None else "window")
        assert result.stats.draft == "lookup"


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_auto_guards_whatever_the_rows(rows):
    results = engine(tiny()).generate(["hi"] * rows, sampling=Sampling(max_new_tokens=3))
    assert {result.stats.draft for result in results} == {"auto"}


def test_text_is_the_decoded_tokens():
    model = engine(tiny())
    [result] = model.generate([[5, 6]], sampling=greedy(50))
    assert result.text == model.chat.decode(result.token_ids)
    assert result.prompt_token_ids == [5, 6]


def test_end_tokens():
    path = tiny("qwen3", num_hidden_layers=2, tie_word_embeddings=True)
    model = engine(path)
    end = model.chat.tokenizer.convert_tokens_to_ids(END)
    [free] = model.generate([[9, 9]], sampling=greedy(60))
    assert free.finish_reason == "length"
    at = 20
    chosen = free.token_ids[at]
    first = free.token_ids.index(chosen)
    [stopped] = model.generate([[9, 9]], sampling=greedy(60, stop_token_ids=[chosen]))
    assert stopped.finish_reason == "stop"
    assert stopped.token_ids == free.token_ids[: first + 1]
    assert end not in free.token_ids[: first + 1]


@pytest.mark.parametrize("generation", [None, "generation_config"])
def test_the_models_end_token_ends_unless_ignored(generation):
    """Where it says nothing, config and tokenizer do: any token that it picks may be the end."""
    [plain] = engine(tiny()).generate([[1, 2]], sampling=greedy(30))
    ends = [plain.token_ids[12], plain.token_ids[20]]
    said = {"eos_token_id": ends} if generation else None
    path = tiny(eos_token_id=ends, generation=said)
    [result] = engine(path).generate([[1, 2]], sampling=Sampling(temperature=0, max_new_tokens=30))
    first = min(plain.token_ids.index(token) for token in ends)
    assert result.token_ids == plain.token_ids[: first + 1]
    assert result.finish_reason == "stop"
    [ignored] = engine(path).generate([[1, 2]], sampling=greedy(30))
    assert ignored.token_ids == plain.token_ids


def test_the_models_own_sampling_unless_told():
    saying = {"do_sample": True, "temperature": 0.7, "top_k": 9, "max_new_tokens": 17}
    model = engine(tiny(generation=saying))
    own = Sampling(seed=4, ignore_eos=True)
    told = Sampling(seed=4, ignore_eos=True, temperature=0.7, top_k=9, max_new_tokens=17)
    [a], [b] = (model.generate([[1]], sampling=options) for options in (own, told))
    assert a.token_ids == b.token_ids
    assert a.stats.new_tokens == 17
    [other] = model.generate([[1]], sampling=Sampling(seed=4, ignore_eos=True, temperature=0.0))
    assert other.token_ids == model.generate([[1]], sampling=greedy(17))[0].token_ids


@pytest.mark.parametrize("stop", ["one", "several"])
def test_stop_strings_in_a_run(stop):
    model = engine(tiny())
    [free] = model.generate(["7"], sampling=greedy(60))
    readable = [i for i, c in enumerate(free.text) if c.isalnum()]
    start = readable[len(readable) // 2]
    words = [free.text[start : start + 3]] + (["never said", "1d1d1d"] if stop != "one" else [])
    [result] = model.generate(["7"], sampling=greedy(60, stop=words))
    assert result.finish_reason == "stop"
    assert result.text == free.text[: min(free.text.index(w) for w in words if w in free.text)]
    assert result.token_ids == free.token_ids[: len(result.token_ids)]


@pytest.mark.parametrize("memory", [None, Memory(budget=20)])
def test_the_end_of_the_context(memory):
    model = engine(tiny(max_position_embeddings=40))
    [result] = model.generate([[1, 2, 3]], memory, sampling=greedy(100))
    assert result.finish_reason == "context"
    assert len(result.prompt_token_ids + result.token_ids) == 40
    [result] = model.generate([[1] * 39], sampling=greedy(100))
    assert result.stats.new_tokens == 1
    with pytest.raises(PromptError, match="shorter than the context of 40 tokens, got 40"):
        model.generate([[1] * 40], sampling=greedy(1))


@pytest.mark.parametrize("markers", ["single", "several"])
@pytest.mark.parametrize("memory", [None, Memory(budget=60, local=8)])
def test_the_thinking_budget_in_a_run(markers, memory):
    """Forced tokens are said in one step, and cost a draft's room, not a draft's count."""
    model = engine(tiny(markers=markers, num_hidden_layers=2))
    [free] = run(model, ["So<think>"], greedy(60), memory)
    [result] = run(model, ["So<think>"], greedy(60, think_budget=30), memory)
    assert result.token_ids[:22] == free.token_ids[:22]
    assert result.stats.thinking_tokens <= 30
    assert result.stats.new_tokens == 60
    assert result.text.count("</think>") == 1
    assert "</think>" in result.text[: result.text.index("</think>") + 8]
    forced = [event for event in result.events if getattr(event, "origin", "") == "forced"]
    assert len(forced) == len(model.chat.markers.end_ids)
    assert result.answer
    assert result.thinking
    assert_adds_up(result)


def test_a_thinking_budget_needs_markers():
    with pytest.raises(OptionError, match="think_budget needs a model that marks its thoughts"):
        engine(tiny(markers=None)).generate(["a"], sampling=Sampling(think_budget=5))


def test_measured_bytes_and_what_they_hold():
    model = engine(tiny())
    shape = model.decoder.shape
    slot: Any = 2 * shape.layers * shape.kv_heads * shape.head_dim * 8
    [result] = model.generate([[1, 2, 3]], Memory(budget=30), sampling=greedy(99))
    assert result.stats.kv_bytes_peak == 30 * slot
    [result] = model.generate([[1, 2, 3]], sampling=greedy(99))
    assert result.stats.kv_bytes_peak == (3 + 99) * slot
    steps = [e for e in result.events if isinstance(e, events_of.StepEvent)]
    assert max(e.kv_bytes for e in steps) == result.stats.kv_bytes_peak
