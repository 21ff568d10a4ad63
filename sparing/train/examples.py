"""Training examples as flat arrays: token ids, and the role of each token."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import torch

from sparing.model.markers import THINK

SHOWN, TAUGHT, RECALL = 0, 1, 2  # not in the loss; in the loss; in it and copied from far back
OPENINGS = (f"{THINK}\n", THINK)  # begin the reply in some chat templates, such as DeepSeek-R1's


@dataclass(frozen=True)
class Piece:
    """A part of a response.

    ``taught``: False for a mistake, shown so that the model learns the correction
    ``recall``: whether it is copied from far back
    """

    text: str
    taught: bool = True
    recall: bool = False

    @property
    def role(self) -> int:
        return (RECALL if self.recall else TAUGHT) if self.taught else SHOWN


@dataclass(frozen=True)
class Example:
    """A question as chat messages and its response in pieces; ``task`` groups the scores."""

    messages: Sequence[dict[str, str]]
    pieces: Sequence[Piece]
    task: str


@dataclass(frozen=True)
class Encoded:
    """A tokenized example.

    ``ids``, ``roles``: of prompt and response
    ``dropped``: by place of a latent, the ids of the words in its place
    """

    ids: list[int]
    roles: list[int]
    task: str
    dropped: Mapping[int, Sequence[int]] = field(default_factory=dict)


def encode(tokenizer: Any, example: Example) -> Encoded:
    """Tokenize the prompt, the pieces and the end token separately, as inference does, and join
    them.

    The question is not in the loss, the end token is (LT-Tuning, arXiv 2602.10229, stage 1).
    """
    prompt = tokenizer.apply_chat_template(
        list(example.messages), add_generation_prompt=True, tokenize=False
    )
    ids = list(tokenizer.encode(prompt, add_special_tokens=False))
    roles = [SHOWN] * len(ids)
    for piece in unopened(example.pieces, prompt):
        tokens = tokenizer.encode(piece.text, add_special_tokens=False)
        ids += tokens
        roles += [piece.role] * len(tokens)
    return Encoded([*ids, tokenizer.eos_token_id], [*roles, TAUGHT], example.task)


def unopened(pieces: Sequence[Piece], prompt: str) -> list[Piece]:
    """The pieces without the start marker, if the prompt already ends with it."""
    opening = next((opening for opening in OPENINGS if prompt.endswith(opening)), "")
    first, *others = pieces
    return [replace(first, text=first.text.removeprefix(opening)), *others]


class ExampleSet:
    """Many examples in flat arrays; row ``i`` is ``ids[starts[i]:starts[i + 1]]``.

    ``dropped`` [M, 2]: place in ``ids`` and word, for each word replaced by a latent, in order
    """

    def __init__(self, examples: Iterable[Encoded]) -> None:
        ids: list[np.ndarray] = []
        roles: list[np.ndarray] = []
        dropped: list[tuple[int, int]] = []
        self.tasks: list[str] = []
        count = 0
        for example in examples:
            ids.append(np.asarray(example.ids, dtype=np.int32))
            roles.append(np.asarray(example.roles, dtype=np.uint8))
            self.tasks.append(example.task)
            dropped += [
                (count + at, word) for at in example.dropped for word in example.dropped[at]
            ]
            count += len(example.ids)
        self._taught = [int((row != SHOWN).sum()) for row in roles]
        self.lengths = np.array([len(row) for row in ids], dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self.ids = np.concatenate(ids) if ids else np.zeros(0, np.int32)
        self.roles = np.concatenate(roles) if roles else np.zeros(0, np.uint8)
        self.dropped = np.array(dropped, np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, row: int) -> Encoded:
        span = slice(self.starts[row], self.starts[row + 1])
        dropped: dict[int, list[int]] = {}
        for at, word in self.dropped_of([row])[1:].T.tolist():
            dropped.setdefault(at, []).append(word)
        return Encoded(self.ids[span].tolist(), self.roles[span].tolist(), self.tasks[row], dropped)

    def fingerprint(self) -> str:
        """A hash of all ids and roles, the same for the same examples in the same order."""
        digest = blake2b(self.ids.tobytes(), digest_size=8)
        digest.update(self.roles.tobytes())
        digest.update(self.lengths.tobytes())
        return digest.hexdigest()

    def taught(self, rows: Sequence[int]) -> int:
        """How many tokens of these rows are in the loss."""
        return sum(int(self._taught[row]) for row in rows)

    def batch(self, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """``ids`` and ``roles`` [B, T] of these rows, padded on the right with id 0, role SHOWN.

        Padding on the right needs no mask in causal attention.
        """
        width = max(int(self.lengths[row]) for row in rows)
        ids, roles = torch.zeros(2, len(rows), width, dtype=torch.long)
        for at, row in enumerate(rows):
            span = slice(self.starts[row], self.starts[row + 1])
            length = int(self.lengths[row])
            ids[at, :length] = torch.from_numpy(self.ids[span].astype(np.int64))
            roles[at, :length] = torch.from_numpy(self.roles[span].astype(np.int64))
        return ids, roles

    def dropped_of(self, rows: Sequence[int]) -> torch.Tensor:
        """``[3, M]``: row in the batch, position and word, for each dropped word of these rows."""
        found = []
        for at, row in enumerate(rows):
            begin, end = np.searchsorted(self.dropped[:, 0], self.starts[[row, row + 1]])
            places, words = self.dropped[begin:end].T
            found.append(np.stack([np.full_like(words, at), places - self.starts[row], words]))
        return torch.from_numpy(np.concatenate(found, 1))


@dataclass(frozen=True)
class Corpus:
    """Training and validation examples, with no question in both.

    ``lengths``: row lengths for the split into batches, in place of the examples' own: runs with
        different changes to the same examples then see the same examples in every step
    """

    examples: ExampleSet
    validation: ExampleSet
    lengths: np.ndarray | None = None

    @property
    def batched_by(self) -> np.ndarray:
        """The row lengths for the split into batches."""
        return self.examples.lengths if self.lengths is None else self.lengths
