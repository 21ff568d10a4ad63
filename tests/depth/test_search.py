"""Layer sets are found on the live stream, from its own tokens, in time that is rationed."""

import random
from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest
import torch

from sparing import Depth, Memory, Sampling
from sparing.depth.candidates import as_layer_set, as_mask, changed, every_second, later_half
from sparing.depth.costs import Costs
from sparing.depth.find import find_drafter
from sparing.depth.gaussian_process import GaussianProcess
from sparing.depth.layer_sets import TunedLayerSet
from sparing.depth.matchness import Replay
from sparing.depth.speed_search import SpeedSearch
from sparing.depth.state import DraftingState
from sparing.depth.swift import RATIO, Optimization
from sparing.engine.events import LayersEvent
from sparing.errors import OptionError
from sparing.model.inputs import RowInput
from sparing.model.layer_set import LayerSet
from tests.depth.planted import IDLE, LAYERS, WRONG, knowing, planted, unhurried
from tests.engine.test_latent_steps import Saying
from tests.tiny import engine, tiny, unchecked

PROMPT = list(b"what is")


def row_after(model, count, memory=None, temperature=0.0):
    """A live row that has said so much, in its loop."""
    sampling = Sampling(temperature=temperature, seed=3, max_new_tokens=400, ignore_eos=True)
    request = model.request(PROMPT, memory, sampling=sampling)
    loop = model.loop([request], Depth(draft="off"))
    row = loop.admit(request)
    while row.transcript.new_tokens < count:
        loop.step()
    return row, loop


def told_while(model, depth, count):
    """What was told of layer sets while so many tokens were said, and behind how many of them."""
    sampling = Sampling(temperature=0, max_new_tokens=count, ignore_eos=True)
    [result] = model.generate([PROMPT], depth=depth, sampling=sampling)
    said, told = 0, []
    for event in result.events:
        said += event.type == "token"
        if isinstance(event, LayersEvent):
            told.append((event, said))
    return told


def turns(told):
    """The phases, and behind how many tokens each began."""
    return [(phase, next(some)[1]) for phase, some in groupby(told, key=lambda t: t[0].phase)]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("budget", [None, 90])
@unchecked()
def test_the_full_model_matches_itself(temperature, budget):
    """Under a budget as well: the last eviction was before the window."""
    model = engine(planted(markers=None))
    memory = budget and Memory(budget=budget, local=20, selection=0.2)
    row, loop = row_after(model, 100, memory, temperature)
    assert budget is None or loop.cache.lengths[row.index] < 70
    before = [layer.clone() for layer in loop.cache.kv]
    replay = Replay.of(row, loop.cache, 12)
    assert replay.matchness(model.decoder, LayerSet.full(LAYERS)) == 1.0
    assert replay.matchness(model.decoder, IDLE) == 1.0
    assert replay.matchness(model.decoder, WRONG) < 0.9
    length = loop.cache.lengths[row.index]
    for old, new in zip(before, loop.cache.kv, strict=True):
        assert torch.equal(old[:, :, :, :length], new[:, :, :, :length]), "live slots stay"


@unchecked()
def test_a_replay_is_what_a_pass_over_the_masked_past_gives():
    """Logits of the window's tokens, run again behind themselves, are those of their first pass."""
    model = engine(planted())
    row, loop = row_after(model, 40)
    replay, length = Replay.of(row, loop.cache, 16), loop.cache.lengths[row.index]
    again = model.decoder([replay.new], loop.cache).logits
    first = RowInput(row.index, length - 16, replay.new.ids, replay.new.positions, scored=16)
    torch.testing.assert_close(model.decoder([first], loop.cache).logits, again)
    assert replay.said.tolist() == row.tokens[-16:]


