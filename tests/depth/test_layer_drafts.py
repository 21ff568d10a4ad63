"""Drafts by fewer layers looked at directly: who takes part in a pass, where they end, as trees."""

import pytest
import torch

from sparing import Depth, Sampling, load
from sparing.depth.layer_sets import TunedLayerSet
from sparing.depth.layers import LayerDrafter, tree_width
from sparing.depth.speed_search import SpeedSearch
from sparing.engine.draft import PENDING
from tests.depth.planted import IDLE, planted
from tests.engine.driving import Recorder
from tests.tiny import engine, unchecked

PROMPTS = [list(b"so, 7 + 9 is"), list(b"Q")]
MOST = 9


class Drafting:
    """Two rows that have said a little, and drafters whose passes are recorded."""

    def __init__(self, temperature=0.0, model=None):
        self.model = model or engine(planted())
        sampling = Sampling(temperature=temperature, seed=3, max_new_tokens=200, ignore_eos=True)
        requests = [
            self.model.request(p, sampling=sampling, tag=tag) for tag, p in enumerate(PROMPTS)
        ]
        self.loop = self.model.loop(requests, Depth(draft="off"))
        self.rows = [self.loop.admit(request) for request in requests]
        for _ in range(20):
            self.loop.step()
        self.search = SpeedSearch(self.model.decoder, known=TunedLayerSet(IDLE, 1.0, 2.0))

    def propose(self, rooms, **options):
        recorder = Recorder(self.model.decoder)
        drafter = LayerDrafter(recorder, self.loop.cache, self.search, **options)
        drafts = drafter.propose(self.rows, rooms)
        self.passes = recorder.passes
        return drafts

    @property
    def who(self):
        """The rows of each pass."""
        return [[new.row for new in inputs] for inputs, _ in self.passes]

    def said_next(self, count):
        """What plain decoding says from here, row by row."""
        before = [len(row.tokens) for row in self.rows]
        for _ in range(count):
            self.loop.step()
        return [tuple(row.tokens[at:]) for row, at in zip(self.rows, before, strict=True)]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@unchecked()
def test_a_pass_a_position_for_all_rows_that_still_draft(temperature):
    drafting = Drafting(temperature)
    one, other = drafting.propose([2, 40], most=5, confidence=0.0)
    assert drafting.who == [[0, 1]] * 2 + [[1]] * 3
    assert one.is_chain
    assert other.is_chain
    first, second = drafting.said_next(5)
    assert (one.ids, other.ids) == (first[:2], second)
    assert [len(draft) for draft in drafting.propose([0, 3], confidence=0.0)] == [0, 3]
    assert drafting.who == [[1]] * 3, "a row without room takes part in none"
    drafting.search.layer_set = None
    assert not any(drafting.propose([9, 9], confidence=0.0))
    assert drafting.who == []


@unchecked()
def test_a_draft_ends_behind_the_first_token_that_it_is_not_sure_of():
    drafting = Drafting()
    drafting.propose([MOST, MOST], most=MOST, confidence=0.0)
    sure = torch.stack([logits.softmax(-1).amax(-1) for _, logits in drafting.passes])
    assert sure.shape == (MOST, 2)
    seen = set()
    for least in (sure.flatten() + 1e-9).tolist():
        lengths = [
            next((at for at, p in enumerate(of_row, 1) if p < least), MOST)
            for of_row in sure.T.tolist()
        ]
        drafts = drafting.propose([MOST, MOST], most=MOST, confidence=least)
        assert [len(draft) for draft in drafts] == lengths
        assert drafting.who == [
            [row for row in (0, 1) if at < lengths[row]] for at in range(max(lengths))
        ]
        seen |= set(lengths)
    assert {1, MOST} < seen


@pytest.fixture(scope="module")
def surer():
    """Its logits are larger: now it is sure, now it is not."""
    model = load(str(planted()), dtype="float64")
    with torch.inference_mode():
        model.decoder.norm[:] *= 3
    return model


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@unchecked()
def test_trees_are_as_broad_as_they_are_unsure_and_only_the_first_goes_on(temperature, surer):
    drafting = Drafting(temperature, surer)
    drafts = drafting.propose([80, 80], most=MOST, confidence=0.0, trees=True)
    assert drafting.who == [[0, 1]] * MOST
    counts = set()
    stems = [[], []]
    for at, (draft, row, stem) in enumerate(zip(drafts, drafting.rows, stems, strict=True)):
        parent = PENDING
        for depth, (inputs, logits) in enumerate(drafting.passes, 1):
            count = tree_width(float(logits[at].softmax(-1).max()), row.sampled)
            nodes = [node for node, other in enumerate(draft.depths) if other == depth]
            assert len(nodes) == count
            assert {draft.parents[node] for node in nodes} == {parent}
            assert depth == 1 or inputs[at].ids == [draft.ids[parent]]
            ids = [draft.ids[node] for node in nodes]
            assert row.sampled or ids == logits[at].topk(count).indices.tolist()
            parent = nodes[0]
            stem.append(ids[0])
            counts.add(count)
        assert max(draft.depths) == MOST
    assert len(counts) > 2
    [first, _] = drafting.propose([7, 80], most=MOST, confidence=0.0, trees=True)
    assert len(first) == 7, "the last siblings are those that there was room for"
    assert [tuple(stem) for stem in stems] == drafting.said_next(MOST)
