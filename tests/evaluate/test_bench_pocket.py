"""The figures of `sparing bench pocket` that are computed rather than timed."""

from types import SimpleNamespace

import pytest

from sparing import Sampling, load
from sparing.evaluate.agreement import Spoken
from sparing.evaluate.batch_generate import FinishedRow
from sparing.evaluate.bench_pocket import Solved, lookup_share, thinking_at_most
from tests.evaluate.questions import Words
from tests.tiny import tiny


def answered(prompt, thinking, answer=()):
    stats = SimpleNamespace(thinking_tokens=len(thinking))
    result = SimpleNamespace(
        prompt_token_ids=prompt, token_ids=[*thinking, *answer], stats=stats, answer="even"
    )
    return FinishedRow(0, result, len(thinking), 1.0, 1)


@pytest.mark.parametrize(
    ("prompt", "thinking", "share"),
    [
        ([1, 2, 3, 4], [9, 8, 7], 0.0),
        ([1, 2, 3, 4], [1, 2, 3, 4], 1 / 4),  # only the 4 has three tokens before it seen before
        ([1, 2, 3, 4, 1, 2], [3, 4, 1, 2], 3 / 4),
        ([1, 2, 3, 4], [1, 2, 3, 5, 1, 2, 3, 5], 1 / 8),  # the last occurrence counts
    ],
)
def test_lookup_share(prompt, thinking, share):
    assert lookup_share(answered(prompt, thinking)) == share


def test_lookup_share_leaves_the_answer_out():
    assert lookup_share(answered([1, 2, 3, 4], [7], [1, 2, 3, 4])) == 0.0


def test_thinking_at_most_keeps_the_rest():
    sampling = thinking_at_most(5).sampling
    assert (sampling.think_budget, sampling.temperature) == (5, 0)


def test_accuracy_of_solved():
    problems = Words().problems(2, 0)
    odd = answered([1], [2])
    odd.result.answer = "odd"
    solved = Solved(Words(), problems, [answered([1], [2]), odd])
    assert solved.accuracy == 0.5
    assert solved.seconds == 2.0


def test_spoken_is_what_the_model_chose():
    engine = load(str(tiny()))
    [result] = engine.generate(["abc"], sampling=Sampling(temperature=0, max_new_tokens=6))
    spoken = Spoken.of(result)
    assert spoken.ids == [*result.prompt_token_ids, *result.token_ids]
    assert spoken.chosen == 6
