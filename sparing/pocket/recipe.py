"""The recipe of pocket: tokenizer, model, examples, and the hashes of its questions."""

from typing import Any

from sparing.pocket.corpus import COUNTS, Question, questions
from sparing.pocket.model import new_model
from sparing.pocket.tokenizer import train_tokenizer
from sparing.tasks.splits import QuestionSet, Split, training_questions
from sparing.train.examples import Corpus, Encoded, ExampleSet, encode

TOKENIZER_SAMPLE = 400  # questions of each family and level for the training of the tokenizer
VALIDATION = 50  # questions of each family and level


def pocket_base(seed: int) -> tuple[Any, Any]:
    """An untrained pocket and its tokenizer, trained on the first training questions."""
    import torch

    sample = questions("train", seed, _each(TOKENIZER_SAMPLE))
    tokenizer = train_tokenizer(text for question in sample for text in _texts(question))
    torch.manual_seed(seed)
    return new_model(tokenizer), tokenizer


def pocket_corpus(
    tokenizer: Any,
    seed: int,
    share: float = 1.0,
    split: Split = "train",
    held_out: int | None = None,
) -> tuple[Corpus, QuestionSet]:
    """Training and validation examples for any tokenizer, and the set of training questions.

    ``share``: of the full number of training questions
    ``split``: source of the training questions; "traces" for training after pocket itself
    ``held_out``: validation questions of each family and level
    """
    counts = {
        family: {level: max(1, round(n * share)) for level, n in levels.items()}
        for family, levels in COUNTS.items()
    }
    keys: list[str] = []

    def encoded(question: Question) -> Encoded:
        keys.append(question.key)
        return encode(tokenizer, question.example)

    trained_on = None if split == "train" else training_questions()
    examples = ExampleSet(map(encoded, questions(split, seed, counts, trained_on)))
    asked = QuestionSet.build(keys)
    known = asked | (trained_on or asked)
    others = questions("validation", seed, _each(held_out or VALIDATION), known)
    validation = ExampleSet(encode(tokenizer, question.example) for question in others)
    return Corpus(examples, validation), asked


def _each(n: int) -> dict[str, dict[str, int]]:
    return {family: dict.fromkeys(levels, n) for family, levels in COUNTS.items()}


def _texts(question: Question) -> list[str]:
    return [question.example.messages[0]["content"], *(p.text for p in question.example.pieces)]
