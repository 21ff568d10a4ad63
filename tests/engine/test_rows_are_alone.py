"""Exact 3: what a row says depends neither on the rows beside it nor on when it joined."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparing.engine.events import Event
from sparing.options import Depth, Memory, Sampling
from tests.depth.planted import knowing, planted
from tests.engine.driving import finished, greedy, run, said
from tests.tiny import (
    assert_same_tokens,
    engine,
    next_logits,
    reference,
    reference_tokens,
    tiny,
    unchecked,
)

MODEL = {"num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2}


@st.composite
def rows(draw: Any) -> tuple[list[int], Memory | None, Sampling]:
    prompt = draw(st.lists(st.integers(0, 255), min_size=1, max_size=30))
    room = draw(st.none() | st.integers(5, 40))
    memory = room and Memory(
        budget=len(prompt) + room, policy=draw(st.sampled_from(["window", "streaming", "random"]))
    )
    sampling = Sampling(
        temperature=draw(st.sampled_from([0.0, 0.8, 1.2])),
        top_k=draw(st.none() | st.integers(1, 50)),
        repetition_penalty=draw(st.none() | st.just(1.3)),
        seed=draw(st.integers(0, 99)),
        max_new_tokens=draw(st.integers(1, 40)),
        ignore_eos=draw(st.booleans()),
    )
    return prompt, memory, sampling


def drive(loop: Any, requests: Any, arrivals: Any, leaving: Any = ()) -> tuple[list[Any], Any]:
    """Admit request i at step ``arrivals[i]`` or as soon as a row is free; retire ``leaving``.

    ``leaving``: pairs of a request's number and the step at which it goes.
    """
    waiting = sorted(zip(arrivals, range(len(requests)), strict=True))
    admitted: dict[int, Any] = {}
    events: list[list[Event]] = [[] for _ in requests]
    step = 0
    while waiting or loop.live:
        while waiting and waiting[0][0] <= step and loop.free_rows:
            _, number = waiting.pop(0)
            admitted[number] = loop.admit(requests[number])
        for number, when in leaving:
            if when == step and admitted.get(number) in loop.live:
                loop.retire(admitted[number])
        if loop.live:
            for event in loop.step():
                events[event.row].append(event)
        loop.cache.check()
        step += 1
    return [admitted[number] for number in range(len(requests))], events


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    given_rows=st.lists(rows(), min_size=2, max_size=5),
    places=st.integers(1, 4),
    chunk=st.sampled_from([1, 4, 256]),
    draft=st.sampled_from(["lookup", "layers", "hybrid", "auto"]),
    data=st.data(),
)
@unchecked()
def test_beside_any_rows_at_any_time(given_rows, places, chunk, draft, data):
    model = knowing(engine(planted("qwen2")), matchness=0.1)
    prompts, memories, samplings = zip(*given_rows, strict=True)
    requests = [
        model.request(prompt, memory, sampling=sampling, tag=tag)
        for tag, (prompt, memory, sampling) in enumerate(given_rows)
    ]
    arrivals = data.draw(st.lists(st.integers(0, 30), min_size=len(prompts), max_size=len(prompts)))
    depth = Depth(draft=draft, confidence=0.0, max_draft=6)
    loop = model.loop(requests, depth, batch_size=places)
    loop.chunk = chunk
    together = finished(loop, *drive(loop, requests, arrivals))
    at_once = model.generate(prompts, memories, depth, None, samplings, batch_size=places)
    for prompt, memory, sampling, *others in zip(
        prompts, memories, samplings, together, at_once, strict=True
    ):
        [alone] = run(model, [prompt], sampling, memory, depth=Depth(draft="off"))
        for other in others:
            assert said(alone) == said(other)
            if draft in ("layers", "hybrid") and not memory:
                assert other.stats.drafted > 0 or other.stats.new_tokens < 3


@pytest.mark.parametrize(
    ("dtype", "draft"), [("float32", "layers"), ("float64", "hybrid"), ("float64", "auto")]
)
def test_rows_come_and_go_and_all_say_what_transformers_says(dtype, draft):
    path = planted("llama")
    model = knowing(engine(path, dtype))
    prompts = [list(range(n, 2 * n + 1)) for n in (1, 20, 3, 40, 8, 2, 11)]
    counts = [30, 5, 40, 12, 60, 3, 30]
    requests = [
        model.request(prompt, sampling=greedy(count), tag=tag)
        for tag, (prompt, count) in enumerate(zip(prompts, counts, strict=True))
    ]
    loop = model.loop(requests, Depth(draft=draft, confidence=0.0, max_draft=1), batch_size=3)
    loop.chunk = 9
    leaving = {2: 14, 4: 25}
    admitted, events = drive(loop, requests, [0, 0, 2, 4, 4, 9, 30], list(leaving.items()))
    assert not loop.live
    assert "draft" in {event.origin for row in events for event in row if event.type == "token"}
    for number, (row, prompt, count) in enumerate(zip(admitted, prompts, counts, strict=True)):
        ours = row.tokens[len(prompt) :]
        expected = reference_tokens(reference(path, dtype), prompt, count)
        if number in leaving:
            assert 0 < len(ours) < count
            expected = expected[: len(ours)]
        assert_same_tokens(ours, expected, next_logits(reference(path, dtype), prompt))


def test_as_many_rows_as_there_are():
    model = engine(tiny(**MODEL))
    requests = [model.request([1, 2], sampling=greedy(4), tag=tag) for tag in range(2)]
    large = model.request([1] * 9, sampling=greedy(9))
    loop = model.loop(requests, batch_size=2)
    with pytest.raises(ValueError, match="must fit the cache's 6 slots, got 18"):
        loop.admit(large)
    for request in requests:
        loop.admit(request)
    with pytest.raises(ValueError, match="2 live; retire one first"):
        loop.admit(requests[0])
    assert loop.step()
    for row in list(loop.live):
        loop.retire(row)
    assert loop.free_rows == [0, 1]
    assert loop.step() == []


def test_same_prompt_and_seed_is_the_same_answer_in_every_row():
    model = engine(tiny(**MODEL))
    sampling = Sampling(temperature=1.0, seed=5, max_new_tokens=20, ignore_eos=True)
    first, *others = model.generate([[1, 2, 3]] * 4, sampling=sampling)
    assert len(set(first.token_ids)) > 5
    assert all(other.token_ids == first.token_ids for other in others)
    other = model.generate([[1, 2, 3]], sampling=Sampling(**sampling.model_dump() | {"seed": 6}))
    assert other[0].token_ids != first.token_ids


def test_one_option_a_prompt_or_one_for_all():
    model = engine(tiny(**MODEL))
    with pytest.raises(ValueError, match="one a prompt \\(2\\), got 1"):
        model.generate([[1], [2]], sampling=[greedy(3)])
    results = model.generate(
        [[1], [2]], memory=[None, Memory(budget=10)], sampling=[greedy(3), greedy(20)]
    )
    assert [r.stats.new_tokens for r in results] == [3, 20]
    assert [r.stats.policy for r in results] == ["full", "window"]
