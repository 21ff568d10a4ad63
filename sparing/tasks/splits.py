"""Separate training, traces, validation and test questions by their content.

A question's canonical key is hashed to 32 bits. The hashes of pocket's training questions ship with
the package. All other questions are split by the hash modulo 4:

    1, 3   test
    2      validation
    0      traces: for training after pocket itself, such as the importance predictor
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
    """A set of questions by hash: ``hashes [n]``, uint32, sorted, each once.

    A question outside of the set counts as a member with probability ``n / 2**32``. Such a question
    is left out needlessly; a training question is never let through.
    """

    def __init__(self, hashes: np.ndarray | None = None) -> None:
        self.hashes = np.unique(np.array([] if hashes is None else hashes, np.uint32))

    @classmethod
    def build(cls, keys: Iterable[str]) -> "QuestionSet":
        """The set of these canonical keys."""
        return cls(np.fromiter(map(question_hash, keys), np.uint32))

    @classmethod
    def load(cls, path: Path) -> "QuestionSet":
        """Read a set from a file; raises ModelError for an invalid file."""
        try:
            return cls(load_file(path)[TENSOR])
        except Exception as error:  # safetensors has its own types
            raise ModelError(
                f"{path} must hold the tensor {TENSOR} of training questions, got: "
                f"{reason(error)}; install sparing again"
            ) from None

    def save(self, path: Path) -> None:
        """Write the set to a file, atomically."""
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
    """Pocket's training questions; empty in a source tree without trained weights."""
    return QuestionSet.load(SHIPPED) if SHIPPED.exists() else QuestionSet()


def belongs(key: str, split: Split, trained_on: QuestionSet) -> bool:
    """Whether a question may be in a split, by its key."""
    if split == "train":
        return True
    quarters = {"traces": (0,), "validation": (2,), "test": (1, 3)}[split]
    return question_hash(key) % 4 in quarters and key not in trained_on
