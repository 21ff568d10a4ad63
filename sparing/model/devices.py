"""Numbers on their way to a device and back, with as few waits as possible.

A plain copy from memory to a GPU waits for all the work that the GPU was given; one from pinned
memory does not. What a pass has found comes back in one copy.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor


def computes(device: str) -> bool:
    """Whether a device of this name is here."""
    try:
        torch.zeros((), device=device).item()
    except (RuntimeError, AssertionError):
        return False
    return True


def placed(values: Any, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """``torch.tensor`` on a device."""
    return moved(torch.tensor(values, dtype=dtype), device)


def moved(tensor: Shaped[Tensor, "..."], device: torch.device) -> Shaped[Tensor, "..."]:
    """A tensor in memory, on a device."""
    if device.type == "cpu":
        return tensor
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def read(*columns: Shaped[Tensor, " M"]) -> list[list[Any]]:
    """Columns as lists, in one copy; float64 holds whole numbers up to 2^53."""
    if columns[0].device.type == "cpu":
        return [column.tolist() for column in columns]
    lists: list[list[float]] = torch.stack([column.double() for column in columns]).tolist()
    return [
        found if column.is_floating_point() else [int(number) for number in found]
        for column, found in zip(columns, lists, strict=True)
    ]


def chosen(tensor: Shaped[Tensor, "N *_"], places: Sequence[int]) -> Shaped[Tensor, "_n *_"]:
    """Some rows of a tensor; a view where they are neighbours."""
    if list(places) == list(range(places[0], places[0] + len(places))):
        return tensor.narrow(0, places[0], len(places))
    return tensor[placed(places, tensor.device)]
