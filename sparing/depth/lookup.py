"""Lookup: the text goes on as it did the last time (prompt lookup, Saxena 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from sparing.depth.ngram_cache import Guess, NgramCache
from sparing.engine.draft import Draft
from sparing.engine.drafter import BuiltInDrafter, Outcome
from sparing.engine.events import Event
from sparing.engine.row import Row


@dataclass
class LookupState:
    """What the drafter knows of a row.

    ``index``: of the row's own text.
    ``guess``: its last draft where that came from the n-gram cache, else None.
    ``cached``: how many of its tokens the n-gram cache has seen, the prompt among them.
    """

    index: "NgramIndex"
    guess: Guess | None = None
    cached: int = 0


class PromptLookup(BuiltInDrafter):
    """Continue as the text did the last time its last ``n`` tokens occurred.

    The longest match of ``most`` to ``least`` tokens wins. A draft that was accepted whole doubles
    the next one, any other halves it, between 1 and ``longest`` tokens. Where drafts of one token
    keep failing, more and more matches are passed over.

    ``cache``: n-grams of all requests, used where the row's own text has no match; None: no draft
    there.
    """

    name, label = "lookup", "text said before"

    def __init__(
        self, most: int = 4, least: int = 2, longest: int = 16, cache: NgramCache | None = None
    ) -> None:
        self.most, self.least, self.longest, self.cache = most, least, longest, cache
        self.draft_state: WeakKeyDictionary[Row, LookupState] = WeakKeyDictionary()

    def propose(self, rows: Sequence[Row], rooms: Sequence[int]) -> list[Draft]:
        return [
            self._propose(row, min(room, self.longest)) if room > 0 else Draft()
            for row, room in zip(rows, rooms, strict=True)
        ]

    def learn(self, outcomes: Sequence[Outcome], seconds: float) -> Sequence[Event]:
        for outcome in outcomes:
            state = self.draft_state.get(outcome.row)
            if state is None or not outcome.drafted:
                continue
            if state.guess and self.cache:
                self.cache.learn(state.guess, outcome.accepted)
            else:
                state.index.learn(outcome.drafted, outcome.accepted, self.longest)
        return ()

    def _propose(self, row: Row, room: int) -> Draft:
        state, tokens = self._state(row), row.tokens
        self._update_cache(state, tokens)
        start, state.guess = state.index.find(tokens), None
        if start is not None and not state.index.passes():
            return Draft.chain(tokens[start : start + min(room, state.index.length)])
        if self.cache is None:
            return Draft()
        state.guess = self.cache.guess(tokens, room)
        return Draft.chain(state.guess.ids)

    def _state(self, row: Row) -> LookupState:
        state = self.draft_state.get(row)
        if state is None:
            index = NgramIndex(self.most, self.least, self.longest // 2)
            state = self.draft_state[row] = LookupState(index)
            if self.cache:
                state.cached = row.transcript.question
        return state

    def _update_cache(self, state: LookupState, tokens: Sequence[int]) -> None:
        """Add the row's new tokens to the n-gram cache."""
        if self.cache:
            self.cache.add(tokens, len(tokens) - state.cached)
            state.cached = len(tokens)


class NgramIndex:
    """The latest continuation of each n-gram of a growing text; ``length``: of the next draft."""

    def __init__(self, most: int, least: int, length: int) -> None:
        self.sizes, self.length = range(most, least - 1, -1), max(length, 1)
        self._after: dict[tuple[int, ...], int] = {}
        self._known = 0
        self._patience = self._passed = 0  # matches to pass over, and passed since the last draft

    def find(self, tokens: Sequence[int]) -> int | None:
        """The offset behind the longest earlier match of the last tokens."""
        for end in range(self._known, len(tokens)):
            for size in self.sizes:
                if end >= size:
                    self._after[tuple(tokens[end - size : end])] = end
        self._known = len(tokens)
        for size in self.sizes:
            if len(tokens) >= size:
                found = self._after.get(tuple(tokens[-size:]))
                if found is not None:
                    return found
        return None

    def passes(self) -> bool:
        """Whether to let a match go by."""
        self._passed += 1
        return self._passed <= self._patience

    def learn(self, drafted: int, accepted: int, longest: int) -> None:
        """A draft's outcome decides the length of the next one, and how soon it comes."""
        self._passed = 0
        if accepted == drafted:
            self._patience = 0
            self.length = min(self.length * 2, longest)
        elif accepted or self.length > 1:
            self.length = max(self.length // 2, 1)
        else:
            self._patience = min(max(2 * self._patience, 1), longest)
