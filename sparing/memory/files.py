"""Where a model's importance predictor lies."""

from pathlib import Path

from sparing.errors import ModelError

WEIGHTS_FILE, CONFIG_FILE = "predictor.safetensors", "predictor.json"


def has_predictor(directory: Path) -> bool:
    """Whether there is an importance predictor in it."""
    return (directory / CONFIG_FILE).exists()


def find_predictor(given: str | Path | None, model: Path) -> Path | None:
    """The directory of the predictor asked for, else of the model's own; None: it has none.

    Raises ModelError where the one asked for is not there.
    """
    if given is None:
        return model if has_predictor(model) else None
    if not has_predictor(Path(given)):
        raise ModelError(
            f"{given} must hold an importance predictor ({CONFIG_FILE}, {WEIGHTS_FILE}), got "
            "none; train one with `sparing train predictor`"
        )
    return Path(given)
