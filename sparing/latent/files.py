"""Whether a model has latent steps: the files of `config` are then beside its weights."""

from pathlib import Path

from sparing.errors import OptionError
from sparing.model.sources import find_model
from sparing.options import Latent

CONFIG_FILE, WEIGHTS_FILE = "latent.json", "latent.safetensors"


def has_latents(directory: Path) -> bool:
    """Whether a checkpoint was trained to think latent steps."""
    return (directory / CONFIG_FILE).exists()


def check_latent(model: str, latent: Latent) -> None:
    """Raise OptionError, before any weights load, if the model has no latent steps for the mode."""
    if latent.mode != "off" and not has_latents(find_model(model)):
        raise without_latents(latent.mode)


def without_latents(mode: str) -> OptionError:
    return OptionError(
        f"latent {mode} needs a model with learned latent steps ({CONFIG_FILE}), got one "
        "without; pass latent off, or train one with `sparing train latent`"
    )
