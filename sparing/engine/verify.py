"""Acceptance: a draft goes through the same states as plain decoding, token by token."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from sparing.engine.cache import Kind
from sparing.engine.draft import PENDING, Draft
from sparing.engine.events import LatentEvent, StepEvent, TokenEvent
from sparing.engine.filters import rows_of
from sparing.engine.latent_switch import Thought, ThoughtSwitch
from sparing.engine.sampling import Draw, best, draw
from sparing.engine.sums import likeliest
from sparing.engine.transcript import Transcript
from sparing.errors import ModelError
from sparing.model.devices import placed, read

PLACEHOLDER = 0  # the token id at a latent position; its embedding is never used


@dataclass
class Pending:
    """What a row's next pass takes in first: prompt tokens, the last picked token, or a thought."""

    ids: list[int]
    kind: Kind
    thought: Thought | None = None


@dataclass
class Accepted:
    """A row's step.

    ``pending``: what the next pass takes in first.
    ``path``: accepted nodes of the draft, in order.
    ``kinds``: of their slots.
    ``events``: of the picked tokens and latents.
    ``error``: what ended the row in this step; earlier picks stay.
    """

    pending: Pending
    path: list[int] = field(default_factory=list)
    kinds: list[Kind] = field(default_factory=list)
    events: list[StepEvent] = field(default_factory=list)
    error: Exception | None = None


class Predictions:
    """The model's distributions after each scored token of a pass.

    ``logits [M, V]``: without the ``masked`` token of each place, where it has one.
    ``hidden [M, E]``: states of the layer that the switches look at.
    ``argmax``: the likeliest token.
    ``confidence``: its probability at temperature 1, before any filter.
    ``top``: both, where the pass has computed them.
    ``drawn``: the token of each of ``draws``.
    """

    def __init__(
        self,
        logits: Float[Tensor, "M V"],
        hidden: Float[Tensor, "M E"],
        masked: Sequence[int | None] = (),
        top: tuple[Tensor, Tensor] | None = None,
        draws: Mapping[int, Draw] = MappingProxyType({}),
    ) -> None:
        if places := [at for at, token in enumerate(masked) if token is not None]:
            logits = without(logits, places, [token for token in masked if token is not None])
            top = None
        self.logits, self.hidden = logits, hidden
        argmax, confidence = likeliest(logits) if top is None else top
        columns = [argmax, confidence]
        if draws:
            tokens = argmax.clone()
            tokens[placed(list(draws), argmax.device)] = best(
                list(draws.values()), rows_of(logits, list(draws))
            )[:, 0]
            columns.append(tokens)
        self.argmax: list[int]
        self.confidence: list[float]
        self.argmax, self.confidence, *drawn = read(*columns)
        self.drawn = {at: drawn[0][at] for at in draws}

    def picked(self, at: int) -> tuple[int, bool] | None:
        """The token drawn for a place, if one was, and that it is not forced."""
        return (self.drawn[at], False) if at in self.drawn else None


def drawn_ahead(
    walked: Iterable[tuple[Transcript, Draft, int]], device: torch.device
) -> dict[int, Draw]:
    """What walks may draw, by place; of each its transcript, its draft, its pending token's place.

    None on the CPU, where a walk draws as it goes, since most of a draft is never reached. On
    another device it is cheaper to draw all than to wait for each.
    """
    if device.type == "cpu":
        return {}
    return {
        first + at: one
        for transcript, draft, first in walked
        for at, one in enumerate(transcript.draws((0, *draft.depths)))
    }


class Walk:
    """A row's way down its draft, as far as draft and model agree.

    Row ``first`` of the predictions follows the pending token, the next rows follow the draft's
    nodes. The walk ends at the first pick that no child proposes, at a latent step, or with the
    row: a stop, a limit or an end marker cuts there, even where the next drafted token matches.
    An exception ends this walk alone: ``done.error``.
    """

    def __init__(
        self,
        transcript: Transcript,
        draft: Draft,
        first: int,
        switch: ThoughtSwitch,
        predictions: Predictions,
    ) -> None:
        self.transcript, self.draft, self.predictions = transcript, draft, predictions
        self.first, self.switch = first, switch
        self.node, self.done = PENDING, Accepted(Pending([], Kind.ANSWER))
        self.goes_on = True

    @property
    def at(self) -> int:
        """The next prediction."""
        return self.first + 1 + self.node

    def step(self, token: int, forced: bool) -> None:
        """One more position, with ``token`` picked for it."""
        self.goes_on = False
        try:
            self._take(token, forced)
        except Exception as error:
            self.done.error = error

    def _take(self, token: int, forced: bool) -> None:
        transcript, done, predictions = self.transcript, self.done, self.predictions
        position = transcript.position
        confidence = checked(predictions.confidence[self.at], position)
        hidden, logits = predictions.hidden[self.at], predictions.logits[self.at]
        if not forced:
            thought = self.switch.think(hidden, logits, token, confidence, transcript.latents)
            if thought is not None:
                transcript.append_latent()
                done.events.append(LatentEvent(position, thought.top))
                done.pending = Pending([PLACEHOLDER], Kind.LATENT, thought)
                return
            if token == self.switch.token:
                [[token]] = draw([transcript.pick()], without(logits[None], [0], [token]))
        logprobs = transcript.logprobs(logits, token)
        text, kind = transcript.append(token)
        child = self.draft.child(self.node, token)
        origin = "forced" if forced else "model" if child is None else "draft"
        name = transcript.told(kind)
        event = TokenEvent(position, token, text, name, origin, confidence, logprobs=logprobs)
        done.events.append(event)
        if child is None or transcript.finish_reason is not None:
            done.pending = Pending([token], kind)
            return
        self.node = child
        done.path.append(child)
        done.kinds.append(kind)
        self.goes_on = True


def accept(walks: Sequence[Walk], predictions: Predictions) -> None:
    """Walk down the drafts of all rows, one position at a time. The tokens of a position are drawn
    together, and only where a draft leads."""
    while going := [walk for walk in walks if walk.goes_on]:
        for walk, pick in zip(going, picks(going, predictions), strict=True):
            walk.step(*pick)


def picks(walks: Sequence[Walk], predictions: Predictions) -> list[tuple[int, bool]]:
    """The next token of each walk, and whether it is forced."""
    settled = [
        walk.transcript.settled(predictions.argmax[walk.at]) or predictions.picked(walk.at)
        for walk in walks
    ]
    drawn = [walk for walk, pick in zip(walks, settled, strict=True) if pick is None]
    if not drawn:
        return [pick for pick in settled if pick]
    places = [walk.at for walk in drawn]
    draws = [walk.transcript.pick() for walk in drawn]
    tokens = iter(draw(draws, rows_of(predictions.logits, places)))
    return [pick or (next(tokens)[0], False) for pick in settled]


@torch.inference_mode()
def without(
    logits: Float[Tensor, "M V"], places: Sequence[int], tokens: Sequence[int]
) -> Float[Tensor, "M V"]:
    """The logits, with one token at minus infinity at each of the places."""
    logits = logits.clone()
    logits[placed(places, logits.device), placed(tokens, logits.device)] = float("-inf")
    return logits


def checked(confidence: float, position: int) -> float:
    """The confidence; raises ModelError where its logits are not finite."""
    if not 0 <= confidence <= 1.001:
        raise ModelError(
            f"logits must be finite, got NaN or infinity in the step that gives position "
            f"{position}; check the checkpoint, or load it with dtype float32"
        )
    return confidence
