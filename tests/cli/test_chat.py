"""`sparing chat`: what is said, what is typed, and what is kept."""

import io

import pytest

from sparing.api import Engine
from sparing.cli.chat import Prompter
from tests.cli.command import ctrl_c_before
from tests.tiny import tiny

OPTIONS = ("--model", tiny(), "--max-new-tokens", 5, "--temperature", 0, "--ignore-eos")


@pytest.fixture
def chat(sparing, monkeypatch):
    """Call it with what is typed; it gives the outcome and the messages of each turn."""
    asked: list[list[tuple[str, str]]] = []
    stream = Engine.stream

    def seen(engine, messages, *args, **kwargs):
        asked.append([(message["role"], message["content"]) for message in messages])
        return stream(engine, messages, *args, **kwargs)

    monkeypatch.setattr(Engine, "stream", seen)

    def call(typed: str | bytes, *more: object):
        data = typed.encode() if isinstance(typed, str) else typed
        asked.clear()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        return sparing("chat", *OPTIONS, *more), list(asked)

    return call


def users(messages):
    return [text for role, text in messages if role == "user"]


def test_a_pipe_has_answers_only(chat):
    outcome, asked = chat("one\ntwo\n")
    assert outcome.code == 0
    assert ">" not in outcome.out.splitlines()[0][:2]
    assert "/help" not in outcome.err
    assert [users(messages) for messages in asked] == [["one"], ["one", "two"]]


@pytest.mark.parametrize("command", ["/clear", "/new"])
def test_a_new_chat_keeps_the_system_message(chat, command):
    _, asked = chat(f"one\n{command}\ntwo\n", "--system", "Be brief.")
    assert asked[1] == [("system", "Be brief."), ("user", "two")]


def test_commands_are_not_asked(chat):
    outcome, asked = chat("/help\n/halp\n/etc/passwd is a file\n/exit\nmore\n")
    assert [users(messages) for messages in asked] == [["/etc/passwd is a file"]]
    assert outcome.err.count("/clear  begin anew") == 2
    assert outcome.err.count("no command /halp; there are:") == 1


def test_a_text_of_many_lines(chat):
    _, asked = chat('one \\\ntwo\n"""a\n\n/exit\n  c"""\n"""d"""\n"""open\nend')
    assert users(asked[-1]) == ["one \ntwo", "a\n\n/exit\n  c", "d", "open\nend"]


def test_a_stray_byte_is_its_turn_s_error(chat):
    outcome, asked = chat(b"caf\xe9\nhi\n")
    assert outcome.code == 0
    assert "error: a prompt must be valid Unicode" in outcome.err
    assert users(asked[-1]) == ["hi"]


def test_an_interrupted_answer_is_forgotten(chat, monkeypatch):
    ctrl_c_before(monkeypatch, 2)
    outcome, asked = chat("one\ntwo\nthree\n")
    assert outcome.code == 0
    assert outcome.err.count("ended by interrupted") == 1
    assert [users(messages) for messages in asked] == [["one"], ["two"], ["two", "three"]]


def test_a_budget_that_is_too_small_by_now_ends_a_turn_only(chat):
    outcome, asked = chat(f"hi\n{'x' * 90}\nhi\n", "--budget", 60)
    assert outcome.err.count("error: --budget must be at least") == 1
    assert users(asked[-1]) == ["hi", "hi"]


class Typed(io.StringIO):
    def isatty(self):
        return True


def test_ctrl_c_at_the_prompt_says_how_to_leave(monkeypatch, capsys):
    typed = iter([KeyboardInterrupt, "one", EOFError])

    def answer(sign):
        said = next(typed)
        if isinstance(said, str):
            return said
        raise said

    monkeypatch.setattr("sys.stdin", Typed())
    monkeypatch.setattr("builtins.input", answer)
    assert list(Prompter().turns()) == ["one"]
    assert "Ctrl-D or /exit ends" in capsys.readouterr().err
