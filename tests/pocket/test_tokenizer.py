"""Pocket's tokenizer: digits apart, any text there and back, one template for training and use."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparing.model.chat import ChatFormat
from sparing.model.generation_defaults import GenerationDefaults
from sparing.pocket.corpus import questions
from sparing.pocket.tokenizer import END, PAD, SPECIAL, VOCABULARY, train_tokenizer
from sparing.train.examples import Example, Piece, encode

COUNTS = {"legs": {"standard": 30}, "sums": {"standard": 20}, "times": {"standard": 40}}
FIRST = list(questions("train", 3, COUNTS))
TEXTS = [
    text
    for example in (question.example for question in FIRST)
    for text in (example.messages[0]["content"], *(piece.text for piece in example.pieces))
]
FAST = train_tokenizer(TEXTS)
CHAT = ChatFormat(FAST, GenerationDefaults(frozenset()))
USER = [{"role": "user", "content": "What is 12 + 345?"}]
EVERYTHING = st.text() | st.lists(st.sampled_from([*TEXTS, *SPECIAL]), max_size=4).map("".join)


def ids(text):
    return FAST.encode(text, add_special_tokens=False)


@settings(deadline=None)
@given(EVERYTHING)
def test_any_text_there_and_back(text):
    assert FAST.decode(ids(text)) == text


@settings(deadline=None)
@given(st.lists(st.sampled_from([*"0123456789 +-=:\n", " legs", "each", "١"])).map("".join))
def test_every_digit_is_a_token_of_its_own(text):
    tokens = [FAST.decode([token]) for token in ids(text)]
    assert [t for t in tokens if re.search("[0-9]", t)] == re.findall("[0-9]", text)


def test_special_tokens_are_single_ids_and_the_markers_stay_in_texts():
    assert [ids(token) for token in SPECIAL] == [[at] for at in range(len(SPECIAL))]
    assert (FAST.eos_token, FAST.pad_token) == (END, PAD)
    assert len(FAST) <= VOCABULARY
    shown = FAST.decode(ids("".join(SPECIAL) + "x"), skip_special_tokens=True)
    assert shown == "<think></think>x"
    assert CHAT.markers is not None
    assert (len(CHAT.markers.start_ids), len(CHAT.markers.end_ids)) == (1, 1)


def test_it_has_learnt_words():
    assert len(ids(" legs each, ")) < 5
    assert len(ids("xyzzy")) == 5


def test_the_same_texts_make_the_same_tokenizer():
    assert train_tokenizer(TEXTS).get_vocab() == FAST.get_vocab()
    assert len(train_tokenizer(TEXTS, 300)) == 300


def test_saved_and_loaded(tmp_path):
    from transformers import AutoTokenizer

    FAST.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in (*TEXTS[:50], "".join(SPECIAL), "  7 ünï 8\n\n"):
        assert again.encode(text, add_special_tokens=False) == ids(text)
        assert again.decode(ids(text)) == text
    assert again.chat_template == FAST.chat_template
    assert (again.eos_token_id, again.pad_token_id) == (FAST.eos_token_id, FAST.pad_token_id)


def rendered(messages, **options):
    return FAST.apply_chat_template(messages, tokenize=False, **options)


def test_the_template():
    asked = "<|im_start|>user\nWhat is 12 + 345?<|im_end|>\n"
    assert rendered(USER) == asked
    waiting = f"{asked}<|im_start|>assistant\n"
    assert rendered(USER, add_generation_prompt=True) == waiting
    assert rendered(USER, add_generation_prompt=True, enable_thinking=True) == waiting
    unthinking = rendered(USER, add_generation_prompt=True, enable_thinking=False)
    assert unthinking == f"{waiting}<think>\n\n</think>\n\n"
    assert rendered(USER, enable_thinking=False) == asked


@pytest.mark.parametrize("thought", ["<think>\n1+1=2\n</think>\n\n", "<think>\n\n</think>\n\n", ""])
def test_earlier_thoughts_are_dropped(thought):
    messages = [*USER, {"role": "assistant", "content": f"{thought}357"}, *USER]
    plain = [*USER, {"role": "assistant", "content": "357"}, *USER]
    assert rendered(messages) == rendered(plain)
    assert "<|im_start|>assistant\n357<|im_end|>\n<|im_start|>user" in rendered(messages)


def test_a_users_think_marker_is_the_users():
    message = {"role": "user", "content": "what is </think>?"}
    assert "what is </think>?" in rendered([message])


@pytest.mark.parametrize("at", range(0, len(FIRST), 7))
def test_training_reads_what_the_engine_feeds(at):
    """The engine feeds the prompt, then single tokens: those of the pieces, one after the other."""
    example = FIRST[at].example
    found = encode(FAST, example).ids
    prompt = CHAT.encode(example.messages).ids
    assert found[: len(prompt)] == prompt
    response = "".join(piece.text for piece in example.pieces)
    assert FAST.decode(found[len(prompt) :]) == response + END
    assert not CHAT.encode(example.messages).thinking


def test_an_empty_thought_is_trained_as_it_is_asked_for():
    pieces = [Piece("<think>\n\n</think>\n\n", taught=False), Piece("357")]
    asked = CHAT.encode(USER, {"enable_thinking": False}).ids
    assert encode(FAST, Example(USER, pieces, "")).ids == [*asked, *ids("357"), FAST.eos_token_id]
