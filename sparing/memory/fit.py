"""A predictor fitted to traces, and its quality on held-out ones."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Bool, Float
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F

from sparing.memory.predictor import ImportancePredictor
from sparing.memory.settings import FitSettings
from sparing.memory.targets import length_free
from sparing.memory.traces import TraceRef, TraceSet
from sparing.train import checkpoint
from sparing.train.interrupts import undivided
from sparing.train.loop import EVERY, Pace, Report

TOP = 0.2  # share of a trace's tokens whose recall is reported
PAIRED_TOKENS = 512  # most tokens of a trace that are compared pair by pair


class Loss(nn.Module):
    """Squared error ``(p - y)^2`` over tokens and horizons that were ``seen``, and a pairwise term.

    The pairwise term of a trace is the mean over pairs with ``y_i > y_j`` of
    ``log(1 + exp(-(p_i - p_j) / temperature))``, a smooth Kendall tau, averaged over traces.
    """

    def __init__(self, predictor: nn.Module, settings: FitSettings) -> None:
        super().__init__()
        self.predictor, self.settings = predictor, settings

    def forward(
        self,
        hidden: Float[Tensor, "N E"],
        y: Float[Tensor, "N K"],
        seen: Bool[Tensor, "N K"],
        lengths: list[int],
        targets: int,
        traces: int,
    ) -> Tensor:
        """``targets`` seen, and ``traces``: of the whole step, over all processes."""
        p = self.predictor(hidden)
        loss = (p - y).square()[seen].sum() / targets
        if self.settings.kendall:
            each = zip(p.split(lengths), y.split(lengths), seen.split(lengths), strict=True)
            ordered = [kendall(*of_trace, self.settings.temperature) for of_trace in each]
            loss = loss + self.settings.kendall * torch.stack(ordered).sum() / traces
        return loss


def kendall(
    p: Float[Tensor, "T K"],
    y: Float[Tensor, "T K"],
    seen: Bool[Tensor, "T K"],
    temperature: float,
) -> Tensor:
    """The pairwise logistic term of one trace; a long one is thinned evenly."""
    stride = -(-len(p) // PAIRED_TOKENS)
    p, y, seen = p[::stride], y[::stride], seen[::stride]
    above = (y[:, None] > y[None]) & seen[:, None] & seen[None]
    terms = F.softplus(-(p[:, None] - p[None]) / temperature)
    return ((terms * above).sum((0, 1)) / above.sum((0, 1)).clamp(min=1)).mean()


class Fit:
    """Trains a predictor on ``traces.train``. A resumed run ends at the weights of an unbroken one.

    ``on_report``: called each step with step, loss and, at the end of an epoch, validation.
    """

    def __init__(
        self,
        traces: TraceSet,
        settings: FitSettings,
        out: Path,
        on_report: Callable[[Report], None] = lambda report: None,
    ) -> None:
        self.traces, self.settings, self.out, self.on_report = traces, settings, out, on_report
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        torch.manual_seed(settings.seed)
        width = traces.train[0].read("hidden").shape[1]
        self.predictor = ImportancePredictor(width, traces.columns(settings.target))
        optimizer = torch.optim.AdamW(
            self.predictor.parameters(),
            settings.lr,
            settings.betas,
            weight_decay=settings.weight_decay,
        )
        self.loss, self.optimizer = self.accelerator.prepare(
            Loss(self.predictor, settings), optimizer
        )
        self.epoch_steps = -(-len(traces.train) // settings.batch)
        self.steps = settings.epochs * self.epoch_steps

    def run(self, pace: Pace = EVERY) -> int:
        """Train to the end, or as far as ``pace`` says; returns the step reached."""
        step = checkpoint.restore(self.accelerator, self.out)
        goal = min(pace.stop_at or self.steps, self.steps)
        try:
            while step < goal:
                with undivided():
                    report: Report = {"step": step + 1, "loss": self._step(step)}
                    step += 1
                if step % self.epoch_steps == 0:
                    report["validation"] = evaluate(self.predictor, self.traces, self.settings)
                self.on_report(report)
                if step % pace.save_every == 0 or step == goal:
                    checkpoint.save(self.accelerator, self.out, step)
        except KeyboardInterrupt:
            if self.accelerator.num_processes == 1:
                checkpoint.save(self.accelerator, self.out, step)
            raise
        return step

    def lr_at(self, step: int) -> float:
        """Warm-up, then a cosine down to 0."""
        rise = max(self.settings.warmup * self.steps, 1)
        if step < rise:
            return self.settings.lr * min((step + 1) / rise, 1.0)
        fallen = (step - rise) / (self.steps - rise)
        return self.settings.lr * 0.5 * (1 + math.cos(math.pi * fallen))

    def _batch(self, step: int) -> list[TraceRef]:
        """The traces of a step; each epoch shuffles them."""
        epoch, at = divmod(step, self.epoch_steps)
        order = np.random.default_rng([self.settings.seed, epoch]).permutation(
            len(self.traces.train)
        )
        chosen = order[at * self.settings.batch : (at + 1) * self.settings.batch]
        return [self.traces.train[i] for i in chosen]

    def _step(self, step: int) -> float:
        """One step on this process's share of the traces; the loss over all of them."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr_at(step)
        place, places = self.accelerator.process_index, self.accelerator.num_processes
        batch = self._batch(step)
        mine = batch[place::places]
        horizons = self.predictor.horizons
        targets = sum(int(trace.seen(horizons).sum()) for trace in batch)
        loss = self.loss(*self._read(mine or batch[:1]), targets, len(batch))
        loss = loss if mine else 0 * loss
        self.accelerator.backward(loss * places)  # processes average their gradients
        self.accelerator.clip_grad_norm_(self.loss.parameters(), self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(self.accelerator.reduce(loss.detach(), "sum"))

    def _read(self, traces: Sequence[TraceRef]) -> tuple[Tensor, Tensor, Tensor, list[int]]:
        hidden = torch.cat([trace.read("hidden") for trace in traces])
        y = torch.cat([length_free(trace.read(self.settings.target)) for trace in traces])
        seen = torch.cat([trace.seen(self.predictor.horizons) for trace in traces])
        device = self.accelerator.device
        lengths = [trace.length for trace in traces]
        return hidden.to(device), y.to(device), seen.to(device), lengths


@torch.inference_mode()
def evaluate(
    predictor: ImportancePredictor, traces: TraceSet, settings: FitSettings
) -> dict[str, Any]:
    """Quality on held-out traces, where a token was seen.

    Squared error beside a constant's; Spearman's rank correlation; the share of the true top fifth
    among the predicted top fifth. The last two are means over traces and horizons, without those
    where all tokens have the same target and so no order.
    """
    device = next(predictor.parameters()).device
    horizons = traces.columns(settings.target)
    constant = seen_mean(traces.train, settings.target, horizons)
    errors, flat, ranks, recalls = [], [], [], []
    for trace in traces.held_out:
        y, seen = length_free(trace.read(settings.target)), trace.seen(horizons)
        p = predictor(trace.read("hidden").to(device)).cpu()
        errors.append((p - y).square()[seen])
        flat.append((constant - y).square()[seen])
        for p_, y_, seen_ in zip(p.T, y.T, seen.T, strict=True):
            p_, y_ = p_[seen_], y_[seen_]
            if len(y_.unique()) > 1:
                ranked = len(p_.unique()) > 1
                ranks.append(float(spearmanr(p_, y_).statistic) if ranked else 0.0)
                recalls.append(top_recall(p_, y_))
    return {
        "mse": float(torch.cat(errors).mean()),
        "mse_of_constant": float(torch.cat(flat).mean()),
        "spearman": float(np.mean(ranks)) if ranks else 0.0,
        "top20_recall": float(np.mean(recalls)) if recalls else 0.0,
        "traces": len(errors),
    }


def seen_mean(
    traces: Sequence[TraceRef], target: str, horizons: Sequence[int]
) -> Float[Tensor, " K"]:
    """The best constant prediction: the mean of all targets seen; 0 without any."""
    total, count = torch.zeros(len(horizons)), torch.zeros(len(horizons))
    for trace in traces:
        seen = trace.seen(horizons)
        total += (length_free(trace.read(target)) * seen).sum(0)
        count += seen.sum(0)
    return total / count.clamp(1)


def top_recall(p: Float[Tensor, " T"], y: Float[Tensor, " T"]) -> float:
    """Share of the ``TOP`` largest of y among the ``TOP`` largest of p."""
    count = max(int(TOP * len(y)), 1)
    return len(set(p.topk(count).indices.tolist()) & set(y.topk(count).indices.tolist())) / count
