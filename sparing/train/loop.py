"""The resumable training loop of all stages."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from sparing.malloc import keep_freed_memory
from sparing.train import checkpoint
from sparing.train.attention import NAME as CAUSAL
from sparing.train.batches import bucketed, endless
from sparing.train.cache_dropout import holes
from sparing.train.examples import Corpus, ExampleSet
from sparing.train.interrupts import undivided
from sparing.train.layer_dropout import LayerDropout, exit_depths
from sparing.train.objective import ChainOfThought, Exits, Score
from sparing.train.optimizers import make_optimizers
from sparing.train.settings import TrainSettings

SMOOTHING = 0.98
Report = dict[str, Any]


class TrainingProgress:
    """The smoothed loss and the mean speed."""

    def __init__(self) -> None:
        self.loss: float | None = None
        self.tokens, self.began = 0, time.perf_counter()

    def add(self, loss: float, tokens: int) -> None:
        self.tokens += tokens
        last = loss if self.loss is None else self.loss
        self.loss = SMOOTHING * last + (1 - SMOOTHING) * loss

    def report(self, step: int) -> Report:
        speed = self.tokens / (time.perf_counter() - self.began)
        return {"step": step, "loss": self.loss, "tokens_per_s": speed}


@dataclass(frozen=True)
class Pace:
    """When a run saves, validates and ends early, in steps; ``stop_at`` 0: never."""

    save_every: int = 200
    validate_every: int = 250
    stop_at: int = 0


EVERY = Pace()
Objective = Callable[[Any, Exits, LayerDropout], ChainOfThought]


def plain(model: Any, exits: Exits, dropout: LayerDropout) -> ChainOfThought:
    """The objective of stage 1."""
    return ChainOfThought(model, exits)


class Trainer:
    """Trains ``model`` on a corpus for ``settings.steps`` steps; an interrupted run can be resumed.

    All randomness of a step comes from (seed, step), so a killed run, resumed from its last
    checkpoint, ends with exactly the weights of an uninterrupted run (same machine, threads and
    processes).

    ``on_report``: called each step with step, loss, tokens_per_s and sometimes validation
    ``objective``: makes the loss, and may have its own weights
    """

    def __init__(
        self,
        model: Any,
        corpus: Corpus,
        settings: TrainSettings,
        out: Path,
        on_report: Callable[[Report], None] = lambda report: None,
        objective: Objective = plain,
    ) -> None:
        self.settings, self.out, self.on_report = settings, out, on_report
        self.examples, self.validation = corpus.examples, corpus.validation
        self.batched_by = corpus.batched_by
        mixed = "bf16" if settings.precision == "bfloat16" else "no"
        self.accelerator = Accelerator(mixed_precision=mixed, cpu=not torch.cuda.is_available())
        if self.accelerator.device.type == "cpu":
            keep_freed_memory()
            model.set_attn_implementation(CAUSAL)
        depths = exit_depths(model.config.num_hidden_layers, settings.exits)
        self.dropout = LayerDropout(model, settings.layer_dropout)
        self.bare = objective(model, Exits(depths, settings.exit_weight), self.dropout)
        optimizers = make_optimizers(
            self.bare, settings.optimizer, settings.plateau, settings.weight_decay, settings.betas
        )
        self.objective, *self.optimizers = self.accelerator.prepare(self.bare, *optimizers)

    def run(self, pace: Pace = EVERY) -> int:
        """Train to the end, or to ``pace.stop_at``; returns the last step.

        Ctrl-C saves a checkpoint, except with several processes, which may be at different steps.
        """
        step = checkpoint.restore(self.accelerator, self.out)
        goal = min(pace.stop_at or self.settings.steps, self.settings.steps)
        batches = endless(self.batched_by, self.settings.batch_tokens, self.settings.order, step)
        progress = TrainingProgress()
        try:
            while step < goal:
                rows = next(batches)
                with undivided():
                    progress.add(self._step(step, rows), int(self.examples.lengths[rows].sum()))
                    step += 1
                report = progress.report(step)
                if step % pace.validate_every == 0 or step == goal:
                    report["validation"] = self.validate()
                self.on_report(report)
                if step % pace.save_every == 0 or step == goal:
                    checkpoint.save(self.accelerator, self.out, step)
        except KeyboardInterrupt:
            if self.accelerator.num_processes == 1:
                checkpoint.save(self.accelerator, self.out, step)
            raise
        return step

    def validate(self) -> dict[str, dict[str, float]]:
        """By task, the shares of correct tokens, recalled tokens and whole traces."""
        self.objective.eval()
        self.dropout.off()
        scores: dict[str, Score] = {}
        for rows in bucketed(self.validation.lengths, self.settings.batch_tokens, 0, 0):
            ids, roles = self._moved(self.validation, rows)
            with self.accelerator.autocast():
                right = self.bare.right(ids, roles)
            for i, row in enumerate(rows):
                score = scores.setdefault(self.validation.tasks[row], Score())
                score.add(right[i], roles[i])
        self.objective.train()
        return {task: scores[task].shares() for task in sorted(scores)}

    def _step(self, step: int, rows: list[int]) -> float:
        """One step on this process's share of the rows; returns the loss a token over all rows."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.settings.lr_at(step)
        place, places = self.accelerator.process_index, self.accelerator.num_processes
        mine = rows[place::places]
        ids, roles = self._moved(self.examples, mine or rows[:1])
        roles = roles if mine else torch.zeros_like(roles)
        self.dropout.draw(len(ids), self.settings.seed, step, place)
        mask = holes(ids, roles, self.settings.cache_dropout, self.settings.seed, step, place)
        dropped = self.examples.dropped_of(mine).to(ids.device) if mine else None
        loss = self.objective(ids, roles, self.examples.taught(rows), mask, dropped)
        self.accelerator.backward(loss * places)  # processes average their gradients
        self.accelerator.clip_grad_norm_(self.objective.parameters(), self.settings.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return float(self.accelerator.reduce(loss.detach(), "sum"))

    def _moved(self, examples: ExampleSet, rows: list[int]) -> tuple[Tensor, Tensor]:
        device = self.accelerator.device
        ids, roles = examples.batch(rows)
        return ids.to(device), roles.to(device)
