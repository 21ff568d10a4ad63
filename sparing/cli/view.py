"""A row on the terminal: its text as it comes, thoughts dimmed, and a status line below."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

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

REFRESHES_PER_S = 8


class LiveView:
    """Text goes to stdout. On a terminal finished lines scroll by, the last one and the status
    line are redrawn; elsewhere the bare text is written as it comes."""

    def __init__(self, engine: Any, budget: int | float | None) -> None:
        self._dims = engine.chat.markers is not None
        self._budget = budget
        self._console = Console(highlight=False, markup=False)
        self._stats, self._cached, self._line = Stats(), 0, Text()
        self._started = time.perf_counter()
        self._live = Live(
            console=self._console,
            refresh_per_second=REFRESHES_PER_S,
            get_renderable=self._render,
            transient=True,
        )

    def __enter__(self) -> "LiveView":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()
            self._console.print(self._line)
        else:
            sys.stdout.write("\n")
            sys.stdout.flush()

    def show(self, event: Event) -> None:
        """Take one event in."""
        self._stats.add(event)
        if isinstance(event, StepEvent | EvictEvent):
            self._cached = event.slots
        if isinstance(event, TokenEvent):
            self._write(event.text, "dim" if self._dims and event.kind == "thought" else "")
        elif isinstance(event, LatentEvent):
            if self._console.is_terminal:
                self._write(thought(event), "dim italic")
        elif isinstance(event, DoneEvent):
            self._write(event.text, "")

    def _write(self, text: str, style: str) -> None:
        if not self._console.is_terminal:
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        *finished, rest = text.split("\n")
        for line in finished:
            self._line.append(line, style)
            self._console.print(self._line)
            self._line = Text()
        self._line.append(rest, style)

    def _render(self) -> Group:
        return Group(self._line, Text(self._status(), style="reverse"))

    def _status(self) -> str:
        """tokens/s, KV bytes and slots against the budget, evictions, acceptance."""
        stats = self._stats
        rate = stats.new_tokens / (time.perf_counter() - self._started)
        of = f" of {self._budget}" if isinstance(self._budget, int) else ""
        parts = [
            f"{rate:.1f} tokens/s",
            f"KV {megabytes(stats.kv_bytes_peak)}, {self._cached}{of} slots in use",
            f"{stats.evictions} evictions",
        ]
        return " " + " · ".join([*parts, *accepted(stats), *latents(stats)]) + " "


def thought(event: LatentEvent) -> str:
    """A latent step as the likeliest word that it stands for."""
    return f"~{' '.join(event.top[0][0].split())}" if event.top else "~"


def megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def accepted(stats: Stats) -> list[str]:
    """How drafting fares, if there is any."""
    return [f"{stats.accepted} of {stats.drafted} drafted accepted"] if stats.drafted else []


def latents(stats: Stats) -> list[str]:
    """How many steps were thought without words, if any."""
    return [f"{stats.latent_tokens} latent steps"] if stats.latent_tokens else []


def summary(result: "Result") -> str:
    """One line over a whole answer."""
    stats = result.stats
    parts = [
        f"{stats.new_tokens} tokens in {stats.seconds:.1f} s ({stats.tokens_per_second:.1f}/s)",
        f"KV peak {megabytes(stats.kv_bytes_peak)} ({stats.policy})",
        f"{stats.evictions} evictions, {stats.evicted_tokens} tokens",
        *accepted(stats),
        *latents(stats),
        f"ended by {result.finish_reason}",
    ]
    return "[" + " · ".join(parts) + "]"
