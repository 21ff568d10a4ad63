"""From nothing to pocket: its tokenizer, its examples, its model, the hashes of its questions."""

from typing import Any

from sparing.pocket.corpus import COUNTS, Question, questions
from sparing.pocket.model import new_model
from sparing.pocket.tokenizer import train_tokenizer
from sparing.tasks.splits import QuestionSet
from sparing.train.examples import Corpus, Encoded, ExampleSet, encode

TOKENIZER_SAMPLE = 400  # questions of each family and level that the tokenizer is learnt from
VALIDATION = 50  # questions of each family and level


def pocket_base(seed: int) -> tuple[Any, Any]:
    """An untrained pocket and its tokenizer, which is learnt from the first training questions."""
    import torch

    sample = questions("train", seed, _each(TOKENIZER_SAMPLE))
    tokenizer = train_tokenizer(text for question in sample for text in _texts(question))
    torch.manual_seed(seed)
    return new_model(tokenizer), tokenizer


def pocket_corpus(tokenizer: Any, seed: int, share: float = 1.0) -> tuple[Corpus, QuestionSet]:
    """Training and validation examples for any tokenizer, and which questions are trained on.

    ``share``: of the full number of training questions.
    """
    counts = {
        family: {level: max(1, round(n * share)) for level, n in levels.items()}
        for family, levels in COUNTS.items()
    }
    keys: list[str] = []

    def encoded(question: Question) -> Encoded:
        keys.append(question.key)
        return encode(tokenizer, question.example)

    examples = ExampleSet(map(encoded, questions("train", seed, counts)))
    asked = QuestionSet.build(keys)
    held_out = questions("validation", seed, _each(VALIDATION), asked)
    validation = ExampleSet(encode(tokenizer, question.example) for question in held_out)
    return Corpus(examples, validation), asked


def _each(n: int) -> dict[str, dict[str, int]]:
    return {family: dict.fromkeys(levels, n) for family, levels in COUNTS.items()}


def _texts(question: Question) -> list[str]:
    return [question.example.messages[0]["content"], *(p.text for p in question.example.pieces)]
