"""A model's fingerprint, which ties a trained predictor or a stored search to its model."""

import json
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from safetensors import safe_open

from sparing.model.gguf_files import is_gguf, split_paths

SAMPLED_ROWS = 8  # of each tensor


def fingerprint(directory: Path, tokenizer: Any) -> str:
    """A hash of a checkpoint's weights (names, shapes, some rows of each) and vocabulary.

    A GGUF adds its types and the metadata of its architecture. The split of the tensors into files
    does not matter. The weights are read once, until a file changes.
    """
    digest = weights_digest(directory, files_fingerprint(directory)).copy()
    digest.update(json.dumps(sorted(tokenizer.get_vocab().items())).encode())
    return digest.hexdigest()


@lru_cache(maxsize=8)
def weights_digest(directory: Path, files: str) -> Any:
    """The hash object after all tensors; ``files``: ``files_fingerprint``, a key of the cache."""
    digest = blake2b(digest_size=8)
    if is_gguf(directory):
        digest_gguf(digest, directory)
        return digest
    for name, slice_ in sorted(tensor_slices(directory).items()):
        shape = slice_.get_shape()
        rows = range(0, shape[0], max(shape[0] // SAMPLED_ROWS, 1)) if shape else ()
        digest.update(f"{name} {shape}".encode())
        for row in rows:
            digest.update(slice_[row : row + 1].float().numpy().tobytes())
    return digest


def digest_gguf(digest: Any, path: Path) -> None:
    """Hash the architecture's fields, then the types, shapes and blocks of some rows."""
    from sparing.model.gguf import Gguf

    with Gguf.open(path) as gguf:
        prefix = f"{gguf.metadata.get('general.architecture')}."
        fields = {k: str(v) for k, v in gguf.metadata.items() if k.startswith(prefix)}
        digest.update(json.dumps(sorted(fields.items())).encode())
        for name, tensor in sorted(gguf.tensors.items()):
            digest.update(f"{name} {tensor.type} {tensor.shape}".encode())
            rows = tensor.data.reshape(tensor.shape[0], -1)
            digest.update(rows[:: max(len(rows) // SAMPLED_ROWS, 1)].tobytes())


def tensor_slices(directory: Path) -> dict[str, Any]:
    """Every tensor of a checkpoint by name, as a slice to read in part."""
    from sparing.model.weights import shard_names

    files = [safe_open(directory / name, framework="pt") for name in shard_names(directory)]
    return {name: file.get_slice(name) for file in files for name in file.keys()}  # noqa: SIM118


def files_fingerprint(directory: Path) -> str:
    """A hash of the names, sizes and times of change of a checkpoint's files."""
    if is_gguf(directory):
        files = [path for path in split_paths(directory) if path.is_file()]
    else:
        files = sorted(path for path in directory.iterdir() if path.is_file())
    told = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return blake2b(json.dumps(told).encode(), digest_size=8).hexdigest()