@unchecked()
def test_no_room_no_search():
    model = engine(planted())
    row, loop = row_after(model, 40, Memory(budget=50, local=10, selection=0.9))
    spare = 50 - loop.cache.lengths[row.index]
    assert Replay.of(row, loop.cache, spare) is None
    assert Replay.of(row, loop.cache, 41) is None, "the question is not what the model said"


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["matchness", "speed"])
@unchecked()
def test_finds_the_planted_set(objective, monkeypatch):
    """No-op sub-layers: what the search skips in the end changes no token, and is not little."""
    unhurried(monkeypatch)
    monkeypatch.setattr("sparing.depth.speed_search.CANDIDATES", 60)
    monkeypatch.setattr("sparing.depth.swift.RATIO", 5 / (2 * LAYERS))
    model = knowing(engine(planted()), None)
    depth = Depth(
        draft="layers", objective=objective, interval=16, blocks=2, window=64, max_draft=3
    )
    told = [event for event, _ in told_while(model, depth, 1500)]
    assert [told[0].phase, told[-1].phase] == ["accumulation", "acceleration"]
    assert "optimization" in {event.phase for event in told}
    search = model.drafting.search(depth)
    assert search.matchness == told[-1].matchness > 0.95
    assert told[-1].skipped == search.layer_set.names
    assert set(told[-1].skipped) <= set(IDLE.names)
    assert len(told[-1].skipped) >= 4
    assert search.seconds > 0


@unchecked()
def test_blocks_of_candidates_stand_apart(monkeypatch):
    """Accumulation and optimization take turns, as in figure 003. Nothing is worth it, so that a
    step is a token: in each block one for the best set of before and one a candidate."""
    unhurried(monkeypatch, Costs(rest=9.0, attention=0.0, mlp=0.0, token=0.0))
    monkeypatch.setattr("sparing.depth.speed_search.CANDIDATES", 5)
    model = knowing(engine(planted()), None)
    depth = Depth(draft="layers", interval=20, blocks=3, window=8)
    first, *found = turns(told_while(model, depth, 120))
    assert first[0] == "accumulation"
    assert [phase for phase, _ in found] == [
        *("optimization", "accumulation") * 2, "optimization", "acceleration"
    ]  # fmt: skip
    starts, ends = ([at for _, at in found[begin::2]] for begin in (0, 1))
    assert starts[0] > 20
    assert [end - start for start, end in zip(starts, ends, strict=True)] == [5] * 3
    assert [start - end for start, end in zip(starts[1:], ends, strict=False)] == [20] * 2
    assert model.drafting.search(depth).tried == 15


@pytest.fixture
def never_enough(monkeypatch):
    """No set is good enough."""
    monkeypatch.setattr("sparing.depth.swift.ENOUGH", 2.0)


@pytest.mark.parametrize(
    ("limit", "counted"), [("NO_GAIN", "without_gain"), ("MOST_TRIED", "tried")]
)
@unchecked()
def test_the_papers_schedule_gives_up(limit, counted, monkeypatch, never_enough):
    monkeypatch.setattr(f"sparing.depth.swift.{limit}", 9)
    model = knowing(engine(planted()), None)
    depth = Depth(draft="layers", objective="matchness", window=16)
    told = told_while(model, depth, 200)
    assert [phase for phase, _ in turns(told)] == ["accumulation", "optimization", "acceleration"]
    assert getattr(model.drafting.search(depth).optimization, counted) == 9


@pytest.mark.parametrize(("layers", "sets"), [(3, 1), (5, 15)])
@unchecked()
def test_the_papers_schedule_ends_where_there_are_no_more_sets(layers, sets, never_enough):
    """Of 2 sub-layers both, of 6 any 4."""
    model = knowing(engine(tiny(num_hidden_layers=layers)), None)
    depth = Depth(draft="layers", objective="matchness", window=16)
    told = told_while(model, depth, 250)
    assert [phase for phase, _ in turns(told)] == ["accumulation", "optimization", "acceleration"]
    assert model.drafting.search(depth).optimization.distinct == sets


