"""The config and vector of a model's latent steps, stored beside its weights."""

import json
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from safetensors.torch import load, save

from sparing.errors import ModelError, OptionError, reason
from sparing.files import read_json, write_atomically
from sparing.latent.files import CONFIG_FILE, WEIGHTS_FILE, has_latents
from sparing.latent.fusion import LatentVector
from sparing.latent.vector_config import Recipe, Share
from sparing.model.checkpoint import layers_and_width
from sparing.model.fingerprint import fingerprint
from sparing.options import Latent


class LatentConfig(Recipe):
    """A model's recipe, and its defaults for latent steps.

    ``switch``, ``tau``, ``in_a_row`` (the paper's k), ``most``: as in ``options.Latent``
    ``targets``: whether the model was trained to ``predict`` its latent token
    ``fingerprint``: of the model
    ``weights``: a hash of the vector's learned weights; None if it has none
    """

    switch: Literal["learned", "confidence"] = "learned"
    tau: Share = 0.7
    in_a_row: Annotated[int, Field(ge=1)] = 2
    most: Annotated[int, Field(ge=0)] = 32
    targets: Literal["ignore", "predict"] = "predict"
    fingerprint: str = ""
    weights: str | None = None

    def options(self, wanted: Latent) -> Latent:
        """The options with the model's defaults for those not given."""
        known = {"tau": self.tau, "in_a_row": self.in_a_row, "most": self.most}
        given = wanted.model_dump(exclude_none=True)
        return wanted.model_copy(update=known | given)


def save_latents(
    vector: LatentVector, config: LatentConfig, directory: Path, tokenizer: Any
) -> None:
    """Write the vector's weights, then the config, beside the checkpoint in ``directory``."""
    learned = {name: t.detach().contiguous() for name, t in vector.state_dict().items()}
    digest = None
    if learned:
        content = save(learned)
        digest = hashed(content)
        write_atomically(directory / WEIGHTS_FILE, content)
    found = {"fingerprint": fingerprint(directory, tokenizer), "weights": digest}
    told = config.model_copy(update=found).model_dump(mode="json")
    write_atomically(directory / CONFIG_FILE, json.dumps(told, indent=1) + "\n")


def load_latents(
    directory: Path,
    tokenizer: Any,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> tuple[LatentConfig, LatentVector] | None:
    """Read a checkpoint's config and vector; None if it has no latent steps.

    Raises ModelError if they are broken, or belong to another model.
    """
    if not has_latents(directory):
        return None
    path = directory / CONFIG_FILE
    try:
        config = LatentConfig(**read_json(path))
    except OptionError as error:
        raise ModelError(f"in {path} {error}; save the model again") from None
    check_model(config, directory, tokenizer)
    vector = LatentVector(config, layers_and_width(directory)[1])
    read_learned(vector, config, directory)
    return config, vector.to(device, dtype).eval().requires_grad_(False)


def check_model(config: LatentConfig, directory: Path, tokenizer: Any) -> None:
    """Raise ModelError unless the config belongs to this checkpoint and tokenizer."""
    path, here = directory / CONFIG_FILE, fingerprint(directory, tokenizer)
    if config.fingerprint != here:
        raise ModelError(
            f"{path} must belong to this model, {here}, got one of {config.fingerprint}; "
            "copy both from one place, or remove it to do without latent steps"
        )
    token = tokenizer.get_vocab().get(config.token)
    layers, _ = layers_and_width(directory)
    if token != config.id or not -layers - 1 <= config.layer <= layers:
        raise ModelError(
            f"{path} must name a token and a layer of its model, got {config.token} as {config.id} "
            f"(it is {token}) and layer {config.layer} of {layers}; save the model again"
        )


def read_learned(vector: LatentVector, config: LatentConfig, directory: Path) -> None:
    """Load the adapter or the pause; raises ModelError unless the file is the config's own."""
    if not vector.state_dict():
        return
    path = directory / WEIGHTS_FILE
    try:
        content = path.read_bytes()
        if hashed(content) != config.weights:
            raise ValueError(f"the hash {hashed(content)} instead of {config.weights}")
        vector.load_state_dict(load(content))
    except Exception as error:  # torch and safetensors have their own types
        raise ModelError(
            f"{path} must hold the weights of the {CONFIG_FILE} beside it, got: {reason(error)}; "
            "copy both from one place"
        ) from None


def hashed(content: bytes) -> str:
    return blake2b(content, digest_size=8).hexdigest()
