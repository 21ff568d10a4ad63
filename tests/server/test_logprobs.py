"""Logprobs: the tokens of the content to the byte, those of the thought on request, and offsets."""

import pytest

from sparing.options import Sampling
from tests.server.live import live
from tests.server.saying import saying
from tests.server.wire import ASKED, QUESTION, Streamed
from tests.tiny import END

EMOJI = ["ð", "Ł", "İ", "ī"]  # the bytes of one, as byte-level BPE names them
MORE = {"temperature": 0, "logprobs": True, "top_logprobs": 2}
THOUGHTS = {"extra_body": {"sparing": {"thought_logprobs": True}}}


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """Says a thought, white space, and an answer with an emoji and a stop string."""
    pieces = ["Ġ", "<think>", "h", "m", "</think>", "Ċ", "so", *EMOJI, " on", "!", "?", "ĉ"]
    with live(saying(tmp_path_factory.mktemp("spoken"), pieces)) as server:
        yield server


def chat(server, **more):
    asked = {"model": server.service.model, "messages": [{"role": "user", "content": "a"}]}
    made = server.client().chat.completions.create
    whole = made(**asked | MORE | more).choices[0]
    return whole, Streamed(list(made(**asked | MORE | more, stream=True)))


def text_of(entries):
    return bytes(byte for entry in entries for byte in entry.bytes).decode()


def test_content_has_its_tokens_to_the_byte_and_no_others(spoken):
    whole, told = chat(spoken)
    assert whole.message.content == "so🎉 on!?"
    content = whole.logprobs.content
    assert [t.token for t in content] == ["so", *["\ufffd"] * 4, " on", "!", "?"]
    assert [t.bytes for t in content[1:5]] == [[byte] for byte in "🎉".encode()]
    assert text_of(content) == whole.message.content
    assert whole.logprobs.reasoning_content is None
    assert [t.bytes for t in told.logprobs] == [t.bytes for t in content]
    assert not told.thought_logprobs
    assert all(len(t.top_logprobs) == 2 and t.top_logprobs[0].bytes == t.bytes for t in content)


def test_special_tokens_have_the_bytes_of_their_text(spoken):
    whole, _ = chat(spoken, top_logprobs=20, max_tokens=11)
    others = {top.token: top.bytes for t in whole.logprobs.content for top in t.top_logprobs}
    assert others.get(END, list(END.encode())) == list(END.encode())


@pytest.mark.parametrize(("stop", "content"), [("n!", "so🎉 o"), ("!", "so🎉 on"), ("so", "")])
def test_a_stop_string_cuts_them_too(spoken, stop, content):
    whole, told = chat(spoken, stop=stop)
    assert text_of(whole.logprobs.content) == whole.message.content == content
    assert text_of(told.logprobs) == told.content[0] == content


def test_those_of_the_thought_come_on_request(spoken):
    whole, told = chat(spoken, **THOUGHTS)
    thought = [entry["token"] for entry in whole.logprobs.reasoning_content]
    assert thought == ["<think>", "h", "m", "</think>"]
    assert [entry["token"] for entry in told.thought_logprobs] == thought
    assert text_of(told.logprobs) == whole.message.content


def test_values_are_the_engines(server, pocket):
    [expected] = pocket.generate([ASKED["messages"]], sampling=Sampling(temperature=0, logprobs=2))
    asked = {"model": "pocket", "messages": [{"role": "user", "content": QUESTION}]}
    whole = server.client().chat.completions.create(**asked | MORE, **THOUGHTS).choices[0]
    tokens = [event for event in expected.events if event.type == "token"]
    thought = [e.logprobs.token for e in tokens if e.kind == "thought"]
    found = [entry["logprob"] for entry in whole.logprobs.reasoning_content]
    assert found == pytest.approx(thought, abs=1e-4)
    assert text_of(whole.logprobs.content) == whole.message.content == expected.answer
    answer = [e.logprobs.token for e in tokens if e.kind == "answer" and e.text.strip()]
    assert [t.logprob for t in whole.logprobs.content] == pytest.approx(answer, abs=1e-4)


def test_logprobs_alone_name_no_others(server):
    asked = ASKED | {"logprobs": True, "max_completion_tokens": 3}
    made = server.client().chat.completions.create
    [choice] = made(**asked, **THOUGHTS).choices
    assert [t["top_logprobs"] for t in choice.logprobs.reasoning_content] == [[], [], []]
    assert choice.logprobs.content == []
    [choice] = made(**asked | {"logprobs": False}).choices
    assert choice.logprobs is None


def test_all_tokens_are_the_answers_without_markers(tmp_path):
    with live(saying(tmp_path, ["Ġ", "so", " on"], markers=None)) as server:
        whole, told = chat(server, **THOUGHTS)
    assert text_of(whole.logprobs.content) == whole.message.content == "so on"
    assert whole.logprobs.reasoning_content == []
    assert text_of(told.logprobs) == "so on"


@pytest.mark.parametrize(
    ("stop", "offsets"),
    [
        (None, [0, 7, 8, 9, 17, 18, 20, 20, 20, 20, 21, 24, 25, 26, 27]),
        ("n!", [0, 7, 8, 9, 17, 18, 20, 20, 20, 20, 21, 23]),
    ],
)
def test_text_offsets_are_where_tokens_begin(spoken, stop, offsets):
    prompt = [spoken.service.engine.chat.tokenizer.get_vocab()["Ġ"]]
    asked = {"model": spoken.service.model, "prompt": prompt, "temperature": 0, "logprobs": 2}
    made = spoken.client().completions.create
    whole = made(**asked, stop=stop).choices[0]
    found = whole.logprobs
    assert found.text_offset == offsets
    assert max(offsets) <= len(whole.text)
    for token, offset in zip(found.tokens, found.text_offset, strict=True):
        if token not in ("\ufffd", END) and not (stop and token == "!"):
            assert whole.text[offset:]
            assert token.startswith(whole.text[offset:][: len(token)])
    told = Streamed(list(made(**asked, stop=stop, stream=True)))
    parts = [choice.logprobs for choice in told.choices if choice.logprobs]
    assert [offset for part in parts for offset in part.text_offset] == offsets
    assert [token for part in parts for token in part.tokens] == found.tokens