@unchecked()
def test_looks_again_where_acceptance_falls_until_a_set_is_found(monkeypatch):
    unhurried(monkeypatch)
    monkeypatch.setattr("sparing.depth.speed_search.CANDIDATES", 60)
    model = knowing(engine(planted()), WRONG, matchness=0.95)
    depth = Depth(draft="layers", interval=16, blocks=2, window=64, max_draft=3)
    told = told_while(model, depth, 600)
    assert [phase for phase, _ in turns(told)] == [
        "acceleration", *("accumulation", "optimization") * 2, "acceleration"
    ]  # fmt: skip
    skipped = told[-1][0].skipped
    assert set(skipped) <= set(IDLE.names)
    assert len(skipped) >= 4


def test_masks_and_layer_sets():
    first = every_second(LAYERS)
    assert first == LayerSet.skipping(LAYERS, {1, 3}, {1, 3})
    assert first.names == ["attention.1", "mlp.1", "attention.3", "mlp.3"]
    assert as_mask(first).tolist() == [True, True, False, False, True, True, False, False]
    assert as_layer_set(as_mask(first)) == first
    assert later_half(LAYERS) == LayerSet.skipping(LAYERS, {4}, {4})


def test_a_change_turns_one_to_three_sub_layers_over():
    source, start = random.Random(0), every_second(12)
    turned = [int((as_mask(changed(start, source)) ^ as_mask(start)).sum()) for _ in range(200)]
    assert set(turned) == {1, 2, 3}
    assert turned.count(1) > turned.count(2)


def test_the_papers_candidates():
    """They skip the paper's ratio; every 25th is the Gaussian process's, and its picks are good."""
    optimization, hidden = Optimization(12), np.random.default_rng(0).random(20)
    seen = []
    for _ in range(120):
        mask = as_mask(optimization.next())
        assert mask.sum() == min(round(24 * RATIO), 20)
        seen.append(float(hidden[mask].sum()) / 20)
        assert optimization.learn(seen[-1]) == (seen[-1] > max(seen[:-1], default=0.0))
    assert optimization.matchness == max(seen)
    turns = seen[24::25]
    others = [score for at, score in enumerate(seen) if at % 25 != 24]
    assert np.mean(turns) > np.mean(others)


def test_searches_again_when_acceptance_falls():
    model = engine(planted())
    search = SpeedSearch(model.decoder, known=TunedLayerSet(IDLE, 0.9, 2.0))
    search.learn(10, 0)
    assert search.phase == "acceleration", "one bad draft says little"
    for _ in range(300):
        search.learn(25, 9)
    assert search.phase == "acceleration", "of long drafts nine in ten tokens were right"
    assert search.acceptance == pytest.approx(0.9, abs=0.01)
    for _ in range(200):
        search.learn(10, 1)
    assert search.phase == "accumulation"
    assert search.layer_set == IDLE, "used as long as nothing better is known"


@unchecked()
def test_what_was_drafted_behind_an_end_says_nothing():
    """Short answers, all of them ended by a token that was drafted, in the middle of a draft."""
    model, depth = knowing(engine(planted())), Depth(draft="layers", confidence=0.0)
    sampling = Sampling(temperature=0, max_new_tokens=40, ignore_eos=True)
    [whole] = model.generate([PROMPT], depth=Depth(draft="off"), sampling=sampling)
    ended = sampling.model_copy(update={"stop_token_ids": whole.token_ids[3:4]})
    results = model.generate([PROMPT] * 30, None, depth, None, ended)
    assert {(r.stats.new_tokens, r.stats.accepted) for r in results} == {(4, 3)}
    search = model.drafting.search(depth)
    assert (search.phase, search.acceptance) == ("acceleration", 1.0)


class Clock:
    """Time that passes in the decoder alone: a second a pass."""

    def __init__(self, decoder, monkeypatch):
        self.decoder, self.now, self.config = decoder, 0.0, decoder.config
        monkeypatch.setattr("time.perf_counter", lambda: self.now)

    def __call__(self, *args, **more):
        self.now += 1.0
        return self.decoder(*args, **more)

    def __getattr__(self, name):
        return getattr(self.decoder, name)


