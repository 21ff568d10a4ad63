"""Which drafter is fastest, by live measurement: ``draft=auto``."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparing.depth.search import LayerSearch
from sparing.engine.drafting import Draft, Drafter
from sparing.engine.events import Event
from sparing.engine.row import Row
from sparing.model.layer_set import LayerSet

TRIAL = 4  # steps
LOST = 0.005  # of the time with as many rows, at most, by the trials of a slower drafter
BETWEEN = 8  # trials' time, at least, from a trial to the next one
OWN_HALF_LIFE = 32  # steps of its own after which what a drafter has shown counts half
HALF_LIFE = 1024  # steps of any drafter


@dataclass
class Timing:
    """One drafter's record for a number of rows. ``due``: the second, of those that the record has
    counted with as many rows, of its next trial; ``last``: the step of its last one."""

    seconds: float = 0.0
    tokens: float = 0.0
    steps: int = 0
    due: float = 0.0
    last: int = 0

    @property
    def speed(self) -> float:
        """Tokens a second; infinite before its first trial."""
        return self.tokens / self.seconds if self.steps >= TRIAL else float("inf")

    def add(self, seconds: float, tokens: int, now: int) -> None:
        keep = 0.5 ** (1 / OWN_HALF_LIFE + (now - self.last - 1) / HALF_LIFE)
        self.seconds, self.tokens = self.seconds * keep + seconds, self.tokens * keep + tokens
        self.steps, self.last = self.steps + 1, now


@dataclass
class Trial:
    """A drafter that is asked for ``left`` more steps, and what they have brought."""

    left: int = TRIAL
    seconds: float = 0.0
    tokens: int = 0

    def add(self, seconds: float, tokens: int) -> None:
        self.left -= 1
        self.seconds += seconds
        self.tokens += tokens


class Record:
    """What guards have measured under the same options: it stays with the engine, so that the next
    request starts warm. ``step``: how many were counted; ``seconds``: by the size of the rows."""

    def __init__(self) -> None:
        self._arms: dict[tuple[str, LayerSet | None, int], Timing] = {}
        self.step, self.seconds = 0, defaultdict[int, float](float)

    @classmethod
    def of(cls, rows: Sequence[Sequence[Any]], layers: int) -> "Record":
        """From ``to_rows``, for a model of so many layers."""
        record = cls()
        for name, skipped, size, seconds, tokens, steps, due in rows:
            layer_set = None if skipped is None else LayerSet.named(layers, skipped)
            arm = Timing(float(seconds), float(tokens), int(steps), float(due))
            record._arms[str(name), layer_set, int(size)] = arm
        return record

    def to_rows(self) -> list[list[Any]]:
        """As JSON, what is due counted from now."""
        return [
            [name, layer_set and layer_set.names, size, arm.seconds, arm.tokens, arm.steps,
             max(arm.due - self.seconds[size], 0.0)]
            for (name, layer_set, size), arm in self._arms.items()
        ]  # fmt: skip

    def arm(self, name: str, layer_set: LayerSet | None, rows: int) -> Timing:
        """With that layer set, for so many rows."""
        return self._arms.setdefault((name, layer_set, size_of(rows)), Timing())


def size_of(rows: int) -> int:
    """0, 1, 2, ... for up to 1, 2, 4, ... rows, on which a pass's cost depends."""
    return (rows - 1).bit_length()


class AutoDrafter:
    """Asks the drafter that has been the fastest, and now and then another for a short trial; one
    that loses waits until what it lost is ``LOST`` of the time. Ours; SWIFT always drafts.

    ``plain`` drafters are always there, the first where nothing is known; those that skip
    ``layers`` once the ``search`` has a set. A step counts from the question for drafts to the last
    row's outcome, whatever its reader does in between steps.
    """

    name = "auto"

    def __init__(
        self,
        record: Record,
        plain: Sequence[Drafter],
        layers: Sequence[Drafter] = (),
        search: LayerSearch | None = None,
    ) -> None:
        self.record, self.plain, self.layers, self.search = record, plain, layers, search
        self._asked = plain[0]
        self._trial: Trial | None = None

    def propose(self, rows: Sequence[Row], rooms: Sequence[int]) -> list[Draft]:
        self._size, self._arms = size_of(len(rows)), self._known(len(rows))
        self._counts = not any(row.reading for row in rows)
        if self._counts or self._asked not in self._arms:
            self._asked = self._choose()
        self._tokens, self._waiting = 0, len(rows)
        self._begun = time.perf_counter()
        return self._asked.propose(rows, rooms)

    def learn(self, row: Row, drafted: int, accepted: int) -> Sequence[Event]:
        told = self._asked.learn(row, drafted, accepted)
        self._tokens += accepted + 1
        self._waiting -= 1
        if self._counts and not self._waiting:
            seconds = time.perf_counter() - self._begun
            self.record.step += 1
            self.record.seconds[self._size] += seconds
            self._arms[self._asked].add(seconds, self._tokens, self.record.step)
            if self._trial:
                self._trial.add(seconds, self._tokens)
        return told

    def _known(self, rows: int) -> dict[Drafter, Timing]:
        """The drafters that can be asked now."""
        layer_set = self.search.layer_set if self.search else None
        arms = {drafter: self.record.arm(drafter.name, None, rows) for drafter in self.plain}
        if layer_set:
            more = {d: self.record.arm(d.name, layer_set, rows) for d in self.layers}
            arms |= more
        return arms

    def _choose(self) -> Drafter:
        """The one on trial, the one whose trial is due, or the fastest."""
        arms = self._arms
        if self._trial and self._asked in arms:
            if self._trial.left:
                return self._asked
            self._judge(arms[self._asked], self._trial)
        self._trial = None
        fastest = max(arms, key=lambda drafter: arms[drafter].speed)
        if arms[fastest].steps < TRIAL:
            due = [fastest]
        else:
            now = self.record.seconds[self._size]
            due = [d for d in arms if d is not fastest and arms[d].due <= now]
        if not due:
            return fastest
        self._trial = Trial()
        return due[0]

    def _judge(self, arm: Timing, trial: Trial) -> None:
        """After a trial: when the next one is due, by what this one lost against the fastest."""
        if arm.steps < TRIAL:  # rows came or went meanwhile
            return
        best = max(other.speed for other in self._arms.values() if other.steps >= TRIAL)
        lost = trial.seconds - trial.tokens / best
        arm.due = self.record.seconds[self._size] + max(lost / LOST, BETWEEN * trial.seconds)
