"""The files of an importance predictor."""

from pathlib import Path

from sparing.errors import ModelError

WEIGHTS_FILE, CONFIG_FILE = "predictor.safetensors", "predictor.json"


def has_predictor(directory: Path) -> bool:
    """Whether a directory holds an importance predictor."""
    return (directory / CONFIG_FILE).exists()


def find_predictor(given: str | Path | None, model: Path) -> Path | None:
    """The directory of the ``given`` predictor, else of the model's own; None without either.

    Raises ModelError where the given directory holds none.
    """
    if given is None:
        return model if has_predictor(model) else None
    if not has_predictor(Path(given)):
        raise ModelError(
            f"{given} must hold an importance predictor ({CONFIG_FILE}, {WEIGHTS_FILE}), got "
            "none; train one with `sparing train predictor`"
        )
    return Path(given)
