"""The fastest drafter, by live measurement: ``draft=auto``."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparing.depth.search import LayerSearch
from sparing.engine.draft import Draft
from sparing.engine.drafter import BuiltInDrafter, Drafter, Outcome
from sparing.engine.events import Event
from sparing.engine.row import Row
from sparing.model.layer_set import LayerSet

TRIAL = 4  # steps
LOST = 0.005  # share of the time that trials of a slower drafter may lose, at each batch size
BETWEEN = 8  # least time from a trial to the next one, in trials
OWN_HALF_LIFE = 32  # steps of a drafter's own after which its record counts half
HALF_LIFE = 1024  # steps of any drafter


@dataclass
class Timing:
    """A drafter's record at one batch size.

    ``seconds``, ``tokens``: decaying sums over its steps.
    ``steps``: how many it had.
    ``due``: when its next trial starts, in seconds of decoding at this batch size.
    ``last``: the step of its last one.
    """

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
    """A drafter on trial for ``left`` more steps, and their yield so far."""

    left: int = TRIAL
    seconds: float = 0.0
    tokens: int = 0

    def add(self, seconds: float, tokens: int) -> None:
        self.left -= 1
        self.seconds += seconds
        self.tokens += tokens


class Record:
    """The timings of all drafters under the same options; the engine keeps it between requests.

    ``step``: steps counted so far.
    ``seconds``: of decoding, by batch size (``size_of``).
    """

    def __init__(self) -> None:
        self._timings: dict[tuple[str, LayerSet | None, int], Timing] = {}
        self.step, self.seconds = 0, defaultdict[int, float](float)

    @classmethod
    def of(cls, rows: Sequence[Sequence[Any]], layers: int) -> "Record":
        """Inverse of ``to_rows``, for a model with that many layers."""
        record = cls()
        for name, skipped, size, seconds, tokens, steps, due in rows:
            layer_set = None if skipped is None else LayerSet.named(layers, skipped)
            timing = Timing(float(seconds), float(tokens), int(steps), float(due))
            record._timings[str(name), layer_set, int(size)] = timing
        return record

    def to_rows(self) -> list[list[Any]]:
        """As JSON; ``due`` counts from now."""
        return [
            [name, layer_set and layer_set.names, size, timing.seconds, timing.tokens, timing.steps,
             max(timing.due - self.seconds[size], 0.0)]
            for (name, layer_set, size), timing in self._timings.items()
        ]  # fmt: skip

    def timing(self, name: str, layer_set: LayerSet | None, rows: int) -> Timing:
        """Of a drafter with a layer set, at a batch of ``rows``."""
        return self._timings.setdefault((name, layer_set, size_of(rows)), Timing())


def size_of(rows: int) -> int:
    """0, 1, 2, ... for up to 1, 2, 4, ... rows: the cost of a pass depends on it."""
    return (rows - 1).bit_length()


class AutoDrafter(BuiltInDrafter):
    """Asks the fastest drafter, and now and then another one for a short trial. A drafter that
    loses waits until its loss is ``LOST`` of the time. Ours; SWIFT always drafts.

    ``plain``: drafters that can always be asked; the first one while nothing is measured.
    ``layers``: drafters that skip layers, asked once the ``search`` has a set.
    """

    name, label = "auto", "the fastest of all"

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
        self._size, self._timings = size_of(len(rows)), self._candidates(len(rows))
        self._counts = not any(row.reading for row in rows)
        if self._counts or self._asked not in self._timings:
            self._asked = self._choose()
        return self._asked.propose(rows, rooms)

    def learn(self, outcomes: Sequence[Outcome], seconds: float) -> Sequence[Event]:
        if self._counts:
            tokens = sum(outcome.tokens for outcome in outcomes)
            self.record.step += 1
            self.record.seconds[self._size] += seconds
            self._timings[self._asked].add(seconds, tokens, self.record.step)
            if self._trial:
                self._trial.add(seconds, tokens)
        return self._asked.learn(outcomes, seconds)

    def _candidates(self, rows: int) -> dict[Drafter, Timing]:
        """The drafters that can be asked now."""
        layer_set = self.search.layer_set if self.search else None
        found = {d: self.record.timing(d.name, None, rows) for d in self.plain}
        if layer_set:
            found |= {d: self.record.timing(d.name, layer_set, rows) for d in self.layers}
        return found

    def _choose(self) -> Drafter:
        """The drafter on trial, the one whose trial is due, or the fastest."""
        timings = self._timings
        if self._trial and self._asked in timings:
            if self._trial.left:
                return self._asked
            self._judge(timings[self._asked], self._trial)
        self._trial = None
        fastest = max(timings, key=lambda drafter: timings[drafter].speed)
        if timings[fastest].steps < TRIAL:
            due = [fastest]
        else:
            now = self.record.seconds[self._size]
            due = [d for d in timings if d is not fastest and timings[d].due <= now]
        if not due:
            return fastest
        self._trial = Trial()
        return due[0]

    def _judge(self, timing: Timing, trial: Trial) -> None:
        """After a trial: its loss against the fastest decides when the next one is due."""
        if timing.steps < TRIAL:  # the batch size changed meanwhile
            return
        best = max(other.speed for other in self._timings.values() if other.steps >= TRIAL)
        lost = trial.seconds - trial.tokens / best
        timing.due = self.record.seconds[self._size] + max(lost / LOST, BETWEEN * trial.seconds)
