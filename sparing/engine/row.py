"""A row: one prompt being answered, from admission to its end."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sparing.engine.cache import Kind, SlotCache
from sparing.engine.draft import Draft
from sparing.engine.drafter import DraftTime
from sparing.engine.eviction import (
    NO_TOKEN,
    AttentionRecord,
    Budget,
    EvictionPolicy,
    SlotView,
    scores_of,
    select,
)
from sparing.engine.latent_switch import NoSwitch, ThoughtSwitch
from sparing.engine.sampling import Sampler
from sparing.engine.transcript import Limits, Transcript
from sparing.engine.unscored import Unscored
from sparing.engine.verify import Accepted, Pending
from sparing.model.chat import ChatFormat, Prompt
from sparing.model.devices import chosen
from sparing.model.inputs import RowInput

Predictor = Callable[[Float[Tensor, "N E"]], Float[Tensor, "N K"]]


@dataclass(frozen=True)
class Request:
    """A prompt and its options, resolved for the model.

    ``budget``, ``policy``: the two halves of ``Memory``; None keeps everything.
    ``tag``: marks its events.
    ``switch``: when to think a latent step. Those of a model share token and layer.
    ``kv``: how keys and values must be stored; None: as the cache stores them.
    """

    prompt: Prompt
    sampler: Sampler
    limits: Limits
    budget: Budget | None = None
    policy: EvictionPolicy | None = None
    tag: int = 0
    switch: ThoughtSwitch = field(default_factory=NoSwitch)
    kv: str | None = None

    @property
    def slots(self) -> int:
        """The most slots that it can use."""
        whole = min(len(self.prompt.ids) + self.limits.max_new_tokens, self.limits.context)
        return whole if self.budget is None else min(whole, self.budget.slots)


class Row:
    """A live row.

    ``index``: its row in the cache.
    ``switch``: its request's.
    ``pending``: what the next pass takes in first.
    ``position``: of the first pending token.
    ``last_eviction``: no eviction since this position.
    ``watched``: attention, where the policy needs it.
    ``vectors``: input vectors of latents, by position.
    ``scored``: scores to be sent, by position.
    ``error``: what ended the row, where something went wrong.
    """

    def __init__(self, index: int, request: Request, chat: ChatFormat, vocabulary: int) -> None:
        self.index, self.request, self.switch = index, request, request.switch
        self.transcript = Transcript(
            chat, request.prompt, request.sampler, request.limits, vocabulary
        )
        self.pending = Pending(list(request.prompt.ids), Kind.PROMPT)
        self.position = 0
        self.last_eviction = len(request.prompt.ids)
        self.draft_time = DraftTime()
        watches = request.policy.watches if request.policy else 0
        self.watched = AttentionRecord(watches) if watches else None
        self.vectors: dict[int, Tensor] = {}
        self._ids: list[int] = []  # by position; NO_TOKEN for a latent
        self._unscored = Unscored()
        self.scored: dict[int, float] = {}
        self.error: Exception | None = None
        self.started = time.perf_counter()

    @property
    def tokens(self) -> Sequence[int]:
        """Prompt and output."""
        return self.transcript.tokens

    @property
    def latent_token(self) -> int | None:
        """The token of a latent step, which the row never says."""
        return self.switch.token

    @property
    def masked_token(self) -> int | None:
        """The same token where it may not even be picked."""
        return self.switch.token if self.switch.silent else None

    @property
    def greedy(self) -> bool:
        """Whether each token is the argmax of the bare logits."""
        return self.request.sampler.is_argmax

    @property
    def sampled(self) -> bool:
        """Whether tokens are drawn."""
        return self.request.sampler.temperature > 0

    @property
    def reading(self) -> bool:
        """Whether the prompt is still being read."""
        return self.pending.kind == Kind.PROMPT

    def id_at(self, position: int) -> int:
        """The token at a position, committed or pending; ``NO_TOKEN`` for a latent."""
        if position < len(self._ids):
            return self._ids[position]
        return NO_TOKEN if self.pending.thought else self.pending.ids[position - len(self._ids)]

    def forced_draft(self) -> Draft:
        """The tokens that must come next, as a draft that is always accepted."""
        return Draft() if self.reading else Draft.chain(self.transcript.forced, forced=True)

    def draft_room(self, cache: SlotCache) -> int:
        """The most nodes of a draft: free slots before an eviction, tokens to come."""
        if self.reading:
            return 0
        slots = min(cache.limit, self.request.slots)
        free = slots - cache.lengths[self.index] - len(self.pending.ids)
        return max(min(free, self.transcript.room - 1), 0)

    def inputs(self, cache: SlotCache, draft: Draft, chunk: int) -> RowInput:
        """New tokens of the next pass: a chunk of the prompt, or the pending token and a draft."""
        ids = self.pending.ids[:chunk]
        last = self.position + len(ids) - 1
        whole = len(ids) == len(self.pending.ids)
        return RowInput(
            row=self.index,
            cached=cache.lengths[self.index],
            ids=[*ids, *draft.ids],
            positions=[*range(self.position, last + 1), *(last + d for d in draft.depths)],
            scored=1 + len(draft) if whole else 0,
            ancestors=draft.ancestors(len(ids)),
            vectors={0: self.pending.thought.vector} if self.pending.thought else {},
            attended=1 + len(draft) if self.watched and not self.reading else 0,
        )

    def commit(
        self,
        cache: SlotCache,
        new: RowInput,
        accepted: Accepted | None,
        hidden: Float[Tensor, "T E"] | None = None,
        attention: Float[Tensor, "m S"] | None = None,
    ) -> None:
        """Put the pending tokens and the accepted path into the cache; roll the rest back.

        ``accepted``: None for a chunk that leaves some of the prompt to read.
        ``hidden``: states of the new tokens, for the predictor.
        ``attention``: of the attended tokens.
        """
        taken = len(new.ids) if accepted is None else len(new.ids) - new.scored + 1
        path, kinds = (accepted.path, accepted.kinds) if accepted else ([], [])
        offsets = [*range(taken), *(taken + node for node in path)]
        positions = [new.positions[offset] for offset in offsets]
        cache.commit(self.index, offsets, positions, [self.pending.kind] * taken + kinds)
        if hidden is not None:
            self._unscored.add(positions, chosen(hidden, offsets))
        taken_ids = [new.ids[offset] for offset in offsets]
        if self.pending.thought:
            self.vectors[self.position] = self.pending.thought.vector
        self._ids += [NO_TOKEN] * taken if self.pending.thought else taken_ids[:taken]
        self._ids += taken_ids[taken:]
        if self.watched and new.attended and attention is not None:
            slots = [*range(new.cached), *(new.cached + offset for offset in offsets)]
            queries = [offset - len(new.ids) + new.attended for offset in offsets]
            self.watched.add(chosen(chosen(attention, queries).T, slots).T)
        self.position = positions[-1] + 1
        rest = Pending(self.pending.ids[taken:], self.pending.kind)
        self.pending = accepted.pending if accepted else rest

    def score(self, cache: SlotCache, predictor: Predictor) -> None:
        """Put predicted importance into the cache, a group of tokens at a time; before an eviction
        and at the row's end all of them."""
        if self.error:
            return
        last = self.transcript.finish_reason is not None or self._full(cache)
        slot = cache.lengths[self.index] - len(self._unscored)
        for positions, hidden in self._unscored.groups(all_of_them=last):
            scores = predictor(hidden).double().cpu().numpy()
            cache.scores[self.index, slot : slot + len(positions)] = scores
            slot += len(positions)
            told = zip(positions, scores[:, 0].tolist(), strict=True)
            self.scored |= {at: value for at, value in told if at >= self.transcript.question}

    def fail(self, error: Exception) -> None:
        """End this row alone. Text held back is lost."""
        self.error, self.transcript.finish_reason = error, "error"

    def evict(self, cache: SlotCache) -> list[int]:
        """Free slots if the row goes on and its budget is reached; returns their positions.

        The row ends where no slot can be freed, or its policy fails.
        """
        request = self.request
        if self.transcript.finish_reason is not None or not self._full(cache):
            return []
        assert request.budget is not None
        assert request.policy is not None
        view = self._view(cache)
        try:
            scores = scores_of(request.policy, view)
        except Exception as error:
            self.fail(error)
            return []
        keep = select(scores, view.kinds, request.budget)
        if keep is None:
            self.transcript.end("budget")
            return []
        if self.watched:
            self.watched.keep(keep)
        self.last_eviction = self.position
        return cache.evict(self.index, keep)

    def _full(self, cache: SlotCache) -> bool:
        """Whether the budget is reached."""
        budget = self.request.budget if self.request.policy else None
        return budget is not None and cache.lengths[self.index] >= budget.slots

    def _view(self, cache: SlotCache) -> SlotView:
        """The slots in use, as policies see them."""
        length = cache.lengths[self.index]
        positions, kinds, scores = (
            values[self.index, :length] for values in (cache.positions, cache.kinds, cache.scores)
        )
        return SlotView(
            positions=positions,
            kinds=kinds,
            ids=np.array(self._ids)[positions],
            scores=scores,
            seed=self.request.sampler.seed,
            keys=cache.row_keys(self.index),
            attention=self.watched,
        )
