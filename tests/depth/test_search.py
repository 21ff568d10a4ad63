"""Layer sets are found on the live stream, from its own tokens, in time that is rationed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sparing import Depth, Memory, Sampling
from sparing.depth.costs import Costs
from sparing.depth.find import Known, find_drafter
from sparing.depth.proposals import RATIO, Proposals, as_layer_set, as_mask
from sparing.depth.replay import Replay
from sparing.depth.search import LayerSearch, Schedule
from sparing.depth.store import Tuned
from sparing.engine.events import LayersEvent
from sparing.errors import OptionError
from sparing.model.inputs import RowInput
from sparing.model.layer_set import LayerSet
from tests.depth.planted import IDLE, LAYERS, planted
from tests.engine.test_latent_steps import Saying
from tests.tiny import engine, unchecked

PROMPT = list(b"what is")


def row_after(model, count, memory=None, temperature=0.0):
    """A live row that has said so much, in its loop."""
    sampling = Sampling(temperature=temperature, seed=3, max_new_tokens=400, ignore_eos=True)
    loop = model.loop([request := model.request(PROMPT, memory, sampling)], Depth(draft="off"))
    row = loop.admit(request)
    while row.transcript.new_tokens < count:
        loop.step()
    return row, loop


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
    other = LayerSet.skipping(LAYERS, {2}, {1, 4})
    assert replay.matchness(model.decoder, other) < 0.9
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


@pytest.mark.parametrize("objective", ["matchness", "speed"])
@unchecked()
def test_finds_the_planted_set(objective, monkeypatch):
    """No-op sub-layers: what the search skips in the end changes no token, and is not little."""
    monkeypatch.setattr("sparing.depth.search.SHARE", 1e9)
    monkeypatch.setattr("sparing.depth.search.CANDIDATES", 60)
    monkeypatch.setattr("sparing.depth.proposals.RATIO", 5 / (2 * LAYERS))
    each = 0.9 / (2 * LAYERS)  # by the clock a model this small has nothing to gain
    costs = Costs(rest=0.1, attention=each, mlp=each, token=0.01)
    monkeypatch.setattr(Replay, "costs", lambda self, decoder, head: costs)
    model = engine(planted())
    model.drafting.forget()
    model.drafting.sets = {}
    depth = Depth(
        draft="layers", objective=objective, interval=16, blocks=2, window=64, max_draft=3
    )
    sampling = Sampling(temperature=0, max_new_tokens=1500, ignore_eos=True)
    [result] = model.generate([PROMPT], depth=depth, sampling=sampling)
    told = [event for event in result.events if isinstance(event, LayersEvent)]
    assert [told[0].phase, told[-1].phase] == ["accumulation", "acceleration"]
    assert "optimization" in {event.phase for event in told}
    search = model.drafting.search(depth)
    assert search.matchness == told[-1].matchness > 0.95
    assert told[-1].skipped == search.layer_set.names
    assert set(told[-1].skipped) <= set(IDLE.names)
    assert len(told[-1].skipped) >= 4
    assert search.seconds > 0


def test_masks_and_layer_sets():
    proposals = Proposals(LAYERS, near=False)
    first = as_layer_set(proposals.first())
    assert first == LayerSet.skipping(LAYERS, {1, 3}, {1, 3})
    assert first.names == ["attention.1", "mlp.1", "attention.3", "mlp.3"]
    assert (as_mask(first) == proposals.first()).all()


@pytest.mark.parametrize("near", [False, True])
def test_proposals(near):
    """Drawn ones skip the paper's ratio; the Gaussian process takes turns; its picks are good."""
    proposals, best = Proposals(12, near=near), Proposals(12, near=near).first()
    hidden = np.random.default_rng(0).random(20)
    seen = []
    for _ in range(120):
        mask = proposals.next(best)
        if not near:
            assert mask.sum() == min(round(24 * RATIO), 20)
        score = float(hidden[mask].sum())
        proposals.scores.append((mask, score))
        seen.append(score)
        best = max(proposals.scores, key=lambda pair: pair[1])[0]
    turns = seen[24::25]
    others = [score for at, score in enumerate(seen) if at % 25 != 24]
    assert np.mean(turns) > np.mean(others)


def test_searches_again_when_acceptance_falls():
    model = engine(planted())
    search = LayerSearch(model.decoder, Schedule(), known=Tuned(IDLE, 0.9, 2.0))
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


@unchecked()
def test_takes_no_more_than_its_share_and_goes_on(monkeypatch):
    """Passes that cost the same: 5 % of them are the search's, and they are many candidates."""
    model = engine(planted())
    known = Known(clock := Clock(model.decoder, monkeypatch))
    monkeypatch.setattr(Known, "can_skip", True)
    depth = Depth(draft="layers", max_draft=1)
    sampling = Sampling(temperature=0, max_new_tokens=1600, ignore_eos=True)
    request = model.request(PROMPT, None, sampling)
    loop = model.loop([request], Depth(draft="off"))
    loop.decoder, loop.drafter = clock, find_drafter(depth, known, loop.cache)
    loop.admit(request)
    while loop.live:
        loop.step()
    search = known.search(depth)
    assert 0.03 < search.seconds / clock.now <= 0.06
    assert len(search._proposals.scores) > 10


@unchecked()
def test_latents_are_replayed_with_their_vectors():
    """The full model matches what it said itself, between thoughts without words."""
    model = engine(planted())
    sampling = Sampling(temperature=0, max_new_tokens=400, ignore_eos=True)
    request = model.request(PROMPT, None, sampling)
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
