"""The loop holds the one clock of drafting."""

from dataclasses import replace

import pytest

from sparing.engine.draft import Draft
from sparing.engine.drafter import DraftTime, NoDrafter
from sparing.engine.events import LayersEvent
from sparing.options import Depth
from tests.engine.driving import greedy
from tests.tiny import engine, tiny, unchecked


class Slow(NoDrafter):
    """A second a proposal, two seconds a lesson."""

    def __init__(self, clock):
        self.clock, self.steps = clock, []

    def propose(self, rows, rooms):
        self.clock.now += 1.0
        return [Draft.chain([7]).cut(room) for room in rooms]

    def learn(self, outcomes, seconds):
        self.clock.now += 2.0
        self.steps.append((seconds, [(o.drafted, o.accepted, o.tokens) for o in outcomes]))
        told = LayersEvent(["attention.1"], 0.5, "optimization")
        return [replace(told, row=outcomes[-1].row.request.tag)]


class Clock:
    now = 0.0


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr("time.perf_counter", lambda: found.now)
    return found


@unchecked()
def test_a_step_counts_from_its_proposals_to_its_evictions(clock):
    """Neither a lesson counts, nor the reader's time between two steps."""
    model = engine(tiny())
    requests = [model.request([1, 2, 3], sampling=greedy(6), tag=tag) for tag in (4, 9)]
    loop = model.loop(requests, Depth(draft="off"))
    loop.drafter = slow = Slow(clock)
    rows, events, steps = [loop.admit(request) for request in requests], [], 0
    while loop.live:
        events += loop.step()
        steps += 1
        clock.now += 100.0
    assert [seconds for seconds, _ in slow.steps] == [1.0] * steps
    assert {row.draft_time.draft for row in rows} == {float(steps)}
    assert rows[0].draft_time == DraftTime(draft=steps, search=2.0 * steps)
    assert sum(tokens for _, of in slow.steps for _, _, tokens in of) == 12
    assert all(accepted <= drafted <= 1 for _, of in slow.steps for drafted, accepted, _ in of)
    told = [event for event in events if event.type == "layers"]
    assert len(told) == steps
    assert told[0].row == 9, "as the drafter marked it"
    done = [event for event in events if event.type == "done"]
    assert [event.draft_seconds for event in done] == [float(steps)] * 2


@unchecked()
def test_rows_that_read_their_prompt_have_no_outcome(clock):
    model = engine(tiny())
    requests = [model.request([1] * length, sampling=greedy(3)) for length in (2, 9)]
    loop = model.loop(requests, Depth(draft="off"))
    loop.chunk, loop.drafter = 4, Slow(clock)
    for request in requests:
        loop.admit(request)
    while loop.live:
        loop.step()
    assert [len(of) for _, of in loop.drafter.steps][:3] == [1, 1, 2]