@pytest.mark.slow
@unchecked()
def test_takes_no_more_than_its_share_and_goes_on(monkeypatch):
    """Passes that cost the same: 5 % of them are the search's, and they are many candidates."""
    model = engine(planted())
    known = DraftingState(clock := Clock(model.decoder, monkeypatch))
    monkeypatch.setattr(DraftingState, "can_skip", True)
    depth = Depth(draft="layers", max_draft=1)
    sampling = Sampling(temperature=0, max_new_tokens=1600, ignore_eos=True)
    request = model.request(PROMPT, sampling=sampling)
    loop = model.loop([request], Depth(draft="off"))
    loop.decoder, loop.drafter = clock, find_drafter(depth, known, loop.cache)
    loop.admit(request)
    while loop.live:
        loop.step()
    search = known.search(depth)
    assert 0.03 < search.seconds / clock.now <= 0.06
    assert search.tried > 10


@unchecked()
def test_the_gaussian_process_is_part_of_the_search(monkeypatch):
    """Nothing else takes any time: all that is told as the search's is its."""
    monkeypatch.setattr("sparing.depth.swift.EVERY", 3)
    model = knowing(engine(planted()), None)
    clock, fit, fits = Clock(model.decoder, monkeypatch), GaussianProcess.fit, []

    def slow(*data):
        clock.now += 100.0
        fits.append(data)
        return fit(*data)

    monkeypatch.setattr(GaussianProcess, "fit", slow)
    depth = Depth(draft="layers", objective="matchness", window=16)
    sampling = Sampling(temperature=0, max_new_tokens=100, ignore_eos=True)
    [result] = model.generate([PROMPT], depth=depth, sampling=sampling)
    assert len(fits) > 3
    assert result.stats.search_seconds == result.stats.seconds == 100.0 * len(fits)


@unchecked()
def test_latents_are_replayed_with_their_vectors():
    """The full model matches what it said itself, between thoughts without words."""
    model = engine(planted())
    sampling = Sampling(temperature=0, max_new_tokens=400, ignore_eos=True)
    request = model.request(PROMPT, sampling=sampling)
    loop = model.loop([request], Depth(draft="off"))
    saying = Saying(model, lambda token, latents: token % 3 == 0)
    row = loop.admit(replace(request, switch=saying))
    while row.transcript.position < 80:
        loop.step()
    replay = Replay.of(row, loop.cache, 24)
    assert len(replay.new.vectors) >= 3
    assert (replay.said < 0).sum() >= 3
    assert replay.matchness(model.decoder, LayerSet.full(LAYERS)) == 1.0


def test_a_task_without_a_set_is_refused():
    model = engine(planted())
    with pytest.raises(OptionError, match="task must be one with a tuned layer set"):
        model.generate([PROMPT], depth=Depth(draft="layers", task="chess"))


def test_a_task_has_its_own_set_and_the_papers_schedule_looks_for_one():
    model = knowing(engine(planted()))
    model.drafting.sets |= {"other": TunedLayerSet(WRONG, 0.5, 1.5)}
    sampling = Sampling(temperature=0, max_new_tokens=4, ignore_eos=True)
    for options, expected in (
        ({}, (IDLE.names, 1.0, "acceleration")),
        ({"task": "other"}, (WRONG.names, 0.5, "acceleration")),
        ({"task": "planted"}, (IDLE.names, 1.0, "acceleration")),
        (
            {"objective": "matchness"},
            (every_second(LAYERS).names, 0.0, "accumulation"),
        ),
    ):
        depth = Depth(draft="layers", **options)
        [result] = model.generate([PROMPT], depth=depth, sampling=sampling)
        told = next(event for event in result.events if isinstance(event, LayersEvent))
        assert (told.skipped, told.matchness, told.phase) == expected
