"""The latest continuation of short contexts, over all requests."""

from collections.abc import Sequence
from dataclasses import dataclass, field

MOST = 4  # tokens of a context
CAPACITY = 1 << 18  # contexts in memory
WORTH = 0.15  # chance of acceptance below which verification does not pay
PACE = 0.02  # step of a rate towards the latest outcome
RETURN = 0.005  # step of a rate towards a half while it is too low to be tried


@dataclass
class Guess:
    """Guessed tokens ``ids``, and for each the size of the context that it was found by."""

    ids: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)


class NgramCache:
    """An n-gram table with back-off, filled with an engine's output and kept between requests. It
    decides what is verified, never what is said. Ours; close to token recycling (arXiv 2408.08696),
    which keeps likely successors of single tokens.

    ``rates``: recent share of right guesses, by context size.
    """

    def __init__(self, most: int = MOST, capacity: int = CAPACITY) -> None:
        self.sizes, self.capacity = range(most, 0, -1), capacity
        self.rates = dict.fromkeys(self.sizes, 0.5)
        self._after: dict[tuple[int, ...], int] = {}

    def copy(self) -> "NgramCache":
        """An independent copy."""
        other = NgramCache(self.sizes.start, self.capacity)
        other.rates, other._after = dict(self.rates), dict(self._after)
        return other

    def guess(self, tokens: Sequence[int], room: int) -> Guess:
        """A continuation of ``tokens``, as long as the whole of it is probable enough."""
        context, found, chance = list(tokens[-self.sizes.start :]), Guess(), 1.0
        while len(found.ids) < room:
            size = self._known(context)
            if not size:
                break
            chance *= self.rates[size]
            if chance < WORTH:
                self.rates[size] += RETURN * (0.5 - self.rates[size])
                break
            context.append(self._after[tuple(context[-size:])])
            found.ids.append(context[-1])
            found.sizes.append(size)
        return found

    def _known(self, context: Sequence[int]) -> int:
        """The size of the longest known suffix; 0 for none."""
        fits = (size for size in self.sizes if size <= len(context))
        return next((size for size in fits if tuple(context[-size:]) in self._after), 0)

    def learn(self, guess: Guess, accepted: int) -> None:
        """The outcome of a guess; tokens behind its first mistake were not judged."""
        for at, size in enumerate(guess.sizes[: accepted + 1]):
            self.rates[size] += PACE * ((at < accepted) - self.rates[size])

    def add(self, tokens: Sequence[int], new: int) -> None:
        """Remember the contexts of the last ``new`` tokens; the least recent ones are forgotten."""
        for end in range(max(len(tokens) - new, 1), len(tokens)):
            for size in self.sizes:
                if size <= end:
                    context = tuple(tokens[end - size : end])
                    self._after.pop(context, None)
                    self._after[context] = tokens[end]
        while len(self._after) > self.capacity:
            del self._after[next(iter(self._after))]
