"""The model that ships: what `sparing run` answers with unless told otherwise."""

import json

import pytest
import torch
from safetensors.torch import load_file

from sparing import Depth, Sampling, load
from sparing.model.sources import POCKET, POCKET_COT, POCKET_LATENT
from sparing.pocket.corpus import WRITERS
from sparing.tasks.families import FAMILIES
from sparing.tasks.find import family_tasks
from sparing.tasks.splits import (
    QUESTIONS_FILE,
    QuestionSet,
    question_hash,
    training_questions,
)
from sparing.tasks.wording import key
from tests.tiny import assert_same_tokens, next_logits, reference, reference_tokens

GREEDY = Sampling(temperature=0)
SHIPPED = (POCKET, POCKET_LATENT, POCKET_COT)


@pytest.fixture(scope="module")
def engine():
    return load("pocket")


def asked(problem):
    return [{"role": "user", "content": problem.question}]


@pytest.mark.parametrize("folder", SHIPPED)
def test_small_deep_and_narrow(folder):
    config = json.loads((folder / "config.json").read_text())
    assert 12 <= config["num_hidden_layers"] <= 16
    assert 128 <= config["hidden_size"] <= 192
    assert sum(file.stat().st_size for file in folder.iterdir()) < 15e6


@pytest.mark.parametrize("family", FAMILIES)
def test_thinks_and_solves_at_standard(engine, family):
    """Not the accuracy, which `sparing bench pocket` measures: that it is the trained model."""
    task = family_tasks()[family]
    problems = task.problems(8, 5)
    results = engine.generate([asked(p) for p in problems], sampling=GREEDY)
    right = [task.grade(p, r.answer) for p, r in zip(problems, results, strict=True)]
    assert sum(right) >= 6
    assert all(r.thinking.strip() for r in results)
    assert all(r.finish_reason == "stop" and r.notice is None for r in results)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_same_tokens_as_transformers(engine, family):
    [problem] = family_tasks()[family].problems(1, 11)
    [result] = engine.generate([asked(problem)], depth=Depth(draft="off"), sampling=GREEDY)
    prompt, model = result.prompt_token_ids, reference(POCKET, "float32")
    expected = reference_tokens(model, prompt, len(result.token_ids))
    assert_same_tokens(result.token_ids, expected, next_logits(model, prompt))


@pytest.mark.slow
def test_thinks_by_the_book(engine):
    """What it thinks of a question is what its writer would have written, in most cases."""
    same = 0
    for family, task in family_tasks().items():
        if family not in FAMILIES:
            continue
        for problem in task.problems(3, 21):
            [result] = engine.generate([asked(problem)], sampling=GREEDY)
            written = WRITERS[family](problem.entry, NoSlips())
            same += result.thinking.strip() == written.thinking.strip()
    assert same >= 8


class NoSlips:
    """A generator for writers that never shows a mistake."""

    def random(self) -> float:
        return 1.0


def test_other_questions_are_flagged(engine):
    prompts = ["Why is the sky blue?", "What is 3 + 4?", "Prove Fermat's last theorem."]
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    results = engine.generate(chats, sampling=Sampling(temperature=0, max_new_tokens=8))
    assert all("means nothing" in result.notice for result in results)


@pytest.mark.parametrize("level", ["standard", "hard"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_question_of_a_family_is_known(engine, family, level):
    task = family_tasks()[family if level == "standard" else f"{family}-hard"]
    for problem in task.problems(30, 3):
        assert engine.chat.encode(asked(problem)).notice is None, problem.question


@pytest.mark.parametrize("folder", SHIPPED)
def test_no_test_question_was_trained_on(folder):
    asked_of = QuestionSet.load(folder / QUESTIONS_FILE)
    assert len(asked_of) > 50_000
    assert set(training_questions().hashes) <= set(asked_of.hashes)
    for task in family_tasks().values():
        for problem in task.problems(40, 9):
            assert key(task.dataset, problem.entry) not in asked_of
            assert question_hash(key(task.dataset, problem.entry)) % 2 == 1


@pytest.mark.parametrize("folder", SHIPPED)
def test_weights_are_finite_float32(folder):
    tensors = load_file(folder / "model.safetensors")
    assert all(t.dtype == torch.float32 and t.isfinite().all() for t in tensors.values())
