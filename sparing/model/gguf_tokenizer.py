"""A GGUF's tokenizer, chat template and end tokens, in the form of transformers.

The file only names its pre-tokenizer (``tokenizer.ggml.pre``); the regular expressions are in
`pre_tokenizers`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from sparing.errors import ModelError, reason
from sparing.model.gguf import Gguf
from sparing.model.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer

UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 2, 3, 4, 5  # values of tokenizer.ggml.token_type
SPACE = "▁"  # SentencePiece's space
# Control or user-defined tokens with these texts end an answer.
ENDS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|EOT|>",
    "<EOT>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
    "</s>",
    "<eos>",
)
SAMPLING = {  # general.sampling.* -> field of Sampling
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}
END_IDS = ("eos_token_id", "eot_token_id", "eom_token_id")


@dataclass(frozen=True)
class Vocabulary:
    """The file's tokens and its other fields of ``tokenizer.ggml``."""

    path: object  # for the messages
    fields: dict[str, Any]
    tokens: list[str]  # by id
    types: list[int]  # by id

    @classmethod
    def of(cls, gguf: Gguf) -> "Vocabulary":
        prefix = "tokenizer.ggml."
        fields = {
            key.removeprefix(prefix): value
            for key, value in gguf.metadata.items()
            if key.startswith(prefix)
        }
        tokens = strings(gguf.path, fields, "tokens")
        types = fields.get("token_type")
        if types is None:
            types = np.ones(len(tokens), np.int32)
        if not isinstance(types, np.ndarray) or len(types) != len(tokens):
            raise ModelError(
                f"{gguf.path}: tokenizer.ggml.token_type must have a number for each of "
                f"{len(tokens)} tokens; fetch the file again"
            )
        return cls(gguf.path, fields, tokens, types.tolist())

    @property
    def ids(self) -> dict[str, int]:
        """Ids by token, without unused tokens."""
        pairs = zip(self.tokens, self.types, strict=True)
        return {token: id_ for id_, (token, kind) in enumerate(pairs) if kind != UNUSED}

    def special(self, name: str) -> str | None:
        """The text of the token in the field ``name`` (``bos_token_id``), if there is one."""
        id_ = self.fields.get(name)
        if not isinstance(id_, int) or not 0 <= id_ < len(self.tokens):
            return None
        return self.tokens[id_]

    def added(self) -> list[AddedToken]:
        """Tokens to match in a text before it is split into words."""
        return [
            AddedToken(token, special=kind != USER_DEFINED, normalized=False)
            for token, kind in zip(self.tokens, self.types, strict=True)
            if kind in (UNKNOWN, CONTROL, USER_DEFINED) and token
        ]

    def end_ids(self) -> frozenset[int]:
        """Tokens that end an answer: by field, and by text."""
        roles = [self.fields[name] for name in END_IDS if isinstance(self.fields.get(name), int)]
        marked = (CONTROL, USER_DEFINED)
        return frozenset(
            id_
            for id_, (token, kind) in enumerate(zip(self.tokens, self.types, strict=True))
            if id_ in roles or (kind in marked and token in ENDS)
        )


def gguf_tokenizer(gguf: Gguf) -> Any:
    """Build a fast transformers tokenizer with the file's chat template; raises ModelError."""
    from transformers import PreTrainedTokenizerFast

    backend, roles, template = gguf_parts(gguf)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, clean_up_tokenization_spaces=False, **roles
    )
    tokenizer.chat_template = template
    return tokenizer


def gguf_parts(gguf: Gguf) -> tuple[Tokenizer, dict[str, str], str | None]:
    """Backend, special tokens by role, and chat template.

    Raises ModelError with the name of a missing or unsupported field.
    """
    vocabulary = Vocabulary.of(gguf)
    try:
        backend = build(vocabulary)
    except ModelError:
        raise
    except Exception as error:  # the parts of tokenizers raise many types
        raise ModelError(
            f"{gguf.path}: the tokenizer's fields must be valid, got: {reason(error)}; "
            "fetch the file again"
        ) from None
    roles = {
        role: vocabulary.special(f"{name}_token_id")
        for role, name in (
            ("bos_token", "bos"),
            ("eos_token", "eos"),
            ("unk_token", "unknown"),
            ("pad_token", "padding"),
        )
    }
    template = gguf.metadata.get("tokenizer.chat_template")
    known = {role: token for role, token in roles.items() if token is not None}
    return backend, known, template if isinstance(template, str) and template else None


