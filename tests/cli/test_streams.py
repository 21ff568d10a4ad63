"""stdin, stdout and stderr that are closed, full, or not in UTF-8."""

import io
import json
import subprocess
import sys

import pytest

from tests.cli.command import assert_one_line
from tests.tiny import tiny

GREEDY = ("--raw", "--model", tiny(), "--max-new-tokens", 40, "--temperature", 0, "--ignore-eos")
FULL = "error: stdout must take what is written, got: No space left on device\n"
CLOSED = "error: stdout must take what is written, got: Bad file descriptor\n"


def shell(command: str) -> subprocess.CompletedProcess:
    line = command.replace("sparing", f"{sys.executable} -m sparing")
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True)


@pytest.mark.parametrize("command", ["models", "models --json", "--help"])
def test_a_full_disk_is_one_line(command):
    outcome = shell(f"sparing {command} > /dev/full")
    assert (outcome.returncode, outcome.stderr) == (1, FULL)


@pytest.mark.parametrize("command", ["models", "help run"])
def test_a_closed_stdout_is_one_line(command):
    outcome = shell(f"sparing {command} >&-")
    assert (outcome.returncode, outcome.stderr) == (1, CLOSED)


def test_a_reader_that_leaves_is_fine():
    outcome = shell("sparing models --json | true; exit ${PIPESTATUS[0]}")
    assert outcome.returncode in (0, 1)  # 0: all was written before it left
    assert outcome.stderr == ""


def test_closed_stdin_and_stderr():
    assert shell("sparing run <&-").stderr.endswith("got an empty stdin\n")
    assert shell("sparing rnu 2>&-").returncode == 2
    assert shell("sparing models 2>&-").stdout.startswith("pocket\n")


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_an_answer_that_the_disk_does_not_take(sparing, monkeypatch, more):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        outcome = sparing("run", "hi", *GREEDY, *more)
    assert outcome.code == 1
    assert outcome.err.endswith(FULL)


@pytest.fixture
def written(monkeypatch):
    """Call it with a command line and an encoding of stdout; it gives the bytes that it writes."""

    def call(sparing, encoding, *arguments):
        stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdout", stdout)
            assert sparing(*arguments).code == 0
        return stdout.buffer.getvalue()

    return call


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_no_character_of_the_json_is_lost(sparing, written, encoding):
    whole, other = (
        json.loads(written(sparing, each, "run", "hi", *GREEDY, "--json").decode(each))
        for each in ("utf-8", encoding)
    )
    assert whole["text"] == other["text"]
    assert not whole["text"].isascii()


def test_the_text_has_question_marks(sparing, written):
    whole, other = (
        written(sparing, each, "run", "hi", *GREEDY).decode(each) for each in ("utf-8", "ascii")
    )
    assert other == whole.encode("ascii", "replace").decode()
    assert other != whole


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"hi there\n", "hi there"),
        (b"\xef\xbb\xbfhi there\r\n", "hi there"),
        ("hi there".encode("utf-16"), "hi there"),
        (b"hi\nthere\n\n", "hi\nthere\n"),
        (b"-5 + 3 = ?", "-5 + 3 = ?"),
    ],
)
def test_a_prompt_from_a_file_or_stdin(sparing, tmp_path, monkeypatch, data, text):
    file = tmp_path / "prompt.txt"
    file.write_bytes(data)
    options = ("--raw", "--model", tiny(), "--max-new-tokens", 1, "--json")
    asked = [sparing("run", text, *options), sparing("run", "--file", file, *options)]
    for given in ((), ("-",)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        asked.append(sparing("run", *given, *options))
    assert [each.code for each in asked] == [0] * 4
    ids = [json.loads(each.out)["prompt_token_ids"] for each in asked]
    assert ids == [list(ids[0])] * 4


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "a prompt must have a token or more, got an empty file"),
        (b"\n", "a prompt must have a token or more, got an empty file"),
        ("café".encode("latin-1"), "must be text in UTF-8, got byte 0xe9 at 3; convert it"),
        ("hi".encode("utf-16-le"), "must be text, got a zero byte"),
        (b"\xff\xfeh", "must be text in UTF-8, got byte 0x68 at 2"),
    ],
)
def test_a_file_without_a_prompt(sparing, tmp_path, data, said):
    file = tmp_path / "prompt.txt"
    file.write_bytes(data)
    assert_one_line(sparing("run", "--file", file), said)


def test_no_prompt(sparing, tmp_path, monkeypatch):
    assert_one_line(sparing("run", ""), "a prompt must have a token or more, got an empty text")
    assert_one_line(sparing("run", "hi", "--file", "x"), "PROMPT or --file must be given, got both")
    assert_one_line(sparing("run", "--file", tmp_path), "--file must be a file to read")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    assert_one_line(sparing("run"), "got an empty stdin")


@pytest.mark.parametrize("prompt", ["-5 + 3 = ?", "-5", "--", "- one\n- two", "-x + 3 = 7", "—"])
def test_a_prompt_may_begin_with_a_minus(sparing, prompt):
    options = ("--raw", "--model", tiny(), "--max-new-tokens", 1, "--json")
    before = ("--",) if prompt == "--" else ()
    outcome = sparing("run", *options, *before, prompt, *(() if before else ("--seed", "1")))
    assert outcome.code == 0, outcome.err
    assert len(json.loads(outcome.out)["prompt_token_ids"]) == len(prompt.encode())


def test_a_flag_that_is_none_is_still_named(sparing):
    assert_one_line(sparing("run", "hi", "--buget", 9), "No such option: --buget")
    assert_one_line(sparing("run", "hi", "-x"), "No such option: -x")
    assert_one_line(sparing("run", "hi", "--seed"), "--seed")
    assert_one_line(sparing("run", "hi", "there"), "unexpected extra argument")
