"""Pocket's corpus: drawn by its seed, its splits apart."""

import pytest

from sparing.pocket import recipe
from sparing.pocket.corpus import COUNTS, DIRECT, WRITERS, questions
from sparing.pocket.model import new_model
from sparing.pocket.recipe import pocket_corpus
from sparing.tasks.families import FAMILIES, TRAINED
from sparing.tasks.splits import QuestionSet
from sparing.train.examples import RECALL, SHOWN
from tests.tiny import tokenizer

SOME = {
    "legs": {"standard": 60, "practice": 20},
    "sums": {"standard": 60},
    "times": {"practice": 40},
}


def test_every_family_and_level_has_a_writer_and_a_count():
    assert COUNTS.keys() == WRITERS.keys() == FAMILIES.keys()
    assert all(set(levels) == set(TRAINED) for levels in COUNTS.values())


def test_a_seed_draws_the_same_questions_with_the_same_traces():
    first, again, other = (list(questions("train", seed, SOME)) for seed in (1, 1, 2))
    assert first == again
    assert not {question.key for question in first} & {question.key for question in other}
    tasks = [question.example.task for question in first]
    assert {task: tasks.count(task) for task in tasks} == {
        "legs": 60, "legs-practice": 20, "sums": 60, "times-practice": 40
    }  # fmt: skip


def test_more_of_a_level_begins_with_the_same():
    """The tokenizer is learnt from the first of the very questions that are trained on."""
    few = list(questions("train", 1, {"sums": {"standard": 10}}))
    assert few == list(questions("train", 1, SOME))[80:90]


def test_some_training_examples_answer_at_once_and_no_others_do():
    many = {"sums": {"standard": 600}}
    trained, held_out = (
        list(questions(split, 1, many, QuestionSet())) for split in ("train", "validation")
    )
    direct = [q for q in trained if q.example.pieces[0].text == "<think>\n\n</think>\n\n"]
    assert 0.4 * DIRECT < len(direct) / len(trained) < 2 * DIRECT
    for question in direct:
        empty, answer = question.example.pieces
        assert (empty.taught, answer.taught) == (False, True)
        assert answer.text.lstrip("-").isdigit()
    assert all(len(question.example.pieces) > 2 for question in held_out)


@pytest.mark.slow
def test_a_small_share_of_the_corpus(monkeypatch):
    monkeypatch.setattr(recipe, "VALIDATION", 6)
    fast = tokenizer()
    corpus, asked = pocket_corpus(fast, seed=4, share=0.0005)
    again, _ = pocket_corpus(fast, seed=4, share=0.0005)
    assert corpus.examples.fingerprint() == again.examples.fingerprint()
    assert corpus.validation.fingerprint() == again.validation.fingerprint()
    assert len(asked) == len(corpus.examples)
    tasks = {family + end for family in FAMILIES for end in ("", "-practice")}
    assert set(corpus.examples.tasks) == set(corpus.validation.tasks) == tasks
    prompts = prompts_of(fast, corpus.examples), prompts_of(fast, corpus.validation)
    assert len(prompts[0]) == len(corpus.examples)
    assert len(prompts[1]) == len(corpus.validation)
    assert not prompts[0] & prompts[1]
    held_out = list(questions("validation", 4, recipe._each(6), asked))
    assert not [question.key for question in held_out if question.key in asked]
    assert {RECALL, SHOWN} < set(corpus.examples.roles.tolist())
    assert max(corpus.examples.ids) < len(fast)


def prompts_of(fast, examples):
    spans = zip(examples.starts, examples.starts[1:], strict=False)
    return {fast.decode(examples.ids[a:b]).partition("[assistant]")[0] for a, b in spans}


def test_the_untrained_model_fits_its_tokenizer():
    fast = tokenizer()
    model = new_model(fast)
    assert model.get_input_embeddings().num_embeddings == len(fast)
    assert model.config.eos_token_id == fast.eos_token_id
    assert 12 <= model.config.num_hidden_layers <= 16
    assert 2e6 < sum(weight.numel() for weight in model.parameters()) < 5e6
    assert new_model(fast, num_hidden_layers=2).config.num_hidden_layers == 2
