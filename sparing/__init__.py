"""Reasoning models that spare memory, depth and words.

    from sparing import load, Memory
    engine = load("smollm2")
    [result] = engine.generate(["Why is the sky blue?"], memory=Memory(budget=160))

The names below load on first use, so that `import sparing` and `sparing --help` need no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparing.api import Engine, load
    from sparing.engine.result import Result
    from sparing.options import Depth, Latent, Memory, Sampling

__version__ = "0.2.0"

__all__ = ["Depth", "Engine", "Latent", "Memory", "Result", "Sampling", "__version__", "load"]

_HOMES = {
    "Engine": "sparing.api",
    "Result": "sparing.engine.result",
    "load": "sparing.api",
    "Depth": "sparing.options",
    "Latent": "sparing.options",
    "Memory": "sparing.options",
    "Sampling": "sparing.options",
}


def __getattr__(name: str) -> Any:
    """Import the public name from its room, once; later uses find it among the globals."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sparing' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
