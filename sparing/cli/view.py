"""A row on the terminal: its text as it comes, thoughts dimmed, and a status line below."""

import os
import sys
import time
from typing import TYPE_CHECKING, Any

from sparing.cli.terminal_text import TerminalText
from sparing.engine.events import (
    DoneEvent,
    Event,
    EvictEvent,
    LatentEvent,
    Stats,
    StepEvent,
    TokenEvent,
)

if TYPE_CHECKING:
    from sparing.engine.result import Result

REDRAWN_S = 0.05  # between two states of the last line
CUT = {
    "length": "it reached --max-new-tokens ({new_tokens}); raise that for more",
    "context": "the model's context is full",
    "budget": "nothing more could be evicted; raise --budget",
}


class LiveView:
    """Text goes to stdout. On a terminal finished lines scroll by, the last one and the status
    line are redrawn; elsewhere the bare text is written as it comes.

    ``slots``: of the row's budget; None without one.
    """

    def __init__(self, engine: Any, slots: int | None) -> None:
        self._dims = engine.chat.markers is not None
        self._slots = slots
        self._stats, self._cached = Stats(), 0
        self._started = time.perf_counter()
        live = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._text = TerminalText(sys.stdout) if live else None
        self._drawn, self._style = 0.0, ""

    def __enter__(self) -> "LiveView":
        if self._text:
            self._text.draw(" reading the prompt ")
        return self

    def __exit__(self, *_: object) -> None:
        if self._text:
            self._text.close()
        else:
            sys.stdout.write("\n")
            sys.stdout.flush()

    def show(self, event: Event) -> None:
        """Take one event in."""
        self._stats.add(event)
        if isinstance(event, StepEvent | EvictEvent):
            self._cached = event.slots
        if isinstance(event, TokenEvent):
            self._style = "2" if self._dims and event.kind == "thought" else ""
            self._write(event.text, self._style)
        elif isinstance(event, LatentEvent):
            if self._text:
                self._write(thought(event), "2;3")
        elif isinstance(event, DoneEvent):
            self._write(event.text, self._style)

    def _write(self, text: str, style: str) -> None:
        if self._text is None:
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        now = time.perf_counter()
        self._text.add(text, style)
        if now - self._drawn > REDRAWN_S:
            self._text.draw(self._status())
            self._drawn = now

    def _status(self) -> str:
        """tokens/s, KV bytes and slots against the budget, evictions, acceptance."""
        stats = self._stats
        rate = stats.new_tokens / (time.perf_counter() - self._started)
        parts = [
            f"{rate:.1f} tokens/s",
            f"KV {megabytes(stats.kv_bytes_peak)}, {of_budget(self._cached, self._slots)} in use",
            *([f"{stats.evictions} evictions"] if self._slots else []),
        ]
        return " " + " · ".join([*parts, *accepted(stats), *latents(stats)]) + " "


def thought(event: LatentEvent) -> str:
    """A latent step as the likeliest word that it stands for."""
    return f"~{' '.join(event.top[0][0].split())}" if event.top else "~"


def megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def of_budget(slots: int, budget: int | None) -> str:
    return f"{slots} slots" if budget is None else f"{slots} of {budget} slots"


def accepted(stats: Stats) -> list[str]:
    """How drafting fares, if there is any."""
    return [f"{stats.accepted} of {stats.drafted} drafted accepted"] if stats.drafted else []


def latents(stats: Stats) -> list[str]:
    """How many steps were thought without words, if any."""
    return [f"{stats.latent_tokens} latent steps"] if stats.latent_tokens else []


def evicted(stats: Stats, budget: int | None) -> list[str]:
    """What a budget did, if there is one."""
    if budget is None:
        return []
    if not stats.evictions:
        return ["budget never reached, nothing evicted"]
    return [f"{stats.evictions} evictions, {stats.evicted_tokens} tokens"]


def summary(result: "Result", budget: int | None = None) -> str:
    """One line over a whole answer; ``budget`` in slots."""
    stats = result.stats
    used = of_budget(stats.slots_peak, budget)
    parts = [
        f"{stats.new_tokens} tokens in {stats.seconds:.1f} s ({stats.tokens_per_second:.1f}/s)",
        f"KV {megabytes(stats.kv_bytes_peak)}, {used} at most ({stats.policy})",
        *evicted(stats, budget),
        *accepted(stats),
        *latents(stats),
        f"ended by {result.finish_reason}",
    ]
    return "[" + " · ".join(parts) + "]"


def cut(result: "Result", marks: bool) -> str | None:
    """What a limit cut off, and what to do; None where nothing was. ``marks``: thoughts are."""
    if (why := CUT.get(result.finish_reason)) is None:
        return None
    kinds = [event.kind for event in result.events if isinstance(event, TokenEvent)]
    thinking = marks and kinds[-1:] == ["thought"]
    what = "the thought was cut, there is no answer" if thinking else "the answer was cut"
    return f"{what}: {why.format(new_tokens=result.stats.new_tokens)}"
