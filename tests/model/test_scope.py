"""A model that was made for few questions says so of all others."""

import json

import pytest

from sparing import load
from sparing.errors import ModelError
from sparing.model.scope import SCOPE_FILE, Scope
from tests.tiny import checkpoint

CONTENT = {"questions": [r"How many \d+", "^unused$"], "notice": "not for this"}


def test_notice_for_other_questions_alone(tmp_path):
    path = checkpoint(tmp_path, "llama")
    (path / SCOPE_FILE).write_text(json.dumps(CONTENT))
    chat = load(path).chat
    asked = [{"role": "user", "content": "How many 12?"}]
    assert chat.encode(asked).notice is None
    assert chat.encode("so: How many 1s").notice is None
    assert chat.encode(chat.tokenizer.encode("How many 7")).notice is None
    assert chat.encode([{"role": "user", "content": "How much 12?"}]).notice == "not for this"
    assert chat.encode("unused, twice").notice == "not for this"
    parts = [{"type": "text", "text": "How many "}, {"type": "text", "text": "12?"}]
    assert chat.encode([{"role": "user", "content": parts}]).notice is None


def test_each_turn_of_a_conversation_is_looked_at(tmp_path):
    path = checkpoint(tmp_path, "llama")
    (path / SCOPE_FILE).write_text(json.dumps(CONTENT))
    chat = load(path).chat
    known, other = ({"role": "user", "content": text} for text in ("How many 12?", "Who are you?"))
    reply = {"role": "assistant", "content": "How many 3"}
    assert chat.encode([known, reply, other]).notice == "not for this"
    assert chat.encode([other, reply, known]).notice is None
    assert chat.encode([reply]).notice == "not for this"


def test_result_stream_and_json_carry_the_notice(tmp_path):
    path = checkpoint(tmp_path, "llama")
    (path / SCOPE_FILE).write_text(json.dumps(CONTENT))
    engine = load(path)
    known, other = engine.generate(["How many 3", "why"])
    assert known.notice is None
    assert other.notice == other.to_dict()["notice"] == "not for this"
    stream = engine.stream("why")
    assert stream.notice == "not for this"
    next(stream)
    assert stream.result().notice == "not for this"


def test_without_a_scope_nothing_is_said(tmp_path):
    assert load(checkpoint(tmp_path, "llama")).chat.encode("why").notice is None


@pytest.mark.parametrize(
    "content", [{"questions": ["("], "notice": "n"}, {"questions": ["a"]}, {"questions": 3}]
)
def test_broken_scope_is_refused_by_name(tmp_path, content):
    (tmp_path / SCOPE_FILE).write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"scope\.json must hold questions"):
        Scope.load(tmp_path)
