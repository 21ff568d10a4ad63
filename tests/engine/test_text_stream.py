"""Text from tokens: what is shown is never taken back, nothing is held back without a reason."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparing.engine.text_stream import TextStream
from tests.tiny import END, tokenizer

BYTES = tokenizer("single")
LONGER = tokenizer("single")
LONGER.add_tokens(["xSTOPy", "a STOP", "ST"])


def stream(ids: list[int], stops: list[str], of: Any = BYTES) -> tuple[list[str], bool]:
    """The pieces that come out token by token, the end's included unless a stop ended it."""
    text = TextStream(of, stops)
    pieces = []
    for token in ids:
        text.push(token)
        piece, stopped = text.release()
        pieces.append(piece)
        assert text.text == "".join(pieces)
        if stopped:
            return pieces, True
    pieces.append(text.finish())
    assert text.text == "".join(pieces)
    return pieces, False


def ids_of(text: str) -> list[int]:
    return BYTES.encode(text)


@settings(max_examples=300, deadline=None)
@given(text=st.text("abc", max_size=30), stops=st.lists(st.text("abc", min_size=1, max_size=5)))
@example(text="abcab", stops=["bcd", "cab"])
@example(text="aab", stops=["ab", "aab"])
def test_cut_before_the_first_stop_string_to_be_complete(text, stops):
    pieces, stopped = stream(ids_of(text), stops)
    whole = "".join(pieces)
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(s) for s in stops)]
    assert stopped == bool(ends)
    if not ends:
        assert whole == text
        return
    said = text[: ends[0]]
    assert whole == said[: min(said.find(stop) for stop in stops if stop in said)]


@settings(max_examples=300, deadline=None)
@given(text=st.text("ab", max_size=20), stops=st.lists(st.text("abc", min_size=1, max_size=5)))
def test_only_the_longest_beginning_of_a_stop_string_is_held_back(text, stops):
    stops = [stop for stop in stops if stop not in text]
    shown = TextStream(BYTES, stops)
    for count, token in enumerate(ids_of(text), 1):
        shown.push(token)
        shown.release()
        said = text[:count]
        held = max(
            (n for s in stops for n in range(len(s)) if said.endswith(s[:n])),
            default=0,
        )
        assert shown.text == said[: count - held]


@pytest.mark.parametrize(
    ("words", "stops", "shown"),
    [
        (["a", "xSTOPy", "b"], ["STOP"], "ax"),  # in the middle of a token
        (["a STOP"], ["STOP", "a STOP!"], "a "),
        (["a", " ", "ST", "O", "P"], ["STOP"], "a "),
        (["a", "ST", "x"], ["STOP"], "aSTx"),  # held back, then not a stop
        (["xSTOPy"], ["y", "S"], "x"),  # both in one token: the one that begins first
        (["é", "\n", "\n", "b"], ["\n\n"], "é"),
        (["a", "😀", "b"], ["😀"], "a"),
        (["a", "<think>", "b"], ["<think>"], "a"),
    ],
)
def test_stop_strings_in_tokens_of_several_characters(words, stops, shown):
    ids = [token for word in words for token in LONGER.encode(word)]
    pieces, stopped = stream(ids, stops, LONGER)
    assert "".join(pieces) == shown
    assert stopped == (shown != "aSTx")


def test_half_a_code_point_waits_for_the_rest():
    pieces, _ = stream(ids_of("é😀!"), [])
    assert pieces == ["", "é", "", "", "", "😀", "!", ""]


def test_half_a_code_point_at_the_end_becomes_a_replacement_character():
    pieces, _ = stream(ids_of("a😀")[:-1], [])
    assert pieces[:-1] == ["a", "", "", ""]
    assert pieces[-1] == "\ufffd"


def test_end_token_has_no_text():
    pieces, _ = stream([*ids_of("ab"), BYTES.convert_tokens_to_ids(END), *ids_of("c")], [])
    assert pieces == ["a", "b", "", "c", ""]


@settings(max_examples=300, deadline=None)
@given(ids=st.lists(st.integers(0, len(BYTES) - 1), max_size=40))
def test_pieces_are_the_text_of_all_tokens(ids):
    """Any bytes: what a random model says is seldom UTF-8."""
    pieces, _ = stream(ids, [])
    assert "".join(pieces) == BYTES.decode(ids, skip_special_tokens=True)


@given(st.text(max_size=20))
def test_valid_text_comes_as_soon_as_it_can(text):
    shown = TextStream(BYTES, [])
    for character in text:
        for token in ids_of(character):
            shown.push(token)
            shown.release()
        assert shown.text.endswith(character) or character == "\ufffd"
    shown.finish()
    assert shown.text == text


def test_stop_strings_count_where_they_are_watched():
    shown = TextStream(BYTES, ["\n\n", "ab"])
    pieces = []

    def say(text: str) -> bool:
        for token in ids_of(text):
            shown.push(token)
            piece, stopped = shown.release()
            pieces.append(piece)
        return stopped

    shown.watch(None)
    assert not say("ab\n\na")
    assert "".join(pieces) == "ab\n\na"  # nothing is held back either
    shown.watch(len(shown.decoded), skip_newlines=True)
    assert not say("b\n")
    assert pieces[-2:] == ["b", ""]
    shown.watch(len(shown.decoded), skip_newlines=True)
    assert not say("\n\n\nx\n")
    assert say("\n")
    assert shown.text == "ab\n\nab\n\n\n\nx"
