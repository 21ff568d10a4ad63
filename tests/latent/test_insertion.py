"""Where latents go: reversible, capped, seeded, on the very ids that are trained on."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparing.latent.arms import ARMS, curriculum
from sparing.latent.insertion import draw, insert, removed, spread, unsure, with_latents
from sparing.latent.settings import StageSettings
from sparing.train.examples import RECALL, SHOWN, TAUGHT, Encoded, ExampleSet
from tests.train.small import small_rows

TOKEN = 40
SET = ExampleSet(small_rows(30))
GOLD = np.random.default_rng(0).random(len(SET.ids)).astype(np.float32)


def stage(**changed):
    return StageSettings(**{"stage": 2, "latents": "hidden", "seed": 3} | changed)


def rows(examples):
    return [examples[row] for row in range(len(examples))]


@pytest.mark.parametrize("targets", ["predict", "ignore"])
@pytest.mark.parametrize("changed", [{}, {"most": 2}, {"k": 4, "again": 0.5}, {"tau": 0.1}])
def test_taken_out_again_nothing_has_changed(changed, targets):
    settings = stage(targets=targets, **changed)
    found = with_latents(SET, GOLD, TOKEN, settings)
    assert rows(SET) == [removed(row, TOKEN) for row in rows(found)]
    inserted = 0
    for before, after, start in zip(rows(SET), rows(found), SET.starts, strict=False):
        at = 0
        runs = []
        for id_, role in zip(after.ids, after.roles, strict=True):
            if id_ == TOKEN:
                assert role == (TAUGHT if targets == "predict" else SHOWN)
                runs.append(at)
            else:
                at += 1
        for place, count in Counter(runs).items():
            assert count <= settings.k
            assert before.roles[place] != SHOWN
            assert GOLD[start + place] < settings.tau
        assert len(set(runs)) <= settings.most
        inserted += len(runs)
    assert inserted > 3


def test_the_seed_the_stage_and_the_example_decide_and_nothing_else():
    first = rows(with_latents(SET, GOLD, TOKEN, stage()))
    assert rows(with_latents(SET, GOLD, TOKEN, stage())) == first
    assert rows(with_latents(SET, GOLD, TOKEN, stage(seed=4))) != first
    assert rows(with_latents(SET, GOLD, TOKEN, stage(stage=3, latents="fused"))) != first
    half = ExampleSet(small_rows(30)[:7])
    assert rows(with_latents(half, GOLD, TOKEN, stage())) == first[:7]


def test_the_papers_chances():
    """P(0, 1, 2) is .15, .7225, .1275 in stage 2 and .05, .76, .19 in stage 3."""
    _, second, third = curriculum(ARMS["latent"], (1, 2, 3), {})
    assert second.chances == pytest.approx([0.15, 0.7225, 0.1275])
    assert third.chances == pytest.approx([0.05, 0.76, 0.19])
    assert (second.most, third.most) == (10, 16)
    assert stage(k=1).chances == pytest.approx([0.15, 0.85])
    assert sum(stage(k=5).chances) == pytest.approx(1)
    drawn = draw(range(1, 10001), 10000, second.chances, np.random.default_rng(0))
    counts = Counter(drawn.values())
    assert counts[1] / 10000 == pytest.approx(0.7225, abs=0.02)
    assert counts[2] / 10000 == pytest.approx(0.1275, abs=0.02)


@given(st.lists(st.integers(1, 60), unique=True), st.integers(1, 12), st.integers(0, 99))
def test_draws_are_capped_and_without_replacement(candidates, most, seed):
    candidates = sorted(candidates)
    drawn = draw(candidates, most, [0.2, 0.5, 0.3], np.random.default_rng(seed))
    assert set(drawn) <= set(candidates)
    assert len(drawn) <= min(most, len(candidates))
    assert set(drawn.values()) <= {1, 2}
    every = draw(candidates, most, [0.0, 1.0], np.random.default_rng(seed))
    assert len(every) == min(most, len(candidates))


def test_only_taught_tokens_are_unsure():
    roles = [SHOWN, SHOWN, TAUGHT, SHOWN, RECALL, TAUGHT]
    assert unsure([0.0, 0.0, 0.5, 0.0, 0.69, 0.7], roles, 0.7) == [2, 4]


def test_fixed_positions_are_spread_evenly():
    roles = [SHOWN] * 3 + [TAUGHT] * 12
    assert spread(roles, 3) == [5, 9, 13]
    assert spread(roles[:5], 16) == [3, 4]
    assert spread([SHOWN], 4) == []
    found = with_latents(SET, None, TOKEN, stage(positions="fixed", nothing=0.0, most=2))
    for before, after in zip(rows(SET), rows(found), strict=True):
        assert removed(after, TOKEN) == before
        places = min(2, len(before.roles) - before.roles.count(SHOWN))
        assert places <= after.ids.count(TOKEN) <= 2 * places


def test_by_hand():
    example = Encoded([7, 8, 9], [SHOWN, TAUGHT, RECALL], "task")
    assert insert(example, {1: 2, 2: 1}, TOKEN, taught=True) == Encoded(
        [7, TOKEN, TOKEN, 8, TOKEN, 9], [SHOWN, TAUGHT, TAUGHT, TAUGHT, TAUGHT, RECALL], "task"
    )
    assert insert(example, {}, TOKEN, taught=True) == example
