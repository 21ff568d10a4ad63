"""Thinking traces of a frozen model, with inputs and targets of its importance predictor.

Traces lie in shards of a few dozen questions, each written whole: an interrupted run resumes with
the missing shards, and several processes share them.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sparing.engine.events import LatentEvent, TokenEvent
from sparing.engine.eviction import NO_TOKEN
from sparing.engine.latent_switch import Thinks
from sparing.engine.result import Result
from sparing.errors import OptionError, reason
from sparing.files import write_atomically
from sparing.memory.targets import TARGETS, Importance, importance
from sparing.tasks.held_out import is_held_out
from sparing.tasks.problem import Problem

SHARD = 32  # questions
LEAST_THINKING = 8  # tokens; a shorter thought has nothing to rank
LENGTHS = "lengths"
Sample = Callable[[Sequence[Problem]], list[Result]]
MakeShards = Callable[[Sequence[int]], Iterable[tuple[int, bytes]]]  # by their indices


@dataclass(frozen=True)
class TraceSource:
    """The questions of a run, and the functions that make a trace of each.

    ``sample``: answers questions.
    ``accept``: whether to keep an answer.
    ``horizons``: as in ``targets.importance``.
    ``thinks``: makes latents, for a model that has them.
    ``marked``: whether thoughts are marked; else all text counts as one.
    """

    problems: Sequence[Problem]
    sample: Sample
    accept: Callable[[Problem, Result], bool]
    decoder: Any
    horizons: Sequence[int]
    thinks: Thinks | None = None
    marked: bool = True

    @property
    def shards(self) -> int:
        return -(-len(self.problems) // SHARD)

    def shard(self, index: int) -> bytes:
        """A shard's bytes: its questions are answered, and the importance of thoughts measured."""
        problems = self.problems[index * SHARD : (index + 1) * SHARD]
        results = self.sample(problems)
        pairs = zip(problems, results, strict=True)
        kept = [(p, r) for p, r in pairs if self._long(r) and self.accept(p, r)]
        measured = [self._measure(result) for _, result in kept]
        told = {
            "sampled": len(problems),
            "horizons": list(self.horizons),
            "traces": [[p.task, p.id, len(steps(r))] for p, r in kept],
        }
        return save(packed(measured), {"told": json.dumps(told)})

    def _long(self, result: Result) -> bool:
        return thought(result, self.marked) >= LEAST_THINKING

    def _measure(self, result: Result) -> Importance:
        begin = len(result.prompt_token_ids)
        end = begin + thought(result, self.marked)
        return importance(
            self.decoder, positions(result), begin, end, self.horizons, thinks=self.thinks
        )


def positions(result: Result) -> list[int]:
    """The token at every position of prompt and output; ``NO_TOKEN`` for a latent."""
    said = [NO_TOKEN if isinstance(e, LatentEvent) else e.id for e in steps(result)]
    return [*result.prompt_token_ids, *said]


def thought(result: Result, marked: bool = True) -> int:
    """Length of the first thought, with its latents and its end marker; of all text where thoughts
    are not ``marked``."""
    said = steps(result)
    answers = (at for at, e in enumerate(said) if isinstance(e, TokenEvent) and e.kind == "answer")
    return next(answers, len(said)) if marked else len(said)


def steps(result: Result) -> list[TokenEvent | LatentEvent]:
    """The events of a result's positions, in order."""
    return [event for event in result.events if isinstance(event, TokenEvent | LatentEvent)]


def packed(measured: Sequence[Importance]) -> dict[str, Tensor]:
    """Concatenated traces: ``hidden [N, E]``, each target ``[N, K]``, and their lengths."""
    if not measured:
        return {LENGTHS: torch.zeros(0, dtype=torch.long)}
    tensors = {name: torch.cat([m.target(name) for m in measured]).float() for name in TARGETS}
    tensors["hidden"] = torch.cat([m.hidden for m in measured])
    tensors[LENGTHS] = torch.tensor([len(m.hidden) for m in measured])
    return tensors


def shard_path(folder: Path, index: int) -> Path:
    return folder / f"shard-{index:05d}.safetensors"


def collect(
    asked: TraceSource,
    folder: Path,
    process: int = 0,
    processes: int = 1,
    on_shard: Callable[[int], None] = lambda done: None,
) -> None:
    """Write this process's missing shards into ``folder``."""
    for index in range(process, asked.shards, processes):
        path = shard_path(folder, index)
        if not path.exists():
            write_atomically(path, asked.shard(index))
        on_shard(index + 1)


def collect_elsewhere(
    make: MakeShards, shards: int, folder: Path, on_shard: Callable[[int], None]
) -> None:
    """Write the missing ones of so many shards into ``folder``; ``make`` may give them in any
    order."""
    missing = [index for index in range(shards) if not shard_path(folder, index).exists()]
    for done, (index, content) in enumerate(make(missing), 1 + shards - len(missing)):
        write_atomically(shard_path(folder, index), content)
        on_shard(done)


@dataclass(frozen=True)
class TraceRef:
    """A trace in a shard, read on demand.

    ``file``, ``start``: where it lies.
    ``length``: of its thinking.
    ``task``, ``id``: of its question.
    ``generated``: tokens of thinking and answer.
    """

    file: Any
    start: int
    length: int
    task: str
    id: int
    generated: int

    def seen(self, horizons: Sequence[int]) -> Bool[Tensor, "T K"]:
        """Whether a token has later positions beyond each horizon. Without any its target is
        unknown: no eviction met it at that age."""
        later = self.generated - 1 - torch.arange(self.length)
        return later[:, None] > torch.tensor(horizons)

    def read(self, name: str) -> Tensor:
        """``hidden [T, E]``, or a target ``[T, K]``, in float32."""
        return self.file.get_slice(name)[self.start : self.start + self.length].float()


class TraceSet:
    """All traces of a folder; they stay on disk until read.

    ``train``, ``held_out``: a split by question; every tenth one is held out.
    ``horizons``: columns of the future targets.
    """

    def __init__(self, folder: Path, shards: int) -> None:
        """Raises OptionError where a shard is missing or broken."""
        self.sampled, self.horizons = 0, (0,)
        self.traces: list[TraceRef] = []
        for index in range(shards):
            self._open(shard_path(folder, index))

    def _open(self, path: Path) -> None:
        try:
            file = safe_open(path, framework="pt")
            told = json.loads(file.metadata()["told"])
            lengths = file.get_tensor(LENGTHS).tolist()
            self.sampled += told["sampled"]
            self.horizons = tuple(told["horizons"])
            start = 0
            for length, (task, id_, generated) in zip(lengths, told["traces"], strict=True):
                self.traces.append(TraceRef(file, start, length, task, id_, generated))
                start += length
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise OptionError(
                f"{path} must be a whole shard of traces, got: {reason(error)}; delete it and pass "
                "--resume"
            ) from None

    @cached_property
    def train(self) -> list[TraceRef]:
        return [trace for trace in self.traces if not is_held_out(trace.id)]

    @cached_property
    def held_out(self) -> list[TraceRef]:
        return [trace for trace in self.traces if is_held_out(trace.id)]

    def columns(self, target: str) -> tuple[int, ...]:
        """The horizons of a target's columns; the target answer has one, for all ages."""
        return (0,) if target == "answer" else self.horizons

    @property
    def tokens(self) -> int:
        return sum(trace.length for trace in self.traces)
