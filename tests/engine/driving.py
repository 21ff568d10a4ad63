"""Run a Loop with parts that the options do not offer: other drafters, switches, predictors."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from sparing.api import Engine, each
from sparing.engine.events import Event
from sparing.engine.eviction import EvictionPolicy
from sparing.engine.latent_switch import ThoughtSwitch
from sparing.engine.loop import Loop
from sparing.engine.result import Result
from sparing.engine.run import Run, results_of
from sparing.model.inputs import Output, RowInput
from sparing.options import Depth, Latent, Sampling


def greedy(count: int, **more: Any) -> Sampling:
    """So many tokens, whatever they are."""
    return Sampling(max_new_tokens=count, temperature=0.0, ignore_eos=True, **more)


def run(
    engine: Engine,
    prompts: Sequence[Any],
    sampling: Any,
    memory: Any = None,
    *,
    batch_size: int = 8,
    policy: EvictionPolicy | None = None,
    switch: ThoughtSwitch | None = None,
    depth: Depth | None = None,
    latent: Latent | None = None,
    **parts: Any,
) -> list[Result]:
    """As ``Engine.generate``, the cache checked throughout; ``parts`` are set on the Loop.

    ``policy`` replaces the one of every row that has a budget, ``switch`` every row's.
    """
    options = zip(prompts, each(memory, prompts), each(sampling, prompts), strict=True)
    requests = [
        engine.request(p, m, latent=latent, sampling=s, tag=tag)
        for tag, (p, m, s) in enumerate(options)
    ]
    if policy is not None:
        requests = [replace(request, policy=policy) for request in requests]
    if switch is not None:
        requests = [replace(request, switch=switch) for request in requests]
    loop = engine.loop(requests, depth, batch_size)
    for name, part in parts.items():
        assert hasattr(loop, name)
        setattr(loop, name, part)
    running = Run(loop, requests)
    events: list[list[Event]] = [[] for _ in requests]
    for event in running:
        loop.cache.check()
        events[event.row].append(event)
    return finished(loop, running.rows, events)


def finished(loop: Loop, rows: Sequence[Any], events: Sequence[list[Event]]) -> list[Result]:
    """The results of rows, and an empty loop behind them."""
    assert not loop.live
    assert loop.cache.lengths == [0] * loop.cache.rows
    return results_of(rows, events)


def said(result: Result) -> dict[str, Any]:
    """All of a result that neither drafts nor other rows may change."""
    drafting = ("origin", "drafted", "kv_bytes", "seconds", "draft", "row", "confidence")
    timing = ("draft_seconds", "search_seconds", "score")  # scores: told sooner or later
    events = [
        {k: v for k, v in event.to_dict().items() if k not in drafting + timing}
        for event in result.events
        if event.type not in ("layers", "score")
    ]
    names = ("token_ids", "text", "thinking", "answer", "finish_reason")
    return {name: getattr(result, name) for name in names} | {"events": events}


class Recorder:
    """A decoder that keeps what went in and which logits came out, pass by pass."""

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder
        self.passes: list[tuple[list[RowInput], Tensor]] = []

    def __call__(self, inputs: Sequence[RowInput], cache: Any, *args: Any, **more: Any) -> Output:
        output = self.decoder(inputs, cache, *args, **more)
        self.passes.append((list(inputs), output.logits.clone()))
        return output

    def logits_along(self, tokens: Sequence[int], index: int = 0) -> dict[int, Tensor]:
        """Position -> logits after it, of the nodes whose ancestors all stand in ``tokens``.

        ``index``: of their row in the cache, which no other row may have had; what was drafted and
        rejected is left out.
        """
        found: dict[int, Tensor] = {}
        of_rows = (pair for p in self.passes for pair in zip(p[0], self._dealt(*p), strict=True))
        for i, logits in of_rows:
            if i.row != index:
                continue
            count = len(i.ids)
            for row, t in zip(logits, range(count - i.scored, count), strict=True):
                before = range(t + 1) if i.ancestors is None else i.ancestors[t].nonzero()[:, 0]
                if all(tokens[i.positions[b] : i.positions[b] + 1] == [i.ids[b]] for b in before):
                    found[i.positions[t]] = row
        return found

    @staticmethod
    def _dealt(inputs: Sequence[RowInput], logits: Tensor) -> Sequence[Tensor]:
        return logits.split([i.scored for i in inputs])
