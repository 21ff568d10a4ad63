"""Files beside a model's weights that fit only it: layer sets, an importance predictor, latents."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sparing.errors import ModelError, OptionError
from sparing.kernels.native import announce
from sparing.model.checkpoint import inference_tokenizer
from sparing.model.fingerprint import fingerprint
from sparing.model.sources import find_here

T = TypeVar("T")


def or_without(read: Callable[[], T], without: T) -> T:
    """What ``read`` finds; a warning and ``without`` if it raises ModelError.

    A stale extra then makes no model unloadable. One that a user asks for is read directly.
    """
    try:
        return read()
    except ModelError as error:
        announce(f"going on without: {error}")
        return without


def check_place(out: Path, here: str) -> None:
    """Raise OptionError if the folder holds another model than the one of the fingerprint."""
    if not (out / "config.json").exists():
        return
    try:
        found = find_here(str(out.resolve()))
        there = fingerprint(found, inference_tokenizer(found)) if found else here
    except Exception:  # whatever is wrong with it: no model that anything could spoil
        return
    if there != here:
        raise OptionError(
            f"--out must be the model's own folder, or one without a model, {out} holds another "
            "model; give another folder"
        )
