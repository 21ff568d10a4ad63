"""Rounds a checkpoint's float32 weights, so that they take less room in an archive.

    python tools/round_weights.py FOLDER [BITS]

Each weight keeps its dtype and BITS bits of its mantissa (8 by default; bfloat16 has 7, float16
10). A model computes with them as before, and an archive packs the zeros away. Predictor, latents
and layer sets, which a fingerprint ties to the weights, are tied to the rounded ones.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from sparing.files import write_atomically
from sparing.model.checkpoint import inference_tokenizer
from sparing.model.fingerprint import fingerprint

MANTISSA = 23  # bits of a float32
TIED = ("predictor.json", "latent.json", "layer_sets.json")


def rounded(tensor: torch.Tensor, bits: int) -> torch.Tensor:
    """The nearest float32 with that many bits of mantissa, ties to even."""
    cut = MANTISSA - bits
    if cut <= 0 or tensor.dtype != torch.float32:
        return tensor
    whole = tensor.view(torch.int32)
    even = (whole >> cut) & 1
    return ((whole + (1 << (cut - 1)) - 1 + even) >> cut << cut).view(torch.float32)


def main(folder: Path, bits: int) -> None:
    """Round the folder's ``model.safetensors`` in place."""
    path = folder / "model.safetensors"
    tokenizer = inference_tokenizer(folder)
    before = fingerprint(folder, tokenizer)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    weights = {name: rounded(tensor, bits) for name, tensor in load_file(path).items()}
    write_atomically(path, save(weights, metadata))
    after = fingerprint(folder, tokenizer)
    for name in TIED:
        if (folder / name).exists():
            text = (folder / name).read_text()
            if json.loads(text).get("fingerprint") == before:
                write_atomically(folder / name, text.replace(before, after))
    print(f"{folder}: {before} is now {after}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("folder", type=Path, help="a checkpoint with a model.safetensors")
    parser.add_argument("bits", type=int, nargs="?", default=8, help="bits of mantissa kept")
    flags = parser.parse_args()
    if not (flags.folder / "model.safetensors").is_file():
        parser.error(f"{flags.folder} must hold a model.safetensors")
    if not 1 <= flags.bits <= MANTISSA:
        parser.error(f"bits must be 1 to {MANTISSA}, got {flags.bits}")
    main(flags.folder, flags.bits)
