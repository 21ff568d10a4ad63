"""Log-likelihoods of given tokens: what the model would have said of them, read in few passes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparing.api import Engine
from sparing.engine.cache import Kind
from sparing.engine.loop import PREFILL_CHUNK
from sparing.engine.threads import with_few_threads
from sparing.errors import PromptTooLong
from sparing.model.inputs import RowInput


@dataclass(frozen=True)
class Scored:
    """Tokens, the last ``count`` of which are to be scored; those before are their context."""

    ids: tuple[int, ...]
    count: int

    def __post_init__(self) -> None:
        assert 0 < self.count < len(self.ids), (self.count, len(self.ids))


@dataclass(frozen=True)
class Likelihood:
    """``logprob``: the sum of the tokens' log-probabilities, at temperature 1.
    ``greedy``: whether each token is the likeliest one.
    """

    logprob: float
    greedy: bool


def likelihoods(
    engine: Engine, texts: Sequence[Scored], batch_size: int = 8, kv: str | None = None
) -> Iterator[tuple[int, Likelihood]]:
    """The index and the likelihood of each text, in the order in which they are done.

    A row of the cache takes in texts in the order of their tokens and keeps what a text has in
    common with the one before, as the same question with another answer. ``kv``: as ``Memory.kv``.
    Raises PromptTooLong, before anything runs, for a text beyond the model's context.
    """
    context = engine.decoder.shape.context
    longest = max((len(text.ids) - 1 for text in texts), default=0)
    if longest > context:
        raise PromptTooLong(
            f"tokens to be scored, with what is before them, must fit the context of {context} "
            f"tokens, got {longest}"
        )
    return Reader(engine, texts, min(batch_size, len(texts)), kv).read() if texts else iter(())


class Reader:
    """Reads texts in ``rows`` rows at a time."""

    def __init__(self, engine: Engine, texts: Sequence[Scored], rows: int, kv: str | None) -> None:
        self.decoder, self.texts = engine.decoder, texts
        longest = max(len(text.ids) - 1 for text in texts)
        self.cache = engine.cache(rows, 0, longest, None if kv == "auto" else kv)
        self.chunk = max(PREFILL_CHUNK // rows, 1)  # tokens of a row in a pass: logits are large
        order = sorted(range(len(texts)), key=lambda index: texts[index].ids)
        shares = [order[len(order) * r // rows : len(order) * (r + 1) // rows] for r in range(rows)]
        self.rows = [ReadRow(row, texts, share) for row, share in enumerate(shares)]

    def read(self) -> Iterator[tuple[int, Likelihood]]:
        while live := [row for row in self.rows if row.todo]:
            yield from self._pass(live)

    @with_few_threads
    @torch.inference_mode()
    def _pass(self, live: "Sequence[ReadRow]") -> list[tuple[int, Likelihood]]:
        """One pass over the live rows; returns what is done."""
        new = [row.inputs(self.chunk) for row in live]
        self.cache.reserve(max(i.cached + len(i.ids) for i in new))
        for i in new:
            self.cache.lengths[i.row] = i.cached
        output = self.decoder(new, self.cache)
        for i in new:
            self.cache.commit(i.row, range(len(i.ids)), i.positions, [Kind.PROMPT] * len(i.ids))
        parts = output.logits.split([i.scored for i in new])
        done = [row.take(i, part) for row, i, part in zip(live, new, parts, strict=True)]
        return [found for found in done if found]


class ReadRow:
    """A row of the cache, the texts that it has still to read, and the tokens that it holds."""

    def __init__(self, row: int, texts: Sequence[Scored], share: Sequence[int]) -> None:
        self.row, self.texts, self.todo = row, texts, list(share)
        self.held: list[int] = []
        self._begin()

    def _begin(self) -> None:
        """Turn to the next text: what it has in common with the last one is read already."""
        self.logprob, self.greedy = 0.0, True
        if self.todo:
            text = self.texts[self.todo[0]]
            context = len(text.ids) - text.count - 1  # the token behind it has the first logits
            del self.held[min(common(self.held, text.ids), context) :]

    def inputs(self, chunk: int) -> RowInput:
        text, cached = self.texts[self.todo[0]], len(self.held)
        last = min(cached + chunk, len(text.ids) - 1)
        scored = max(last - max(cached, len(text.ids) - text.count - 1), 0)
        ids, positions = list(text.ids[cached:last]), list(range(cached, last))
        return RowInput(self.row, cached, ids, positions, scored)

    def take(self, new: RowInput, logits: Tensor) -> tuple[int, Likelihood] | None:
        """Take in a pass's logits; the likelihood at the end of a text."""
        index, self.held = self.todo[0], [*self.held, *new.ids]
        text, end = self.texts[index], len(self.held)
        if new.scored:
            said = torch.tensor(text.ids[end + 1 - new.scored : end + 1], device=logits.device)
            logits = logits if logits.dtype == torch.float64 else logits.float()
            chosen = logits.gather(1, said[:, None])[:, 0] - logits.logsumexp(1)
            self.logprob += float(chosen.double().sum())
            self.greedy &= bool((logits.argmax(1) == said).all())
        if end < len(text.ids) - 1:
            return None
        found = Likelihood(self.logprob, self.greedy)
        self.todo.pop(0)
        self._begin()
        return index, found


def common(some: Sequence[int], others: Sequence[int]) -> int:
    """How many first tokens are the same."""
    pairs = enumerate(zip(some, others, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(some), len(others)))
