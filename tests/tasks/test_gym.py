"""reasoning-gym as tasks: its questions by split and seed, its own verifiers."""

from itertools import islice

import pytest
from reasoning_gym.factory import DATASETS, create_dataset

from sparing.errors import OptionError
from sparing.tasks import FAMILIES, wording
from sparing.tasks.gym import CHUNK, SEEDS, GymTask, entries, gym_names, hashed_seed
from sparing.tasks.splits import QuestionSet

NONE = QuestionSet()
LARGE = {"min_terms": 5, "max_terms": 6, "min_digits": 6, "max_digits": 9}


def questions(dataset, config, split, seed, n):
    return [entry["question"] for entry in entries(dataset, config, split, seed, n, NONE)]


def test_a_seed_gives_the_same_and_more_of_it():
    few, more = (questions("chain_sum", LARGE, "test", 7, n) for n in (5, 40))
    assert few == more[:5]
    assert len(set(more)) == 40


def test_neighbouring_seeds_share_no_question_though_reasoning_gym_shifts_them():
    first, second = (create_dataset("chain_sum", **LARGE, seed=s, size=30) for s in (7, 8))
    assert first[1]["question"] == second[0]["question"]
    asked = [questions("chain_sum", LARGE, "test", seed, 40) for seed in range(20)]
    assert len({question for of_seed in asked for question in of_seed}) == 20 * 40


def test_splits_levels_and_seeds_begin_elsewhere():
    begins = {
        hashed_seed(dataset, config, split, seed, chunk)
        for dataset in ("chain_sum", "countdown")
        for config in ({}, LARGE)
        for split in ("train", "validation", "test")
        for seed in range(5)
        for chunk in range(5)
    }
    assert len(begins) == 2 * 2 * 3 * 5 * 5
    assert all(0 <= begin < SEEDS for begin in begins)


def test_training_is_drawn_lazily_and_beyond_a_chunk():
    endless = entries("chain_sum", LARGE, "train", 0, 10**9, NONE)
    asked = [entry["question"] for entry in islice(endless, CHUNK + 20)]
    assert len(set(asked)) == CHUNK + 20


def test_no_question_repeats_where_there_are_few():
    few = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    there_are = 55 + 10 * 9  # a + b in either order; a - b, where a - 0 is a + 0 again
    asked = questions("chain_sum", few, "train", 3, there_are)
    assert len(set(asked)) == there_are
    with pytest.raises(OptionError, match=rf"must have 146 different .* ask for {there_are} or"):
        questions("chain_sum", few, "train", 3, there_are + 1)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("level", ["standard", "hard"])
def test_a_family_accepts_its_answers_and_refuses_others(name, level):
    family = FAMILIES[name]
    task = GymTask(name, family.dataset, getattr(family, level))
    problems = task.problems(20, seed=3)
    assert [p.id for p in problems] == list(range(1, 21))
    for problem, other in zip(problems, problems[1:] + problems[:1], strict=True):
        assert problem.question == wording(family.dataset, problem.entry)
        assert task.grade(problem, f"  {problem.answer}\n")
        assert not task.grade(problem, "")
        assert not task.grade(problem, f"It is {problem.answer}, or so.")
        if problem.answer != other.answer:
            assert not task.grade(problem, other.answer)


def test_another_expression_for_a_countdown_is_right_too():
    task = GymTask("countdown", "countdown", FAMILIES["countdown"].standard)
    for problem in task.problems(20, 0):
        assert task.grade(problem, f"({problem.answer}) * 1") is False  # a number too many
        assert task.grade(problem, f"(({problem.answer}))")


def test_a_verifier_that_raises_has_refused():
    task = GymTask("prime_factorization", "prime_factorization")
    [problem] = task.problems(1, 0)
    with pytest.raises(ValueError, match="invalid literal"):
        task._score("hello world", problem.entry)
    assert not task.grade(problem, "hello world")
    assert task.grade(problem, problem.answer)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"composite"}))
def test_every_data_set_by_its_name(name):
    task = GymTask(name, name)
    problems = task.problems(2, seed=5)
    assert problems == task.problems(2, seed=5)
    assert len({problem.question for problem in problems}) == 2
    for problem in problems:
        assert problem.question.strip()
        assert not problem.answer or task.grade(problem, problem.answer)


def test_names_and_settings_that_do_not_work():
    assert "composite" in gym_names()
    with pytest.raises(OptionError, match=r"composite must take its settings.* Must specify"):
        GymTask("composite", "composite").problems(1, 0)
    with pytest.raises(OptionError, match=r"chain_sum must take its settings .*unexpected keyword"):
        GymTask("sums", "chain_sum", {"min_words": 1}).problems(1, 0)
