"""Worked solutions as training examples."""

import json

import pytest

from sparing.errors import OptionError
from sparing.tasks.solutions import read_solutions
from sparing.train.examples import SHOWN
from sparing.train.solutions import solutions_corpus
from tests.tiny import tokenizer


def rows(count):
    return [
        {"question": f"{i} and {i}?", "answer": f"{i} + {i} = <<{i}+{i}={2 * i}>>{2 * i}\n#### {i}"}
        for i in range(count)
    ]


@pytest.fixture
def corpus(tmp_path):
    def made(count, seed=0):
        file = tmp_path / "maths.jsonl"
        file.write_text("\n".join(map(json.dumps, rows(count))))
        return solutions_corpus(tokenizer(), read_solutions(file), file.stem, seed)

    return made


def texts(examples):
    fast = tokenizer()
    return [
        fast.decode(examples.ids[start:end])
        for start, end in zip(examples.starts, examples.starts[1:], strict=False)
    ]


@pytest.mark.parametrize(("count", "held_out"), [(2, 1), (19, 1), (30, 3), (1500, 100)])
def test_every_row_is_trained_on_or_held_out(corpus, count, held_out):
    found = corpus(count)
    assert (len(found.examples), len(found.validation)) == (count - held_out, held_out)
    assert len({*texts(found.examples), *texts(found.validation)}) == count
    assert set(found.examples.tasks) == {"maths"}


def test_the_seed_draws_what_is_held_out(corpus):
    first, again, other = (corpus(40, seed) for seed in (1, 1, 2))
    assert first.examples.fingerprint() == again.examples.fingerprint()
    assert first.validation.fingerprint() == again.validation.fingerprint()
    assert set(texts(first.validation)) != set(texts(other.validation))


def test_question_thinking_answer(corpus):
    found = corpus(2).examples
    fast = tokenizer()
    [text] = texts(found)
    number = text[len("[user] ")]
    assert text.startswith(f"[user] {number} and {number}?\nPlease reason step by step")
    response = f"<think>\n{number} + {number} = {2 * int(number)}\n</think>\n\n{number}"
    assert text.endswith(f"[assistant] {response}<|endoftext|>")
    taught = found.ids[found.roles != SHOWN]
    assert fast.decode(taught) == response + "<|endoftext|>"


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_rows(corpus, count):
    with pytest.raises(OptionError, match=r"maths\.jsonl must hold two rows or more"):
        corpus(count)
