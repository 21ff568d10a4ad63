"""Every sequence of tokens has a text, whatever its bytes, and none of it is taken back."""

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from sparing.engine.detokenizer import BROKEN, Detokenizer
from tests.tiny import tokenizer

SPACE = "\u2581"


@cache
def with_byte_fallback() -> PreTrainedTokenizerFast:
    """In the style of Llama-2: a newline is a byte token, a run of bytes is read as a whole."""
    vocabulary = {word: n for n, word in enumerate(["<unk>", "</s>"])}
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    for word in (SPACE, *map(chr, range(33, 127)), f"{SPACE}so"):
        vocabulary[word] = len(vocabulary)
    model = models.BPE(vocabulary, merges=[], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    backend = Tokenizer(model)
    backend.normalizer = normalizers.Replace(" ", SPACE)
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    backend.add_special_tokens([AddedToken("</s>", special=True, normalized=False)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")


def byte_tokens(data: bytes) -> list[str]:
    return [f"<0x{byte:02X}>" for byte in data]


def pieces(of: Any, ids: list[int]) -> list[str]:
    told = Detokenizer(of)
    return [*(told.push(token) for token in ids), told.finish()]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["a", *byte_tokens(b"\n\xb2"), f"{SPACE}so"], f"a\n{BROKEN} so"),
        ([*byte_tokens("é".encode() + b"\xb2"), "b"], f"é{BROKEN}b"),
        ([*byte_tokens(b"\xb2" + "你".encode()), "b"], f"{BROKEN}你b"),
        ([*byte_tokens(b"\xb2" + "😀".encode() + b"\xff" + "é".encode())], f"{BROKEN}😀{BROKEN}é"),
        ([*byte_tokens("é你😀".encode())], "é你😀"),
        ([*byte_tokens(b"\xb2" + "é".encode()), "b"], f"{BROKEN}éb"),
        ([*byte_tokens(b"\xb2" + "é".encode() + b"\xb2"), "b"], f"{BROKEN}é{BROKEN}b"),
        ([f"{SPACE}so", f"{SPACE}so", SPACE, f"{SPACE}so"], "so so  so"),
        ([SPACE, "</s>", f"{SPACE}so"], " so"),
        ([*byte_tokens(b"\xe4\xbd")], BROKEN * 2),
    ],
)
def test_a_stray_byte_costs_itself_alone(words, text):
    of = with_byte_fallback()
    assert "".join(pieces(of, of.convert_tokens_to_ids(words))) == text


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=30))
def test_any_tokens_have_a_text(ids):
    """Ids beyond the vocabulary too. Where nothing is broken it is the text of all of them."""
    for of in (with_byte_fallback(), tokenizer("single")):
        text = "".join(pieces(of, ids))
        whole = of.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert text == whole or (BROKEN in whole and of is with_byte_fallback())


@given(st.text(max_size=20))
def test_text_of_bytes_comes_character_by_character(text):
    of = with_byte_fallback()
    told, shown = Detokenizer(of), ""
    for at, character in enumerate(text):
        for token in of.convert_tokens_to_ids(byte_tokens(character.encode())):
            shown += told.push(token)
        if character != BROKEN:
            assert shown == text[: at + 1].removeprefix(" " if text.startswith(" ") else "")
    assert (shown + told.finish()).lstrip(" ") == text.lstrip(" ")


@pytest.mark.parametrize("byte", [0xB2, 0xE4])
def test_what_never_makes_a_character_is_not_held_for_long(byte):
    of = with_byte_fallback()
    [token] = of.convert_tokens_to_ids([f"<0x{byte:02X}>"])
    told = Detokenizer(of)
    shown = "".join(told.push(token) for _ in range(1000))
    assert len(shown) >= 997
