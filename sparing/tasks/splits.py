"""Training, validation and test questions, kept apart by what they ask.

A question's canonical key is hashed to 32 bits. Training questions are those whose hashes ship
with the package; of all others, odd hashes are test, a half of the even ones is validation, and
the rest is what later parts learn from, as the importance predictor from its model's traces.
"""

from collections.abc import Iterable
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors.numpy import load_file, save

from sparing.errors import ModelError, reason
from sparing.files import write_atomically
from sparing.model.sources import POCKET

Split = Literal["train", "traces", "validation", "test"]
QUESTIONS_FILE = "questions.safetensors"
SHIPPED = POCKET / QUESTIONS_FILE
TENSOR = "hashes"


def question_hash(key: str) -> int:
    """The first 4 bytes of BLAKE2b of a canonical key, big-endian."""
    return int.from_bytes(blake2b(key.encode()).digest()[:4], "big")


class QuestionSet:
    """Hashes of questions, sorted: ``hashes [n]`` of uint32, each once.

    A question that is not in it is taken for one that is with probability ``n / 2**32``: then one
    is left out that need not have been, and no training question is ever let through.
    """

    def __init__(self, hashes: np.ndarray | None = None) -> None:
        self.hashes = np.unique(np.array([] if hashes is None else hashes, np.uint32))

    @classmethod
    def build(cls, keys: Iterable[str]) -> "QuestionSet":
        """The set of these canonical keys."""
        return cls(np.fromiter(map(question_hash, keys), np.uint32))

    @classmethod
    def load(cls, path: Path) -> "QuestionSet":
        """The set in a file; raises ModelError where it holds none."""
        try:
            return cls(load_file(path)[TENSOR])
        except Exception as error:  # safetensors has errors of its own
            raise ModelError(
                f"{path} must hold the tensor {TENSOR} of training questions, got: "
                f"{reason(error)}; install sparing afresh"
            ) from None

    def save(self, path: Path) -> None:
        """Write atomically: the file is the old one or the whole new one."""
        write_atomically(path, save({TENSOR: self.hashes}))

    def __contains__(self, key: str) -> bool:
        wanted = np.uint32(question_hash(key))
        at = int(np.searchsorted(self.hashes, wanted))
        return at < len(self.hashes) and bool(self.hashes[at] == wanted)

    def __or__(self, other: "QuestionSet") -> "QuestionSet":
        return QuestionSet(np.concatenate([self.hashes, other.hashes]))

    def __len__(self) -> int:
        return len(self.hashes)


@cache
def training_questions() -> QuestionSet:
    """What pocket was trained on; empty in a source tree that has not been trained yet."""
    return QuestionSet.load(SHIPPED) if SHIPPED.exists() else QuestionSet()


def belongs(key: str, split: Split, trained_on: QuestionSet) -> bool:
    """Whether a question may be in the split, as far as what it asks decides."""
    if split == "train":
        return True
    quarters = {"traces": (0,), "validation": (2,), "test": (1, 3)}[split]
    return question_hash(key) % 4 in quarters and key not in trained_on