def gguf_sampling(gguf: Gguf) -> dict[str, Any]:
    """The file's sampling options; most files have none."""
    prefix = "general.sampling."
    found = {ours: gguf.metadata.get(prefix + theirs) for theirs, ours in SAMPLING.items()}
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def build(vocabulary: Vocabulary) -> Tokenizer:
    model = vocabulary.fields.get("model")
    if model == "gpt2":
        return byte_level(vocabulary)
    if model == "llama":
        return sentence_piece(vocabulary)
    raise ModelError(
        f"{vocabulary.path}: tokenizer.ggml.model must be gpt2 or llama, got {model!r}; "
        "not supported"
    )


def byte_level(vocabulary: Vocabulary) -> Tokenizer:
    """Byte-level BPE with the pre-tokenizer of ``tokenizer.ggml.pre``."""
    name = vocabulary.fields.get("pre", "default")
    way = PRE_TOKENIZERS.get(name) if isinstance(name, str) else None
    if way is None:
        raise ModelError(
            f"{vocabulary.path}: tokenizer.ggml.pre must be one of {', '.join(PRE_TOKENIZERS)}, "
            f"got {name!r}; not supported"
        )
    merges = strings(vocabulary.path, vocabulary.fields, "merges")
    pairs: list[Any] = [tuple(merge.split(" ", 1)) for merge in merges]
    backend = Tokenizer(models.BPE(vocabulary.ids, pairs, ignore_merges=way.whole_words))
    if way.composed:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = splitter(way)
    backend.decoder = decoders.ByteLevel()
    return finished(backend, vocabulary, bos=way.bos)


def splitter(way: PreTokenizer) -> Any:
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in way.patterns]
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*splits, level])


def sentence_piece(vocabulary: Vocabulary) -> Tokenizer:
    """SentencePiece BPE with byte fallback, as in Llama 2 and Mistral."""
    ids, scores = vocabulary.ids, vocabulary.fields.get("scores")
    if not isinstance(scores, np.ndarray) or len(scores) != len(vocabulary.tokens):
        raise ModelError(
            f"{vocabulary.path}: tokenizer.ggml.scores must have a number for each of "
            f"{len(vocabulary.tokens)} tokens; fetch the file again"
        )
    backend = Tokenizer(
        models.BPE(
            ids,
            merges_by_score(ids, scores.tolist()),
            unk_token=vocabulary.special("unknown_token_id"),
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefixed = vocabulary.fields.get("add_space_prefix", True)
    steps = [normalizers.Prepend(SPACE)] if prefixed else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    ends = [decoders.Strip(" ", 1, 0)] if prefixed else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *ends]
    )
    return finished(backend, vocabulary, bos=True)


def merges_by_score(ids: dict[str, int], scores: list[float]) -> list[tuple[str, str]]:
    """All pairs of tokens that join to a token, the best score first, as in transformers."""
    found = []
    for token, id_ in ids.items():
        halves = ((token[:at], token[at:]) for at in range(1, len(token)))
        pairs = [(left, right) for left, right in halves if left in ids and right in ids]
        pairs.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        found += [(scores[id_], len(left), len(right), left, right) for left, right in pairs]
    found.sort(key=lambda merge: merge[:3], reverse=True)
    return [merge[3:] for merge in found]


def finished(backend: Tokenizer, vocabulary: Vocabulary, bos: bool) -> Tokenizer:
    """Add the special tokens, and the start and end tokens of a text if the file asks for them."""
    backend.add_tokens(vocabulary.added())
    first = vocabulary.special("bos_token_id")
    last = vocabulary.special("eos_token_id")
    around = []
    if vocabulary.fields.get("add_bos_token", bos) and first:
        around.append((first, vocabulary.fields["bos_token_id"]))
    begins = [f"{token}:0" for token, _ in around]
    ends = []
    if vocabulary.fields.get("add_eos_token", False) and last:
        around.append((last, vocabulary.fields["eos_token_id"]))
        ends = [f"{last}:0"]
    if around:
        backend.post_processor = TemplateProcessing(
            single=[*begins, "$A:0", *ends], pair=None, special_tokens=around
        )
    return backend


def strings(path: object, fields: dict[str, Any], name: str) -> list[str]:
    found = fields.get(name)
    if not isinstance(found, list):
        raise ModelError(
            f"{path}: the metadata must have tokenizer.ggml.{name}, a list of strings, got none; "
            "convert the model again with a current llama.cpp"
        )
    return found
