"""Which model is which: what is trained or found for one must not be used with another."""

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

    Of a GGUF also the types and what its metadata says of the architecture. It does not depend on
    how the tensors are dealt out to files. The weights are read once, as long as the files stay as
    they are.
    """
    digest = weights_digest(directory, files_fingerprint(directory)).copy()
    digest.update(json.dumps(sorted(tokenizer.get_vocab().items())).encode())
    return digest.hexdigest()


@lru_cache(maxsize=8)
def weights_digest(directory: Path, files: str) -> Any:
    """The hash object after all tensors; ``files``: what they were like, for the cache."""
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
    """Fields of the architecture, then types, shapes and the blocks of some rows, as they are."""
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
    """Every tensor of a checkpoint by name, to be read in part."""
    from sparing.model.weights import shard_names

    files = [safe_open(directory / name, framework="pt") for name in shard_names(directory)]
    return {name: file.get_slice(name) for file in files for name in file.keys()}  # noqa: SIM118


def files_fingerprint(directory: Path) -> str:
    """Name, size and time of change of a checkpoint's files, hashed: cheap for any size."""
    if is_gguf(directory):
        files = [path for path in split_paths(directory) if path.is_file()]
    else:
        files = sorted(path for path in directory.iterdir() if path.is_file())
    told = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return blake2b(json.dumps(told).encode(), digest_size=8).hexdigest()
