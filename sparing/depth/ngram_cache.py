"""What was said after the same few tokens the last time, in whatever request."""

from collections.abc import Sequence
from dataclasses import dataclass, field

MOST = 4  # tokens of a context
CAPACITY = 1 << 18  # contexts that are remembered
WORTH = 0.15  # chance to be right below which a token is not worth the verification
PACE = 0.02  # by which a rate follows what happens to it
RETURN = 0.005  # by which one that is too low to be tried comes back


@dataclass
class Guess:
    """Tokens, and how long the context was that each was found by."""

    ids: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)


class NgramCache:
    """An n-gram table with back-off that an engine fills with what it says and keeps between
    requests. Ours; close to token recycling (arXiv 2408.08696), which keeps likely successors of
    single tokens. What it remembers only ever decides what is verified, never what is said.

    ``rates``: of contexts of each size, how often they were right of late.
    """

    def __init__(self, most: int = MOST, capacity: int = CAPACITY) -> None:
        self.sizes, self.capacity = range(most, 0, -1), capacity
        self.rates = dict.fromkeys(self.sizes, 0.5)
        self._after: dict[tuple[int, ...], int] = {}

    def copy(self) -> "NgramCache":
        """One that goes on from here by itself."""
        other = NgramCache(self.sizes.start, self.capacity)
        other.rates, other._after = dict(self.rates), dict(self._after)
        return other

    def guess(self, tokens: Sequence[int], room: int) -> Guess:
        """How ``tokens`` may go on, as long as all of it is probable enough."""
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
        """How long its longest end is that was seen before; 0: none was."""
        fits = (size for size in self.sizes if size <= len(context))
        return next((size for size in fits if tuple(context[-size:]) in self._after), 0)

    def learn(self, guess: Guess, accepted: int) -> None:
        """How a guess fared: what came after its first mistake was never judged."""
        for at, size in enumerate(guess.sizes[: accepted + 1]):
            self.rates[size] += PACE * ((at < accepted) - self.rates[size])

    def add(self, tokens: Sequence[int], new: int) -> None:
        """Remember what the last ``new`` tokens came after; what has not been said for the longest
        time is forgotten first."""
        for end in range(max(len(tokens) - new, 1), len(tokens)):
            for size in self.sizes:
                if size <= end:
                    context = tuple(tokens[end - size : end])
                    self._after.pop(context, None)
                    self._after[context] = tokens[end]
        while len(self._after) > self.capacity:
            del self._after[next(iter(self._after))]
