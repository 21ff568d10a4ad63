"""Drafters that know what will be said, and say it, or not: what is drafted must never matter."""

import random
from collections.abc import Sequence
from typing import Any

from sparing.engine.draft import PENDING, Draft
from sparing.engine.drafter import Outcome
from sparing.engine.events import Event
from sparing.engine.row import Row


class Knowing:
    """A chain of up to ``longest`` tokens, each of them right with probability ``right``.

    ``texts``: prompt and output of every row, as plain decoding gives them.
    """

    name = "knowing"

    def __init__(
        self, texts: Sequence[Sequence[int]], right: float, longest: int = 9, seed: int = 0
    ) -> None:
        self.texts, self.right, self.longest = [list(text) for text in texts], right, longest
        self.random = random.Random(seed)
        self.learned: list[tuple[int, int]] = []

    def propose(self, rows: Sequence[Row], rooms: Sequence[int]) -> list[Draft]:
        return [self.draft(self.future(list(row.tokens))) for row in rows]

    def learn(self, outcomes: Sequence[Outcome], seconds: float) -> Sequence[Event]:
        assert seconds > 0
        for outcome in outcomes:
            assert 0 <= outcome.accepted <= outcome.drafted
            self.learned.append((outcome.drafted, outcome.accepted))
        return ()

    def future(self, tokens: list[int]) -> list[int]:
        """What comes next; something else where the row does not say what was foreseen."""
        for text in self.texts:
            if text[: len(tokens)] == tokens:
                return text[len(tokens) :][: self.longest]
        return [self.random.randrange(256) for _ in range(self.longest)]

    def token(self, right: int) -> int:
        wrong = (right + 1 + self.random.randrange(255)) % 257
        return right if self.random.random() < self.right else wrong

    def draft(self, future: list[int]) -> Draft:
        return Draft.chain([self.token(token) for token in future])


class Branching(Knowing):
    """A random tree of up to 24 nodes, in which the right path may stand beside wrong ones.

    Siblings may propose the same token, and the tree may be too large for the room.
    """

    name = "branching"

    def draft(self, future: list[int]) -> Draft:
        ids: list[int] = []
        parents: list[int] = []
        depths: list[int] = []
        for node in range(self.random.randint(0, 24)):
            parent = self.random.randrange(PENDING, node)
            depth = 0 if parent == PENDING else depths[parent] + 1
            right = future[depth] if depth < len(future) else 0
            ids.append(self.token(right))
            parents.append(parent)
            depths.append(depth)
        return Draft(tuple(ids), tuple(parents))


def all_drafters(texts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Always right, always wrong, neither, long, and as trees."""
    return {
        "right": Knowing(texts, 1.0),
        "wrong": Knowing(texts, 0.0),
        "half": Knowing(texts, 0.7, longest=30),
        "tree": Branching(texts, 0.8),
    }
