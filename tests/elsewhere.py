"""A device beside the CPU for machines that have none: ``elsewhere``.

Its tensors lie in memory; torch's registration of backends in Python makes a device of them. As on
a GPU an operation cannot mix devices, but for numbers without a dimension and for indices. Copies
are counted, and those among them that would make a program wait for the device.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils import backend_registration

NAME = "elsewhere"
WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal"}
counted: Counter[str] = Counter()


class Elsewhere(torch.Tensor):
    """A tensor of the device, which holds ``inner``."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "Elsewhere":
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(
        cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return run(operation, *args, **(kwargs or {}))


@torch.inference_mode(False)  # a view of a usual tensor must be one
@torch.no_grad()
def run(operation: Any, *args: Any, **kwargs: Any) -> Any:
    """An operation of torch on what the tensors hold."""
    name, leaves = operation.name().partition(".")[0], pytree.tree_leaves((args, kwargs))
    ours = {id(leaf.inner): leaf for leaf in leaves if isinstance(leaf, Elsewhere)}
    others = [x for x in leaves if isinstance(x, torch.Tensor) and not isinstance(x, Elsewhere)]
    to = kwargs.get("device")
    stays = bool(ours) if to is None else torch.device(to).type == NAME
    found = operation(*pytree.tree_map(held, args), **pytree.tree_map(held, kwargs))
    if name == "aten::copy_":
        if others:
            copied(isinstance(args[0], Elsewhere), kwargs.get("non_blocking") or any(args[2:]))
        return args[0]
    if name == "aten::_to_copy" and stays != bool(ours):
        copied(stays, kwargs.get("non_blocking"))
    if name in WAITING or (name.startswith("aten::index") and any_mask(args)):
        counted["down"] += 1
    if others and name.startswith("aten::index"):
        copied(True, False)
    elif ours and any(x.dim() for x in others):
        raise RuntimeError(f"{name} must get tensors of one device, got two")
    if not stays or name == "aten::_local_scalar_dense":
        return found
    return pytree.tree_map_only(
        torch.Tensor, lambda x: ours[id(x)] if id(x) in ours else Elsewhere(x), found
    )


def held(leaf: Any) -> Any:
    if isinstance(leaf, Elsewhere):
        return leaf.inner
    return torch.device("cpu") if isinstance(leaf, torch.device) else leaf


def any_mask(args: Any) -> bool:
    """Whether a mask is among the indices: its marks must be counted first."""
    leaves = pytree.tree_leaves(args[1:2])
    return any(isinstance(x, torch.Tensor) and x.dtype == torch.bool for x in leaves)


def copied(to_device: bool, without_waiting: Any) -> None:
    """``down``: to memory, with a wait; ``up``: to the device; ``waiting``: of those, with one."""
    counted["up" if to_device else "down"] += 1
    if to_device and not without_waiting:
        counted["waiting"] += 1


class Backend(backend_registration._DummyBackendModule):
    """What ``torch.autocast`` asks a device for."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """The copies within the block."""
    before, found = counted.copy(), Counter[str]()
    yield found
    found.update(counted - before)


@cache
def device() -> str:
    """The device's name, once torch knows it."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, Backend())
    every = torch.library.Library("_", "IMPL")
    every.fallback(run, "PrivateUse1")
    aten, ops = torch.library.Library("aten", "IMPL"), torch.ops.aten
    arange = (ops.arange.default, ops.arange.start, ops.arange.start_step)
    empty = (ops.empty.memory_format, ops.empty_strided.default)
    for operation in (*empty, *arange, ops.copy_.default):
        aten.impl(operation, lambda *a, op=operation, **k: run(op, *a, **k), "PrivateUse1")
    libraries.extend((every, aten))
    return NAME


libraries: list[torch.library.Library] = []  # what they registered goes with them
