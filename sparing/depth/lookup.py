"""Lookup: the text goes on as it did the last time (prompt lookup, Saxena 2023)."""

from collections.abc import Sequence

from sparing.depth.ngram_cache import Guess, NgramCache
from sparing.engine.drafting import Draft
from sparing.engine.events import Event
from sparing.engine.row import Row


class PromptLookup:
    """Continue as the text went on the last time its last ``n`` tokens stood there.

    Longest match of ``most`` to ``least`` tokens first. The draft doubles after one that was
    accepted whole and halves after one that was not; where drafts of one token keep failing, more
    and more matches are passed over. Between 1 and ``longest`` tokens.

    ``cache``: hear what is said, and are asked where there is no match; None: nothing is drafted
    there.
    """

    name = "lookup"

    def __init__(
        self, most: int = 4, least: int = 2, longest: int = 16, cache: NgramCache | None = None
    ) -> None:
        self.most, self.least, self.longest, self.cache = most, least, longest, cache

    def propose(self, rows: Sequence[Row], rooms: Sequence[int]) -> list[Draft]:
        return [self._propose(row, room) for row, room in zip(rows, rooms, strict=True)]

    def learn(self, row: Row, drafted: int, accepted: int) -> Sequence[Event]:
        guess = row.notes.pop("guess", None)
        if guess and self.cache:
            self.cache.learn(guess, accepted)
        elif drafted and self.name in row.notes:
            row.notes[self.name].learn(drafted, accepted, self.longest)
        return ()

    def _propose(self, row: Row, room: int) -> Draft:
        if room < 1:
            return Draft()
        index = row.notes.get(self.name)
        if index is None:
            index = row.notes[self.name] = NgramIndex(self.most, self.least, self.longest // 2)
        tokens, room = row.tokens, min(room, self.longest)
        self._update_cache(row)
        start = index.find(tokens)
        if start is not None and not index.passes():
            return Draft.chain(tokens[start : start + min(room, index.length)])
        guess = self.cache.guess(tokens, room) if self.cache else Guess()
        row.notes["guess"] = guess
        return Draft.chain(guess.ids)

    def _update_cache(self, row: Row) -> None:
        """Adds what the row has said since the last time."""
        if self.cache:
            cached = row.notes.get("cached", row.transcript.question)
            row.notes["cached"] = len(row.tokens)
            self.cache.add(row.tokens, len(row.tokens) - cached)


class NgramIndex:
    """Where each n-gram of a growing text last went on; ``length``: of the next draft."""

    def __init__(self, most: int, least: int, length: int) -> None:
        self.sizes, self.length = range(most, least - 1, -1), max(length, 1)
        self._after: dict[tuple[int, ...], int] = {}
        self._known = 0
        self._patience = self._passed = 0  # matches to pass over; passed since the last draft

    def find(self, tokens: Sequence[int]) -> int | None:
        """The offset that followed the longest earlier match of the last tokens."""
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
        """A draft's luck decides the next one's length, and how soon it comes."""
        self._passed = 0
        if accepted == drafted:
            self._patience = 0
            self.length = min(self.length * 2, longest)
        elif accepted or self.length > 1:
            self.length = max(self.length // 2, 1)
        else:
            self._patience = min(max(2 * self._patience, 1), longest)
