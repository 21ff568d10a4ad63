"""Think markers: where they are found, and whether a prompt leaves a thought open."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from sparing.errors import OptionError
from sparing.model.chat import ChatFormat
from sparing.model.generation_defaults import GenerationDefaults
from sparing.model.markers import KNOWN_MARKERS
from tests.tiny import END, NAMES_MARKERS, TEMPLATE, tokenizer, unchecked

R1 = (
    "{{ bos_token }}{% for m in messages %}{% set text = m.content %}"
    "{% if m.role == 'assistant' %}{% set text = text.split('</think>')[-1] %}{% endif %}"
    "<|{{ m.role }}|>{{ text }}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)
QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)
# What it writes behind the last message is no prefix of what it writes to be answered.
ENDS = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}{% if open %}<think>{% else %}<|a|>{% endif %}"
    "{% else %}</s>{% endif %}"
)
TALKS = {"role": "user", "content": "what does <think> mean?"}
ASKS = {"role": "user", "content": "hi"}


def chat(template=None, markers="single", given=None):
    fast = tokenizer(markers)
    fast.chat_template = template
    return ChatFormat(fast, GenerationDefaults(frozenset()), given)


def test_markers_of_the_vocabulary():
    markers = chat().markers
    assert (markers.start, markers.end) == ("<think>", "</think>")
    assert (markers.start_ids, markers.end_ids) == ((257,), (258,))


@pytest.mark.parametrize("pair", KNOWN_MARKERS)
def test_each_known_pair_is_found(pair):
    fast = tokenizer(None)
    fast.add_tokens([AddedToken(marker) for marker in pair])
    markers = ChatFormat(fast, GenerationDefaults(frozenset())).markers
    assert (markers.start, markers.end) == pair
    assert (markers.start_ids, markers.end_ids) == ((257,), (258,))


def test_markers_that_only_the_template_names():
    """They are several tokens long."""
    format_ = chat(NAMES_MARKERS, markers=None)
    assert format_.markers.start == "<think>"
    assert bytes(format_.decode(format_.markers.end_ids), "ascii") == b"</think>"
    assert len(format_.markers.end_ids) == len("</think>")


def test_the_vocabulary_goes_before_the_template():
    fast = tokenizer(None)
    fast.add_tokens([AddedToken("[THINK]"), AddedToken("[/THINK]")])
    fast.chat_template = NAMES_MARKERS
    assert ChatFormat(fast, GenerationDefaults(frozenset())).markers.start == "[THINK]"


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_a_model_without_markers(template):
    format_ = chat(template, markers=None)
    assert format_.markers is None
    assert not format_.encode("<think> not at all").thinking
    if template:
        assert not format_.encode([TALKS]).thinking


def test_half_a_pair_is_none():
    fast = tokenizer(None)
    fast.add_tokens([AddedToken("<think>")])
    assert ChatFormat(fast, GenerationDefaults(frozenset())).markers is None


def test_markers_given():
    markers = chat(given=("<|begin|>", "<|end|>")).markers
    assert (markers.start, markers.end) == ("<|begin|>", "<|end|>")
    assert len(markers.start_ids) == len("<|begin|>")


@pytest.mark.parametrize(
    "pair", [("<t>",), ("<t>", ""), ("", "</t>"), ("<t>", "<t>"), (1, 2), ("a", "b", "c")]
)
def test_wrong_markers_are_refused(pair):
    with unchecked(), pytest.raises(OptionError, match="two different strings") as error:
        chat(given=pair)
    assert repr(pair) in str(error.value)


@pytest.mark.parametrize("markers", ["single", "several"])
@pytest.mark.parametrize("messages", [[ASKS], [TALKS]])
def test_a_template_that_opens_the_thought(markers, messages):
    prompt = chat(R1, markers).encode(messages)
    assert prompt.thinking


@pytest.mark.parametrize("markers", ["single", "several"])
@pytest.mark.parametrize("said", ["hi", " <think> ", "", "<think>a</think>"])
def test_a_template_that_opens_the_thought_in_any_case(markers, said):
    always = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}{% endfor %}[assistant]"
    messages = [{"role": "user", "content": said}]
    assert chat(always + "<think>{# </think> #}", markers).encode(messages).thinking
    assert not chat(always + "{# <think> </think> #}", markers).encode(messages).thinking


@pytest.mark.parametrize("markers", ["single", "several"])
@pytest.mark.parametrize("options", [{}, {"enable_thinking": True}, {"enable_thinking": False}])
@pytest.mark.parametrize("message", [ASKS, TALKS])
def test_a_template_that_leaves_opening_to_the_model(markers, options, message):
    """Or that writes an empty thought, so that there is none."""
    format_ = chat(QWEN3, markers)
    prompt = format_.encode([message], options)
    assert not prompt.thinking
    empty = format_.tokenizer.decode(prompt.ids).endswith("<think>\n\n</think>\n\n")
    assert empty == (options.get("enable_thinking") is False)


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", "<", "</s>", "<thi"])), st.booleans())
def test_what_messages_say_opens_and_closes_nothing(parts, opens):
    messages = [{"role": "user", "content": "".join(parts)}]
    assert chat(ENDS).encode(messages, {"open": opens}).thinking == opens
    assert chat(TEMPLATE).encode(messages).thinking is False
    assert chat(R1).encode(messages).thinking is True


def test_earlier_thoughts_are_closed():
    answered = {"role": "assistant", "content": "<think>well</think>Hello."}
    assert not chat(TEMPLATE).encode([ASKS, answered, ASKS]).thinking
    assert chat(R1).encode([ASKS, answered, ASKS]).thinking


@pytest.mark.parametrize(
    ("text", "open_"),
    [
        ("<think>", True),
        ("<think>\nLet me", True),
        ("<think>a</think>", False),
        ("<think>a</think>b<think>", True),
        ("</think>", False),
        ("no thought", False),
    ],
)
@pytest.mark.parametrize("markers", ["single", "several"])
def test_raw_text_and_ids_that_end_inside_a_thought(text, open_, markers):
    format_ = chat(NAMES_MARKERS, markers)
    prompt = format_.encode(text)
    assert prompt.thinking == open_
    assert format_.encode(prompt.ids).thinking == open_


def test_an_end_token_is_no_marker():
    assert chat().encode(f"<think>{END}").thinking
