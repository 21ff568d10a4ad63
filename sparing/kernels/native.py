"""The compiled kernels: choose a build for this processor and call its functions by ctypes.

The structs mirror the ones in ``src/pass.h`` and ``src/formats.h``.
"""

import ctypes
import os
import sys
from ctypes import POINTER, Structure, c_float, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

from sparing.errors import ModelError

FOLDER = Path(__file__).parent / "lib"
FORMATS = (
    "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K",
)  # in the order of src/formats.h  # fmt: skip
STORED = ("float32", "float16", "q8")  # in the order of src/attention.h


class MatrixStruct(Structure):
    _fields_ = (
        ("format", c_int32),
        ("rows", c_int32),
        ("columns", c_int32),
        ("unused", c_int32),
        ("data", c_void_p),
        ("bias", c_void_p),
    )


NORMS = ("attention_norm", "mlp_norm", "query_norm", "key_norm")
MATRICES = ("query", "key", "value", "output", "gate", "up", "down")


class LayerStruct(Structure):
    _fields_ = (
        *((name, c_void_p) for name in NORMS),
        *((name, MatrixStruct) for name in MATRICES),
    )


class ModelStruct(Structure):
    _fields_ = (
        *(
            (name, c_int32)
            for name in ("layers", "width", "heads", "key_heads", "dim", "mlp_width")
        ),
        ("norm_eps", c_float),
        ("rope_scale", c_float),
        ("frequencies", c_void_p),
        ("norm", c_void_p),
        ("layer", POINTER(LayerStruct)),
        ("embedding", MatrixStruct),
    )


class BatchStruct(Structure):
    _fields_ = (
        *((name, c_int32) for name in ("rows", "tokens", "vectors", "scored")),
        *(
            (name, c_void_p)
            for name in (
                "ids",
                "positions",
                "row",
                "count",
                "cached",
                "visible",
                "attended",
                "ancestors",
                "attention",
                "vector_tokens",
                "vector_values",
                "scored_tokens",
                "runs_attention",
                "runs_mlp",
            )
        ),
        ("wanted_layer", c_int32),
        ("unused", c_int32),
    )


class CacheStruct(Structure):
    _fields_ = (
        ("stored", c_int32),
        ("rows", c_int32),
        ("slots", c_int64),
        ("layer", c_void_p),
        ("scales", c_void_p),
    )


class OutputStruct(Structure):
    _fields_ = tuple(
        (name, c_void_p) for name in ("hidden", "layer_hidden", "logits", "argmax", "confidence")
    )


SIGNATURES = {
    "open": (c_void_p, c_int32),
    "close": (None, c_void_p),
    "level": (c_int32,),
    "huge": (None, c_void_p, c_int64),
    "packed_bytes": (c_int64, c_int32, c_int64, c_int64),
    "pack": (
        c_int32, c_void_p, c_int32, c_int32, c_int64, c_int64, c_void_p, c_int64, c_void_p,
        c_void_p,
    ),
    "copy_row": (None, c_int32, c_int64, c_void_p, c_int64, c_void_p, c_int64),
    "rows": (None, POINTER(MatrixStruct), c_void_p, c_int64, c_void_p),
    "multiply": (None, c_void_p, POINTER(MatrixStruct), c_void_p, c_int32, c_void_p),
    "top": (None, c_void_p, c_void_p, c_int32, c_int32, c_void_p, c_void_p),
    "run": (
        None, c_void_p, POINTER(ModelStruct), POINTER(BatchStruct), POINTER(CacheStruct),
        POINTER(MatrixStruct), POINTER(OutputStruct),
    ),
}  # fmt: skip
BEST_FIRST = ("avx512", "avx2", "neon", "plain")


class Library:
    """The functions of one build, called by their names without the prefix."""

    def __init__(self, path: Path) -> None:
        self.name, loaded = path.stem, ctypes.CDLL(str(path))
        self._functions: dict[str, Any] = {}
        for name, (returns, *takes) in SIGNATURES.items():
            function = self._functions[name] = getattr(loaded, f"sparing_{name}")
            function.restype, function.argtypes = returns, takes

    def __getattr__(self, name: str) -> Any:
        if name not in self._functions:
            raise AttributeError(f"the kernels have no function {name}")
        return self._functions[name]


def variants() -> list[str]:
    """The installed builds for this processor, the fastest first.

    The environment variable SPARING_KERNELS chooses one build, or "none".
    """
    if chosen := os.environ.get("SPARING_KERNELS"):
        return [] if chosen == "none" else [chosen]
    built = [name for name in BEST_FIRST if (FOLDER / f"{name}.so").exists()]
    if "plain" not in built:
        return built
    level = Library(FOLDER / "plain.so").level()
    return [name for name in built if {"avx512": 2, "avx2": 1, "neon": 1}.get(name, 0) <= level]


@cache
def load_build(name: str | None = None) -> Library | None:
    """Load the build ``name``, or the fastest; None if there is none."""
    name = name or next(iter(variants()), None)
    if name is None:
        return None
    path = FOLDER / f"{name}.so"
    if not path.exists():
        raise ModelError(f"SPARING_KERNELS must be an installed build, got {name}; leave it out")
    return Library(path)


@cache
def announce(what: str) -> None:
    """Print a message to stderr, once."""
    print(f"sparing: {what}", file=sys.stderr)


NO_KERNELS = (
    "no compiled kernels found, so passes run slowly in torch; install a C++ compiler, then "
    "install sparing again"
)
NO_LANES = "this processor has neither AVX2 nor NEON: the kernels run slowly, in plain C++"
