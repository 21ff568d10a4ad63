"""Training examples as flat arrays: token ids, and what each token teaches."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import torch

from sparing.model.chat import THINK

SHOWN, TAUGHT, RECALL = 0, 1, 2  # in no loss; in the loss; in the loss, and copied from far back
OPENINGS = (f"{THINK}\n", THINK)  # how some chat templates begin the reply, DeepSeek-R1's say


@dataclass(frozen=True)
class Piece:
    """A stretch of a response. ``taught`` False: a mistake, shown so that mending it is learnt."""

    text: str
    taught: bool = True
    recall: bool = False

    @property
    def role(self) -> int:
        return (RECALL if self.recall else TAUGHT) if self.taught else SHOWN


@dataclass(frozen=True)
class Example:
    """A question as chat messages and its response in pieces; ``task`` groups the figures."""

    messages: Sequence[dict[str, str]]
    pieces: Sequence[Piece]
    task: str


@dataclass(frozen=True)
class Encoded:
    """Token ids of prompt and response, and the role of each. ``dropped``: by place the words, as
    ids, that a token there stands for."""

    ids: list[int]
    roles: list[int]
    task: str
    dropped: Mapping[int, Sequence[int]] = field(default_factory=dict)


def encode(tokenizer: Any, example: Example) -> Encoded:
    """Prompt, pieces and end token tokenized apart and joined, so that inference splits alike.

    The question is out of the loss and the end token in it (spec/latent.md, stage 1).
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
    """The pieces without the opening of the thought, where the prompt ends in it already."""
    opening = next((opening for opening in OPENINGS if prompt.endswith(opening)), "")
    first, *others = pieces
    return [replace(first, text=first.text.removeprefix(opening)), *others]


class ExampleSet:
    """Many examples in three arrays; row ``i`` is ``ids[starts[i]:starts[i + 1]]``. ``dropped``
    [M, 2]: places among ``ids`` and words that stand dropped there, in order."""

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

        Causal attention never looks right, so padding there needs no mask.
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
        """``[3, M]``: of all that stands dropped in a batch of these rows its row in the batch, its
        position and the word."""
        found = []
        for at, row in enumerate(rows):
            begin, end = np.searchsorted(self.dropped[:, 0], self.starts[[row, row + 1]])
            places, words = self.dropped[begin:end].T
            found.append(np.stack([np.full_like(words, at), places - self.starts[row], words]))
        return torch.from_numpy(np.concatenate(found, 1))


@dataclass(frozen=True)
class Corpus:
    """What a run trains on, and what it looks at on the way; no question is in both.

    ``lengths``: of rows by which batches are cut, where those are not the examples' own: so runs
    that change the same examples, each in its way, see the same of them in every step.
    """

    examples: ExampleSet
    validation: ExampleSet
    lengths: np.ndarray | None = None

    @property
    def batched_by(self) -> np.ndarray:
        """The lengths that batches are cut by."""
        return self.examples.lengths if self.lengths is None else self.lengths
