"""What is slow to compute in, said once."""

from typing import Any

import torch

from sparing.kernels.native import announce


def has_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16; others emulate it."""
    asked: Any = getattr(torch.cpu, "get_capabilities", None)  # torch 2.9 and later
    if asked is None:
        return torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return any(found is True and name.endswith("bf16") for name, found in asked().items())


def announce_slow(dtype: torch.dtype, device: str, kernels: bool) -> None:
    """Say that a dtype is slow on a CPU; ``kernels``: whether float32 would run in them."""
    if device != "cpu" or dtype == torch.float32:
        return
    name = str(dtype).removeprefix("torch.")
    if dtype == torch.bfloat16 and not has_bfloat16():
        announce(
            "this processor emulates bfloat16, so dtype bfloat16 is slow; leave it out, and pass "
            "weights='bfloat16' (--weights bfloat16) for the memory"
        )
    elif kernels:
        announce(
            f"dtype {name} is computed by torch, slowly; leave it out for the compiled kernels"
        )
