"""A model on disk: a Hugging Face directory or a GGUF file."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch

from sparing.errors import ModelError, UnknownArchitecture, reason
from sparing.model import config as hugging_face
from sparing.model.config import ModelConfig
from sparing.model.fingerprint import files_fingerprint
from sparing.model.gguf import Gguf
from sparing.model.gguf_config import Fields, as_transformers, gguf_config
from sparing.model.gguf_files import is_gguf
from sparing.model.gguf_tokenizer import gguf_parts, gguf_tokenizer
from sparing.model.plain_tokenizer import PlainTokenizer, added_as_special, plain_tokenizer

SPACE, SPACED = "\u0120", " a b"  # a space in a byte-level vocabulary; a text that has some
_OPEN: WeakValueDictionary[tuple[Path, str], Gguf] = WeakValueDictionary()


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Keep a GGUF open, so that the functions of this module open it once."""
    held = open_gguf(path) if is_gguf(path) else None
    yield
    del held


def open_gguf(path: Path) -> Gguf:
    """The open file, shared by all its users: do not close it."""
    key = path, files_fingerprint(path)
    gguf = _OPEN.get(key)
    if gguf is None:
        gguf = _OPEN[key] = Gguf.open(path)
    return gguf


def read_config(path: Path) -> ModelConfig:
    """The config in either format; raises ModelError with the name of an unusable field or
    tensor."""
    return gguf_config(open_gguf(path)) if is_gguf(path) else hugging_face.read_config(path)


def layers_and_width(path: Path) -> tuple[int, int]:
    """Of any model: its number of layers, and the width of its hidden states."""
    try:
        ours = read_config(path)
        return ours.layers, ours.width
    except UnknownArchitecture:
        from transformers import AutoConfig

        source, more = transformers_source(path)
        theirs = AutoConfig.from_pretrained(source, **more).get_text_config()
        return theirs.num_hidden_layers, theirs.hidden_size


def read_tokenizer(path: Path) -> Any:
    """A transformers tokenizer; raises ModelError if the model has no usable one."""
    if is_gguf(path):
        return gguf_tokenizer(open_gguf(path))
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except Exception as error:  # the parsers of transformers raise many types
        raise ModelError(
            f"{path} must hold a tokenizer for transformers, got: {reason(error)}"
        ) from None
    check_spaces(tokenizer, path)
    return tokenizer


def check_spaces(tokenizer: Any, path: Path) -> None:
    """Raise ModelError if a byte-level tokenizer loses spaces.

    Some versions of transformers read one of the class LlamaTokenizer as SentencePiece.
    """
    if tokenizer.convert_tokens_to_ids(SPACE) in (None, tokenizer.unk_token_id):
        return
    found = tokenizer.decode(tokenizer.encode(SPACED, add_special_tokens=False))
    if found.strip() != SPACED.strip():
        raise ModelError(
            f"the tokenizer in {path} must give {SPACED!r} back, got {found!r}: its spaces are "
            "lost; run: pip install --upgrade transformers"
        )


def inference_tokenizer(path: Path) -> Any:
    """See `read_tokenizer`; does not import transformers if the tokens are the same without."""
    whole = partial(read_tokenizer, path)
    if not is_gguf(path):
        return plain_tokenizer(path, whole) or whole()
    backend, roles, template = gguf_parts(open_gguf(path))
    same = added_as_special(backend, list(roles.values()))
    return PlainTokenizer(backend, roles, template, whole) if same else whole()


@contextmanager
def in_transformers(path: Path) -> Iterator[None]:
    """Raise what goes wrong inside as ModelError: the parts of transformers raise many types."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{path} must load in transformers, got: {reason(error)}") from None


def read_model(path: Path, dtype: torch.dtype, **options: Any) -> Any:
    """Load the transformers model; a GGUF's weights are unpacked to ``dtype``.

    Raises ModelError if a tensor is missing, and the errors of transformers.
    """
    from transformers import AutoModelForCausalLM

    source, more = transformers_source(path)
    model, report = AutoModelForCausalLM.from_pretrained(
        source, dtype=dtype, output_loading_info=True, **more, **options
    )
    if missing := sorted(report["missing_keys"]):
        raise ModelError(  # transformers would draw them at random
            f"{path} must hold all of its weights, got none for {missing[0]}; "
            "save or fetch it again"
        )
    if dtype == torch.float64 and model._can_set_experts_implementation():
        model.set_experts_implementation("eager")  # grouped products have no float64
    if is_gguf(path):
        check_rope(model, path)
        model.hf_quantizer = None  # save_pretrained refuses a model with one
        vars(model.config).pop("quantization_config", None)
    return model


def transformers_source(path: Path) -> tuple[Path, dict[str, Any]]:
    """The arguments of ``from_pretrained`` for a model."""
    if not is_gguf(path):
        return path, {}
    import transformers

    if absent := [name for name in ("gguf", "accelerate") if find_spec(name) is None]:
        raise ModelError(
            f"transformers must have the package {absent[0]} to read {path.name}, got none; "
            "run: pip install gguf accelerate"
        )
    gguf = open_gguf(path)
    if len(gguf.paths) > 1:
        raise ModelError(
            f"transformers must have a GGUF in one file, got {path.name} in several; "
            "join them with llama-gguf-split --merge"
        )
    more: dict[str, Any] = {"gguf_file": path.name}
    with suppress(UnknownArchitecture):  # transformers may know it
        more["config"] = as_transformers(Fields(gguf))
    if unpacked := getattr(transformers, "GgufConfig", None):
        # such versions keep the blocks packed if a kernel for them is installed
        more["quantization_config"] = unpacked(dequantize=True)
    return path.parent, more


def check_rope(model: Any, path: Path) -> None:
    """Raise ModelError if transformers left out the file's rope scaling, where we know it."""
    try:
        ours, theirs = read_config(path), model.model.rotary_emb
    except UnknownArchitecture:
        return
    same = torch.allclose(ours.inverse_frequencies, theirs.inv_freq.float().cpu(), rtol=1e-5)
    if not same or abs(ours.rope_scale - theirs.attention_scaling) > 1e-5:
        raise ModelError(
            f"{path.name}: transformers must read the rope scaling of a GGUF, got frequencies "
            "without it; give the model in Hugging Face format"
        )
