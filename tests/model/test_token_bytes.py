"""The bytes of tokens: together they are the text, whatever the tokenizer."""

import json
import os
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from sparing.errors import ModelError
from sparing.model.checkpoint import inference_tokenizer
from sparing.model.sources import find_model
from sparing.model.token_bytes import Offsets, TokenBytes, matched
from tests.tiny import tokenizer as byte_level

GGUF = os.environ.get("SPARING_GGUF_DIR")
SPACE = "▁"
WORDS = ["▁a", "▁on", "so", "an", "the", SPACE, *"abcdehnost.,é"]


def wrapped(backend):
    return SimpleNamespace(backend_tokenizer=backend)


def finished(backend, decoder):
    backend.decoder = decoder
    backend.add_special_tokens([AddedToken("<s>", special=True, normalized=False)])
    backend.add_tokens([AddedToken(word, normalized=False) for word in ("<think>", "né")])
    return wrapped(backend)


@cache
def sentence_piece(strip: bool = True):
    """With byte fallback, as Llama 2's; without ``strip`` as Gemma's."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS, "▁o", "th"]
    merges = [("▁", "a"), ("▁", "o"), ("▁o", "n"), ("s", "o"), ("a", "n"), ("t", "h"), ("th", "e")]
    model = models.BPE(
        {piece: id_ for id_, piece in enumerate(pieces)},
        merges,
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    backend = Tokenizer(model)
    prefix = [normalizers.Prepend(SPACE)] if strip else []
    backend.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    ends = [decoders.Strip(" ", 1, 0)] if strip else []
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *ends]
    return finished(backend, decoders.Sequence(steps))


@cache
def metaspace():
    pieces = [(word, -float(at)) for at, word in enumerate(["<unk>", *WORDS])]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return finished(backend, decoders.Metaspace())


@cache
def word_piece():
    words = ["[UNK]", "so", "on", "the", "##s", "##n", ",", "."]
    backend = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return finished(backend, decoders.WordPiece(cleanup=True))


@cache
def plain():
    """Without a decoder: words are joined by spaces."""
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "so": 1, "on": 2, "the": 3}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return wrapped(backend)


MADE = {
    "byte level": byte_level,
    "SentencePiece": sentence_piece,
    "Gemma": lambda: sentence_piece(False),
    "Metaspace": metaspace,
    "WordPiece": word_piece,
    "no decoder": plain,
}
TEXTS = st.one_of(
    st.text(max_size=20),
    st.text("abcdehnost .,é\n🎉▁<>", max_size=30),
    st.lists(st.sampled_from(["so", "on", "the", "sons", ",", "né", "<think>", "<s>", " "])).map(
        " ".join
    ),
)


@pytest.mark.parametrize("name", MADE)
@given(text=TEXTS)
@settings(deadline=None, max_examples=150)
def test_the_bytes_of_a_text_are_the_text(name, text):
    tokenizer = MADE[name]()
    backend, tokens = tokenizer.backend_tokenizer, TokenBytes(tokenizer)
    ids = backend.encode(text, add_special_tokens=False).ids
    decoded = backend.decode(ids, skip_special_tokens=True)
    if name == "byte level" or "\N{REPLACEMENT CHARACTER}" not in decoded:
        assert b"".join(tokens.text(ids)).decode() == decoded


@pytest.mark.parametrize("model", ["pocket", "smollm2"])
@given(text=TEXTS)
@settings(deadline=None, max_examples=50)
def test_the_bytes_of_real_tokenizers_are_the_text(model, text):
    tokenizer, tokens = real(model)
    ids = tokenizer.encode(text, add_special_tokens=False)
    decoded = tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=True)
    assert b"".join(tokens.text(ids)).decode(errors="replace") == decoded
    assert b"".join(map(tokens.__getitem__, ids)).decode(errors="replace") == tokenizer.decode(ids)


@cache
def real(model):
    try:
        tokenizer = inference_tokenizer(find_model(model))
    except ModelError as error:
        pytest.skip(str(error))
    return tokenizer, TokenBytes(tokenizer)


@pytest.mark.skipif(GGUF is None, reason="SPARING_GGUF_DIR names no folder of real models")
@given(text=TEXTS)
@settings(deadline=None, max_examples=50)
def test_the_bytes_of_ggufs_are_the_text(text):
    for file in sorted(Path(str(GGUF)).glob("*.gguf")):
        tokenizer, tokens = real(str(file))
        ids = tokenizer.encode(text, add_special_tokens=False)
        decoded = tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=True)
        assert b"".join(tokens.text(ids)).decode() == decoded


def test_single_tokens():
    kinds = ("byte level", "SentencePiece", "WordPiece")
    byte, piece, words = (TokenBytes(MADE[name]()) for name in kinds)

    def of(tokens, text):
        return tokens[tokens._backend.token_to_id(text)]

    assert of(byte, "Ġ") == b" "
    assert of(byte, "ð") == b"\xf0"
    assert of(byte, "<think>") == b"<think>"
    assert of(byte, "<|endoftext|>") == b"<|endoftext|>"
    assert of(piece, "<0xE2>") == b"\xe2"
    assert of(piece, "▁on") == b" on"
    assert piece.begins(piece._backend.token_to_id("▁on")) == b"on"
    assert of(piece, "né") == "né".encode()
    assert of(words, "so") == b" so"
    assert of(words, "##s") == b"s"
    assert of(words, ",") == b","
    assert byte[10**6] == b""


def test_no_token_is_looked_at_before_it_is_asked_for():
    tokens = TokenBytes(byte_level())
    assert not tokens._known
    assert len({tokens[id_] for id_ in range(256)}) == 256


def test_offsets_of_parts_of_characters_and_of_broken_bytes():
    offsets = Offsets()
    parts = [b"a", *(bytes([b]) for b in "🎉".encode()), b" b", b"\xf0", b"\x9f", b"c", b"d"]
    shown = ["a", "", "", "", "🎉", " b", "", "", "\ufffd\ufffdc", "d"]  # a mark for each byte
    released, found = 0, []
    for part, text in zip(parts, shown, strict=True):
        found.append(offsets.push(part, released))
        released += len(text)
    assert found == [0, 1, 1, 1, 1, 2, 4, 4, 4, 7]


MATCHED = [
    (b" on", b"on and", False, (b"on", 2)),
    (b" on", b" on", False, (b" on", 3)),
    (b"\n\n", b"on", False, (b"", 0)),
    (b"\n", b"", False, None),
    (b"\n", b"", True, (b"", 0)),
    (b"on", b"o", False, None),
    (b"on\n", b"on", False, None),
    (b"on\n", b"on", True, (b"on", 2)),
    (b"of", b"on", False, (b"", 0)),
    (b"\xf0", "🎉".encode(), False, (b"\xf0", 1)),
    (b"\xf0", "\ufffd!".encode(), False, (b"\xf0", 3)),
    (b" \n", b"\nb", False, (b"\n", 1)),
    (b"b", b"\nb", False, (b"\nb", 2)),
]


@pytest.mark.parametrize(("part", "rest", "over", "expected"), MATCHED)
def test_a_token_within_a_text(part, rest, over, expected):
    assert matched(part, rest, over=over) == expected


def test_the_decoder_is_read_from_its_json():
    state = json.loads(sentence_piece().backend_tokenizer.decoder.__getstate__())
    assert [step["type"] for step in state["decoders"]][1] == "ByteFallback"
