"""From prompts to token ids: strings, ids and messages, and what is refused in one line."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers, processors

from sparing.errors import PromptError
from sparing.model.chat import ChatFormat
from sparing.model.generation_defaults import GenerationDefaults
from sparing.model.markers import mark_thoughts
from tests.tiny import TEMPLATE, tokenizer, unchecked

USER = [{"role": "user", "content": "hi"}]


def chat(fast=None, template=TEMPLATE):
    fast = fast or tokenizer()
    fast.chat_template = template
    return ChatFormat(fast, GenerationDefaults(frozenset()))


def with_bos():
    """A tokenizer that puts <s> before every text, as Llama's does."""
    fast = tokenizer()
    fast.add_special_tokens({"bos_token": AddedToken("<s>", special=True)})
    pair = ("<s>", fast.bos_token_id)
    fast.backend_tokenizer.post_processor = processors.TemplateProcessing("<s> $A", None, [pair])
    return fast


def refused(format_, prompt, **options):
    """The message; what a user hands in is not for the suite's type checks to refuse."""
    with unchecked(), pytest.raises(PromptError) as error:
        format_.encode(prompt, options)
    assert "\n" not in str(error.value)
    return str(error.value)


@given(st.text(min_size=1))
def test_a_string_as_it_stands(text):
    format_ = chat()
    prompt = format_.encode(text)
    assert format_.tokenizer.decode(prompt.ids) == text
    assert format_.decode(prompt.ids) == text


@given(st.lists(st.integers(0, 258), min_size=1))
def test_ids_as_they_stand(ids):
    assert chat().encode(ids).ids == ids


@pytest.mark.parametrize("kind", [tuple, list, lambda ids: [np.int64(i) for i in ids]])
def test_ids_in_other_sequences(kind):
    with unchecked():
        ids = chat().encode(kind([3, 4])).ids
    assert ids == [3, 4]
    assert [type(token) for token in ids] == [int, int]


def test_messages_go_through_the_template():
    format_ = chat()
    prompt = format_.encode(USER)
    assert format_.decode(prompt.ids) == "[user] hi\n[assistant] "
    assert not prompt.thinking


def test_options_reach_the_template():
    format_ = chat(template="{% if brief %}be brief {% endif %}{{ messages[0].content }}")
    assert format_.decode(format_.encode(USER, {"brief": True}).ids) == "be brief hi"
    assert format_.decode(format_.encode(USER).ids) == "hi"


def test_no_template_is_fine_until_messages_come():
    format_ = chat(template=None)
    assert not format_.has_template
    assert format_.decode(format_.encode("hi").ids) == "hi"
    assert "chat template" in refused(format_, USER)


@pytest.mark.parametrize(
    "prompt", ["hi", "<s>hi", [{"role": "user", "content": "hi"}], "<s><s>hi"], ids=str
)
def test_no_second_bos(prompt):
    """The tokenizer adds one to bare text; a template or a string may have its own."""
    fast = with_bos()
    format_ = chat(fast, "{{ bos_token }}{{ messages[0].content }}")
    begun = 2 if prompt == "<s><s>hi" else 1
    assert format_.encode(prompt).ids == [fast.bos_token_id] * begun + fast.encode(
        "hi", add_special_tokens=False
    )


def test_a_template_without_bos_gets_none():
    """Templates are written for apply_chat_template, which adds nothing."""
    fast = with_bos()
    ids = chat(fast).encode(USER).ids
    assert fast.bos_token_id not in ids
    assert ids == fast.apply_chat_template(USER, add_generation_prompt=True, return_dict=False)


@pytest.mark.parametrize("prompt", ["", [], ()])
def test_nothing_is_refused(prompt):
    assert "a token or more" in refused(chat(), prompt)
    assert "a token or more" in refused(chat(with_bos()), prompt)


def test_a_text_without_tokens_is_refused():
    fast = tokenizer()
    fast.backend_tokenizer.normalizer = normalizers.Strip()
    assert "a token or more" in refused(chat(fast), "  ")
    assert "a token or more" in refused(chat(template="{# nothing #}"), USER)


@pytest.mark.parametrize("ids", [[-1], [259], [3, 10**9, 4], [2**70]])
def test_ids_outside_the_vocabulary_are_refused(ids):
    message = refused(chat(), ids)
    assert "0..258" in message
    assert str(max(ids, key=abs)) in message


@pytest.mark.parametrize(
    "prompt",
    [
        None,
        3,
        b"hi",
        {"role": "user", "content": "hi"},
        [1.5, 2.5],
        [1, "a"],
        [1, 2.5],
        ["a", "b"],
        [None],
        [[1, 2]],
        [USER],
        [*USER, "hi"],
        [1, *USER],
        np.array([[1, 2], [3, 4]]),
        torch.tensor([1, 2]),
    ],
    ids=repr,
)
def test_what_is_no_prompt_is_refused(prompt):
    message = refused(chat(), prompt)
    assert "a string, a list of token ids or a list of chat messages" in message


@pytest.mark.parametrize("message", [{}, {"role": "user"}, {"content": "x"}, {"text": "x" * 999}])
def test_an_incomplete_message_is_refused(message):
    """Templates would print an empty string where a field is missing."""
    said = refused(chat(), [*USER, message])
    assert "role and content" in said
    assert len(said) < 200


def test_what_a_template_refuses_is_a_prompt_error():
    refusing = "{{ raise_exception('roles must alternate\nuser/assistant') }}"
    assert "roles must alternate" in refused(chat(template=refusing), USER)
    assert "messages" in refused(chat(template="{% if %}"), USER)
    assert "messages" in refused(chat(template="{{ messages[0].content + 1 }}"), USER)


@pytest.mark.parametrize("option", ["tokenize", "add_generation_prompt"])
def test_options_that_are_ours_are_refused(option):
    assert option in refused(chat(), USER, **{option: True})


def test_half_a_character_is_refused():
    """What an argument that is not UTF-8 becomes on the command line."""
    assert "Unicode" in refused(chat(), "caf\udce9")
    assert "Unicode" in refused(chat(), [{"role": "user", "content": "\ud800"}])


def test_decoding_leaves_special_tokens_out():
    format_ = chat()
    end = format_.tokenizer.eos_token_id
    assert format_.decode([*format_.encode("a").ids, end]) == "a"


WORDLESS = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "  \n", "so"])
def test_a_template_that_is_told_of_thoughts_renders_as_before(end):
    plain, told = chat(tokenizer(None), WORDLESS + end), tokenizer(None)
    told.chat_template = WORDLESS + end
    for _ in range(2):  # once is enough
        mark_thoughts(told)
    found = ChatFormat(told, GenerationDefaults(frozenset()))
    assert plain.markers is None
    assert (found.markers.start, found.markers.end) == ("<think>", "</think>")
    assert found.encode(USER).ids == plain.encode(USER).ids
    assert told.chat_template.count("</think>") == 1


@pytest.mark.parametrize("template", [None, "[THINK]{{ messages[0].content }}[/THINK]"])
def test_a_template_that_needs_not_be_told_stays(template):
    fast = tokenizer(None)
    fast.chat_template = template
    mark_thoughts(fast)
    assert fast.chat_template == template
