"""Question sets and splits: what was trained on is never tested on."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparing.errors import ModelError
from sparing.tasks.gym import entries
from sparing.tasks.splits import SHIPPED, QuestionSet, belongs, question_hash
from sparing.tasks.wording import key

KEYS = st.lists(st.text(max_size=20), max_size=50)


@given(KEYS, KEYS)
def test_a_set_holds_what_it_was_built_from(kept, others):
    found = QuestionSet.build(kept)
    assert all(text in found for text in kept)
    hashes = {question_hash(text) for text in kept}
    assert len(found) == len(hashes)
    for text in others:
        assert (text in found) == (question_hash(text) in hashes)


@given(st.text())
def test_a_question_has_one_split_beside_training(text):
    beside = ("traces", "validation", "test")
    nothing = QuestionSet()
    assert [belongs(text, split, nothing) for split in beside].count(True) == 1
    assert belongs(text, "train", nothing)
    trained = QuestionSet.build([text])
    assert belongs(text, "train", trained)
    assert not any(belongs(text, split, trained) for split in beside)


def test_hashes_stay_what_they_are():
    assert question_hash("chain_sum:1 + 1") == 0x4F4E599D  # by b2sum; what ships depends on it


def test_saved_and_loaded(tmp_path):
    file = tmp_path / "questions.safetensors"
    built = QuestionSet.build(f"question {i}" for i in range(1000))
    built.save(file)
    built.save(file)
    loaded = QuestionSet.load(file)
    assert loaded.hashes.dtype == np.uint32
    assert np.array_equal(loaded.hashes, built.hashes)
    assert [path.name for path in tmp_path.iterdir()] == ["questions.safetensors"]
    assert file.stat().st_size < 4 * 1000 + 200


@pytest.mark.parametrize("content", [b"", b"no tensors", None])
def test_a_file_that_is_no_set(tmp_path, content):
    file = tmp_path / "questions.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ModelError, match="install sparing again"):
        QuestionSet.load(file)


def test_what_ships_lies_in_the_package():
    assert SHIPPED.parts[-4:] == ("sparing", "pocket", "weights", "questions.safetensors")


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_the_splits_of_one_seed_share_no_question(seed):
    small = {"min_numbers": 2, "max_numbers": 2, "max_value": 12, "max_target": 30}
    small |= {"min_target": 1}
    train = {key("countdown", e) for e in entries("countdown", small, "train", seed, 150)}
    assert len(train) == 150
    trained = QuestionSet.build(train)
    held_out = {
        (split, s): {
            key("countdown", e) for e in entries("countdown", small, split, s, 10, trained)
        }
        for split in ("traces", "validation", "test")
        for s in (seed, seed + 1)
    }
    for one, other in combinations(held_out, 2):
        assert one[0] == other[0] or not held_out[one] & held_out[other]
    assert not train & set().union(*held_out.values())


def test_two_sets_together():
    both = QuestionSet.build(["a", "b"]) | QuestionSet.build(["b", "c"])
    assert len(both) == 3
    assert all(name in both for name in "abc")
