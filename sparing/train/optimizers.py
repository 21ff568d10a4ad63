"""Optimizers for whole models: AdamW, or Muon for the matrices with AdamW for the rest."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from sparing.train.settings import ADAM_BETAS


def make_optimizers(
    model: nn.Module, kind: str, lr: float, decay: float, betas: tuple[float, float] = ADAM_BETAS
) -> list[Optimizer]:
    """The optimizers of ``kind``.

    ``adamw``: AdamW for all weights
    ``muon``: Muon for the matrices within layers, its steps scaled to AdamW's (arXiv 2502.16982),
        and AdamW for embeddings and norms

    Embeddings and norms have no weight decay.
    """
    inner: list[nn.Parameter] = []
    outer: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            within = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
            (inner if within else outer).append(parameter)
    if kind == "muon":
        muon = FullMuon(inner, lr=lr, weight_decay=decay)
        return [muon, AdamW(outer, lr=lr, betas=betas, weight_decay=0.0)] if outer else [muon]
    groups = [{"params": inner, "weight_decay": decay}, {"params": outer, "weight_decay": 0.0}]
    return [AdamW([g for g in groups if g["params"]], lr=lr, betas=betas)]


class FullMuon(Muon):
    """torch's Muon with the orthogonalization in the matrices' own precision.

    torch's own is in bfloat16, twenty times slower on a CPU that emulates it.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, scaled by 0.2 sqrt(max(rows, columns)) times the rate (arXiv 2502.16982,
        sec. 2.2)."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters: list[Tensor] = []
            grads: list[Tensor] = []
            buffers: list[Tensor] = []
            self._init_group(group, parameters, grads, buffers)
            lr, momentum = group["lr"], group["momentum"]
            how = group["ns_coefficients"], group["ns_steps"], group["eps"]
            for parameter, grad, buffer in zip(parameters, grads, buffers, strict=True):
                buffer.lerp_(grad, 1 - momentum)
                update = grad.lerp(buffer, momentum)  # Nesterov's
                update = orthogonal(update, *how)
                parameter.mul_(1 - lr * group["weight_decay"])
                parameter.add_(update, alpha=-lr * 0.2 * max(parameter.shape) ** 0.5)
        return loss


def orthogonal(
    matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Bring every singular value of ``matrix`` near 1, by the Newton-Schulz iteration."""
    a, b, c = coefficients
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / wide.norm().clamp(min=eps)  # no singular value above 1
    for _ in range(steps):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide
