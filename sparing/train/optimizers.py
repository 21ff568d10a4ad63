"""Optimizers for whole models: AdamW, or Muon for the matrices with AdamW for the rest."""

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from sparing.train.settings import ADAM_BETAS


def make_optimizers(
    model: nn.Module, kind: str, lr: float, decay: float, betas: tuple[float, float] = ADAM_BETAS
) -> list[Optimizer]:
    """``adamw``, or ``muon``: torch's Muon (its steps scaled to AdamW's size, arXiv 2502.16982) for
    the matrices within layers and AdamW for embeddings and norms, which are not decayed."""
    inner: list[nn.Parameter] = []
    outer: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            within = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
            (inner if within else outer).append(parameter)
    if kind == "muon":
        muon = Muon(inner, lr=lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
        return [muon, AdamW(outer, lr=lr, betas=betas, weight_decay=0.0)] if outer else [muon]
    groups = [{"params": inner, "weight_decay": decay}, {"params": outer, "weight_decay": 0.0}]
    return [AdamW([g for g in groups if g["params"]], lr=lr, betas=betas)]
