"""The decode loop: one step for all live rows; a slot for each method, by default none."""

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from torch import Tensor

from sparing.engine.cache import SlotCache
from sparing.engine.draft import Draft
from sparing.engine.drafter import Drafter, NoDrafter, Outcome
from sparing.engine.events import DoneEvent, Event, EvictEvent, ScoreEvent, TokenEvent
from sparing.engine.latent_switch import layer_of
from sparing.engine.row import Predictor, Request, Row
from sparing.engine.threads import with_few_threads
from sparing.engine.verify import Accepted, Predictions, Walk, accept, drawn_ahead
from sparing.errors import OptionError, message
from sparing.model.chat import ChatFormat
from sparing.model.inputs import Forward, Output, RowInput, scored, split

PREFILL_CHUNK = 256


class Loop:
    """Rows over one cache. ``admit`` and ``retire`` let them come and go between steps."""

    def __init__(
        self,
        decoder: Forward,
        chat: ChatFormat,
        cache: SlotCache,
        vocabulary: int,
        drafter: Drafter | None = None,
        predictor: Predictor | None = None,
        chunk: int = PREFILL_CHUNK,
    ) -> None:
        """``chunk``: prompt tokens that a row takes in per step."""
        self.decoder, self.chat, self.cache, self.vocabulary = decoder, chat, cache, vocabulary
        self.drafter, self.predictor = drafter or NoDrafter(), predictor
        self.chunk = chunk
        self.live: list[Row] = []

    @property
    def free_rows(self) -> list[int]:
        """Cache rows that a request can be admitted to."""
        taken = {row.index for row in self.live}
        return [index for index in range(self.cache.rows) if index not in taken]

    def admit(self, request: Request) -> Row:
        """Give a request a row; it takes part from the next step on."""
        if not self.free_rows:
            raise ValueError(f"a row must be free, got {len(self.live)} live; retire one first")
        if request.slots > self.cache.limit:
            raise ValueError(
                f"a request must fit the cache's {self.cache.limit} slots, got {request.slots}"
            )
        if request.kv not in (None, self.cache.stored):
            raise OptionError(
                f"kv must be {self.cache.stored}, as this cache stores it, got {request.kv}; "
                "leave it out"
            )
        row = Row(self.free_rows[0], request, self.chat, self.vocabulary)
        self.live = sorted([*self.live, row], key=lambda live: live.index)
        return row

    def retire(self, row: Row) -> None:
        """Take a row out, finished or not; its slots are free at once."""
        self.live.remove(row)
        self.cache.reset(row.index)

    def resize(self, rows: int, limit: int) -> None:
        """Make room for ``rows`` of up to ``limit`` slots; live ones move to the front."""
        self.cache.resize(rows, limit, [row.index for row in self.live])
        for index, row in enumerate(self.live):
            row.index = index

    @with_few_threads
    def step(self, rows: Sequence[Row] | None = None) -> list[Event]:
        """One pass of the full model over the live rows, or some of them; events row by row."""
        rows = list(self.live if rows is None else rows)
        if not rows:
            return []
        begun = time.perf_counter()
        drafts = self._propose(rows)
        new = self._inputs(rows, drafts)
        output = self.decoder(new, self.cache, layer=layer_of(row.switch for row in rows))
        accepted = self._accept(rows, drafts, new, output)
        self._commit(rows, new, accepted, output)
        evicted = [row.evict(self.cache) for row in rows]
        learned = self._learn(rows, drafts, accepted, time.perf_counter() - begun)
        return self._emit(rows, drafts, accepted, evicted, learned)

    def _propose(self, rows: Sequence[Row]) -> list[Draft]:
        """What each row verifies: forced tokens where there are any, else the drafter's."""
        begun = time.perf_counter()
        forced = [row.forced_draft() for row in rows]
        rooms = [row.draft_room(self.cache) for row in rows]
        free = [0 if must else room for must, room in zip(forced, rooms, strict=True)]
        drafts = self.drafter.propose(rows, free)
        seconds = time.perf_counter() - begun
        for row in rows:
            row.draft_time.draft += seconds
        return [
            (must or draft).cut(room)
            for must, draft, room in zip(forced, drafts, rooms, strict=True)
        ]

    def _inputs(self, rows: Sequence[Row], drafts: Sequence[Draft]) -> list[RowInput]:
        """The pass's new tokens, and slots for them."""
        new = [row.inputs(self.cache, d, self.chunk) for row, d in zip(rows, drafts, strict=True)]
        self.cache.reserve(max(i.cached + len(i.ids) for i in new))
        return new

    def _accept(
        self, rows: Sequence[Row], drafts: Sequence[Draft], new: Sequence[RowInput], output: Output
    ) -> list[Accepted | None]:
        """Each row's picks; None where it still reads its prompt."""
        hidden = output.hidden if output.layer_hidden is None else output.layer_hidden
        masked = [
            row.masked_token for row, i in zip(rows, new, strict=True) for _ in range(i.scored)
        ]
        firsts = accumulate((i.scored for i in new), initial=0)
        walked = {
            row: (row.transcript, draft, first)
            for row, draft, i, first in zip(rows, drafts, new, firsts, strict=False)
            if i.scored
        }
        draws = drawn_ahead(walked.values(), output.logits.device)
        predictions = Predictions(output.logits, scored(hidden, new), masked, output.top, draws)
        walks = {row: Walk(*walk, row.switch, predictions) for row, walk in walked.items()}
        accept(list(walks.values()), predictions)
        for row, walk in walks.items():
            if walk.done.error:
                row.fail(walk.done.error)
        return [walks[row].done if row in walks else None for row in rows]

    def _commit(
        self,
        rows: Sequence[Row],
        new: Sequence[RowInput],
        accepted: Sequence[Accepted | None],
        output: Output,
    ) -> None:
        """Put committed tokens and their predicted importance into the cache, nothing else."""
        none: list[Tensor | None] = [None] * len(rows)
        hidden = none if self.predictor is None else split(output.hidden, new)
        attention = output.attention or none
        for row, i, done, states, attended in zip(
            rows, new, accepted, hidden, attention, strict=True
        ):
            row.commit(self.cache, i, done, states, attended)
            if self.predictor is not None:
                row.score(self.cache, self.predictor)

    def _learn(
        self,
        rows: Sequence[Row],
        drafts: Sequence[Draft],
        accepted: Sequence[Accepted | None],
        seconds: float,
    ) -> Sequence[Event]:
        """Tell the drafter what became of its drafts; ``seconds``: of the step until here."""
        outcomes = [
            Outcome(row, draft.drafted, min(len(done.path), draft.drafted))
            for row, draft, done in zip(rows, drafts, accepted, strict=True)
            if done is not None
        ]
        if not outcomes:
            return ()
        begun = time.perf_counter()
        events = self.drafter.learn(outcomes, seconds)
        seconds = time.perf_counter() - begun
        for row in rows:
            row.draft_time.search += seconds
        return events

    def _emit(
        self,
        rows: Sequence[Row],
        drafts: Sequence[Draft],
        accepted: Sequence[Accepted | None],
        evicted: Sequence[list[int]],
        learned: Sequence[Event],
    ) -> list[Event]:
        """The events of the step, row by row; finished rows are retired."""
        events: list[Event] = []
        for row, draft, done, gone in zip(rows, drafts, accepted, evicted, strict=True):
            if done is None:
                continue
            events += self._said(row, draft, done, self.cache.lengths[row.index] + len(gone))
            events += [event for event in learned if event.row == row.request.tag]
            if gone:
                slots = self.cache.lengths[row.index]
                events.append(EvictEvent(gone, row.position, slots, row=row.request.tag))
            if row.transcript.finish_reason is not None:
                events.append(self.done(row))
                self.retire(row)
        return events

    def _said(self, row: Row, draft: Draft, done: Accepted, slots: int) -> list[Event]:
        """A row's tokens and latents, completed with what the loop knows.

        ``slots``: in use before an eviction.
        """
        scored, row.scored = row.scored, {}
        tag, kv_bytes = row.request.tag, self.cache.nbytes // self.cache.rows
        told: list[Event] = []
        for at, event in enumerate(done.events):
            more: dict[str, Any] = {"drafted": 0 if at else draft.drafted}
            if isinstance(event, TokenEvent):
                more["score"] = scored.pop(event.position, None)
            used = slots - len(done.path) + at
            told.append(replace(event, row=tag, kv_bytes=kv_bytes, slots=used, **more))
        return told + [ScoreEvent(position, score, row=tag) for position, score in scored.items()]

    def done(self, row: Row, *, interrupted: bool = False) -> DoneEvent:
        """The event that ends a row: finished, or interrupted by its reader."""
        return DoneEvent(
            "interrupted" if interrupted else str(row.transcript.finish_reason),
            text="" if interrupted else row.transcript.tail,
            seconds=time.perf_counter() - row.started,
            policy=row.request.policy.name if row.request.policy else "full",
            draft=self.drafter.name,
            draft_seconds=row.draft_time.draft,
            search_seconds=row.draft_time.search,
            slot_bytes=self.cache.slot_bytes,
            error=None if row.error is None else message(row.error),
            row=row.request.tag,
        )
