"""The scheduler, turn by turn: order, room, cancels and failures change nothing of what is said."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparing.api import load
from sparing.engine.drafter import NoDrafter
from sparing.engine.events import DoneEvent, TokenEvent
from sparing.errors import OptionError
from sparing.options import Depth, Memory, Sampling
from sparing.server.scheduler import Closed, QueueFull, Scheduler, Ticket
from sparing.server.settings import ServerConfig
from tests.depth.planted import IDLE, find, planted
from tests.engine.driving import greedy, run
from tests.memory.steady import Steady
from tests.server.live import until
from tests.tiny import engine, tiny, unchecked

MODEL = {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
SLOT = 3 * 2 * 2 * 12 * 8  # layers, keys and values, heads, dimensions, float64


def model():
    return engine(tiny("qwen2", **MODEL))


class Driven:
    """A scheduler whose turns a test takes itself."""

    def __init__(self, model: Any, **serving: Any) -> None:
        self.model, self.told = model, {}
        self.scheduler = Scheduler(model, ServerConfig(**serving), self.take)

    def take(self, news: Any) -> None:
        for ticket, events in news:
            self.told.setdefault(ticket, []).extend(events)

    def ticket(self, prompt: Any, sampling: Any, memory: Any = None, draft: str = "off") -> Ticket:
        return Ticket(self.model.request(prompt, memory, sampling=sampling), draft)

    def turn(self) -> None:
        self.scheduler.turn()
        cache = self.scheduler.loop.cache
        cache.check()
        assert cache.nbytes <= cache.rows * cache.limit * cache.slot_bytes
        assert cache.rows * cache.limit * cache.slot_bytes <= self.scheduler.room.kv_bytes

    def finish(self) -> None:
        while self.scheduler.live or self.scheduler.waiting:
            self.turn()
        assert self.scheduler.kv_bytes == 0
        assert all(isinstance(events[-1], DoneEvent) for events in self.told.values())

    def tokens(self, ticket: Ticket) -> list[int]:
        return [e.id for e in self.told.get(ticket, ()) if isinstance(e, TokenEvent)]


def test_slot_bytes_are_those_of_the_cache():
    driven = Driven(model())
    cache = driven.scheduler.loop.cache
    assert cache.slot_bytes == SLOT
    cache.resize(3, 10)
    cache.reserve(10)
    assert cache.nbytes == 3 * 10 * SLOT


def test_first_come_first_served_and_nobody_overtakes():
    """Room for 256 slots: the second needs them all, so the small third waits behind it."""
    driven = Driven(model(), kv_bytes=256 * SLOT)
    sizes = [100, 200, 20]
    tickets = [driven.ticket([1, 2], greedy(size)) for size in sizes]
    driven.scheduler.submit(tickets)
    driven.turn()
    assert (driven.scheduler.live, driven.scheduler.waiting) == (1, 2)
    order = []
    while driven.scheduler.live or driven.scheduler.waiting:
        driven.turn()
        order += [t for t in tickets if t.done and t not in order]
    assert order == tickets


def test_rows_are_admitted_by_what_all_would_take_together():
    driven = Driven(model(), kv_bytes=300 * SLOT, rows=8)
    small = [driven.ticket([1, 2], greedy(48)) for _ in range(7)]
    driven.scheduler.submit(small)
    driven.turn()
    assert (driven.scheduler.live, driven.scheduler.waiting) == (6, 1)
    driven.finish()


def test_a_request_with_a_budget_leaves_room_for_more():
    driven = Driven(model(), kv_bytes=320 * SLOT, rows=16)
    tickets = [driven.ticket([1, 2], greedy(300), Memory(budget=20)) for _ in range(16)]
    driven.scheduler.submit(tickets)
    driven.turn()
    assert driven.scheduler.live == 16
    driven.finish()
    assert all(len(driven.tokens(ticket)) == 300 for ticket in tickets)


def test_alone_it_takes_no_more_than_it_needs():
    driven = Driven(model())
    driven.scheduler.submit([driven.ticket([1, 2], greedy(100), Memory(budget=30))])
    driven.turn()
    assert driven.scheduler.kv_bytes == 30 * SLOT
    driven.finish()


def test_the_queue_is_bounded_and_takes_all_or_none():
    driven = Driven(model(), rows=2, queue=3)
    driven.scheduler.submit([driven.ticket([1], greedy(5)) for _ in range(4)])
    with pytest.raises(QueueFull, match="4 requests are waiting"):
        driven.scheduler.submit([driven.ticket([1], greedy(5)) for _ in range(2)])
    assert driven.scheduler.waiting == 4
    driven.finish()
    assert len(driven.told) == 4


def test_nobody_comes_after_the_close():
    driven = Driven(model())
    ticket = driven.ticket([1], greedy(50))
    driven.scheduler.submit([ticket])
    driven.turn()
    driven.scheduler.close(failure := Closed())
    with pytest.raises(Closed):
        driven.scheduler.submit([driven.ticket([1], greedy(5))])
    driven.finish()
    assert ticket.failure is failure
    assert driven.told[ticket][-1].finish_reason == "interrupted"


def test_cancelled_while_it_waits_while_it_runs_and_too_late():
    driven = Driven(model(), rows=1)
    live, waiting, last = (driven.ticket([1, n], greedy(20)) for n in range(3))
    driven.scheduler.submit([live, waiting, last])
    for _ in range(5):
        driven.turn()
    driven.scheduler.cancel([live, waiting])
    driven.turn()
    assert live.done
    assert waiting.done
    assert waiting.row is None
    assert len(driven.tokens(live)) == 5
    assert [e.type for e in driven.told[waiting]] == ["done"]
    driven.finish()
    assert len(driven.tokens(last)) == 20
    told = len(driven.told[last])
    driven.scheduler.cancel([last])
    driven.turn()
    assert len(driven.told[last]) == told


def test_a_pass_that_fails_ends_its_rows_and_the_next_request_is_served():
    broken = load(str(tiny("qwen2", **MODEL)), dtype="float64")
    driven = Driven(broken)
    good = broken.decoder.norm.clone()
    first, second, after = (driven.ticket([n], greedy(5)) for n in range(3))
    driven.scheduler.submit([first, second])
    driven.turn()
    with torch.inference_mode():
        broken.decoder.norm[:] = torch.nan
    driven.turn()
    assert first.done
    assert second.done
    assert "logits must be finite" in str(first.failure)
    assert driven.scheduler.kv_bytes == 0
    with torch.inference_mode():
        broken.decoder.norm[:] = good
    driven.scheduler.submit([after])
    driven.finish()
    assert after.failure is None
    assert len(driven.tokens(after)) == 5


def test_one_that_fails_ends_alone():
    class Blank(Steady):
        def score(self, view: Any) -> Any:
            return view.positions[1:]

    driven = Driven(model())
    good, bad = (
        driven.ticket([1, n], greedy(40), Memory(budget=20, policy=policy), draft="lookup")
        for n, policy in enumerate((Steady(), Blank()))
    )
    driven.scheduler.submit([good, bad])
    driven.finish()
    assert good.failure is None
    assert len(driven.tokens(good)) == 40
    assert "policy steady must give each of 20 slots a finite number" in str(bad.failure)
    assert driven.told[bad][-1].finish_reason == "error"
    assert driven.told[bad][-1].error == str(bad.failure)


def test_a_long_prompt_is_read_in_chunks_while_others_go_on():
    driven = Driven(model())
    short = driven.ticket([1, 2], greedy(60))
    driven.scheduler.submit([short])
    driven.turn()
    long = driven.ticket([n % 200 for n in range(1000)], greedy(3))
    driven.scheduler.submit([long])
    said = []
    while not long.started:
        before = short.row.transcript.new_tokens
        driven.turn()
        said.append(short.row.transcript.new_tokens - before)
    assert said == [1, 1, 1, 0]  # 256 tokens each, and 232 in a pass of its own
    driven.finish()
    assert len(driven.tokens(short)) == 60
    assert driven.scheduler.steps < 70


def test_newcomers_make_every_other_step_alone():
    """Their first tokens come in a pass without the others, who wait for no more than one."""
    driven = Driven(model())
    early, late, later = (driven.ticket([n] * 20, greedy(30)) for n in (1, 2, 3))
    said = []
    for coming in ([early], [], [late], [later], [], []):
        driven.scheduler.submit(coming)
        driven.told.clear()
        driven.turn()
        driven.scheduler._flush()
        said.append([len(driven.tokens(ticket)) for ticket in (early, late, later)])
    assert said == [[1, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1]]
    driven.finish()


def test_beside_others_a_draft_is_as_short_as_they_are_many():
    rooms = []

    class Noting(NoDrafter):
        def propose(self, rows: Any, given: Any) -> Any:
            rooms.append(given)
            return super().propose(rows, given)

    driven = Driven(model())
    tickets = [driven.ticket([1, 2], greedy(count)) for count in (60, 99, 99, *[50] * 13)]
    driven.scheduler.submit(tickets)
    driven.turn()
    driven.scheduler.drafter._drafters["off"] = Noting()
    driven.finish()
    most = {rows: max(max(given) for given in rooms if len(given) == rows) for rows in (16, 3, 2)}
    assert most == {16: 8, 3: 21, 2: 32}


def test_room_that_is_less_than_a_block_is_refused():
    with pytest.raises(OptionError, match="kv_bytes must be at least"):
        Scheduler(model(), ServerConfig(kv_bytes=255 * SLOT), print)


@pytest.mark.parametrize("when", ["idle", "ended"])
def test_what_it_learned_about_drafting_is_kept(when, monkeypatch):
    """For the next process: once nobody is here, and where that never was, in the end."""
    monkeypatch.setattr("sparing.server.scheduler.REST_S", 0.01 if when == "idle" else 1e6)
    learning, again = (load(str(planted()), dtype="float64") for _ in range(2))
    kept = learning.drafting.file
    find(IDLE, learning.drafting.search(Depth()))
    driven = Driven(learning)
    ticket = driven.ticket([1, 2], greedy(100), draft="layers")
    driven.scheduler.submit([ticket])
    driven.scheduler.start()
    until(lambda: ticket.done if when == "ended" else kept.read())
    assert bool(kept.read()) == (when == "idle")
    driven.scheduler.close()
    assert len(driven.tokens(ticket)) == 100
    assert again.drafting.search(Depth()).layer_set == IDLE


@st.composite
def asked(draw: Any) -> tuple[Any, ...]:
    prompt = draw(st.lists(st.integers(0, 255), min_size=1, max_size=40))
    room = draw(st.none() | st.integers(5, 40))
    memory = room and Memory(budget=len(prompt) + room, policy="window")
    sampling = Sampling(
        temperature=draw(st.sampled_from([0.0, 0.9])),
        seed=draw(st.integers(0, 9)),
        max_new_tokens=draw(st.integers(1, 40)),
    )
    draft = draw(st.sampled_from(["off", "auto", "lookup", "layers", "hybrid"]))
    return prompt, memory, sampling, draft, draw(st.integers(0, 30)), draw(st.integers(0, 60))


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(asked(), min_size=1, max_size=8), st.integers(256, 400), st.integers(1, 5))
@unchecked()
def test_whoever_comes_and_goes_each_answer_is_the_one_alone(requests, slots, rows):
    """Arrivals, drafters, budgets, cancels at random; the cache is laid out anew all the time."""
    driven = Driven(model(), kv_bytes=slots * SLOT, rows=rows)
    tickets = [driven.ticket(p, s, m, d) for p, m, s, d, _, _ in requests]
    for step in range(61):
        for ticket, (*_, comes, goes) in zip(tickets, requests, strict=True):
            if comes == step:
                driven.scheduler.submit([ticket])
            if goes == step and comes <= step:
                driven.scheduler.cancel([ticket])
        driven.turn()
    driven.finish()
    for ticket, (prompt, memory, sampling, *_) in zip(tickets, requests, strict=True):
        [alone] = run(model(), [prompt], sampling, memory)
        said = driven.tokens(ticket)
        whole = driven.told[ticket][-1].finish_reason != "interrupted"
        assert said == alone.token_ids[: None if whole else len(said)]
        text = "".join(getattr(event, "text", "") for event in driven.told[ticket])
        assert text == alone.text if whole else alone.text.startswith(text)
