"""Data of one's own: fields found or named, CSV, encodings, endings."""

import json

import pytest

from sparing.errors import OptionError
from sparing.tasks.datasets import RowsTask
from sparing.tasks.find import find_tasks
from sparing.tasks.forms import INSTRUCTION, Fields

PLAIN = [{"question": "3+5?", "answer": "8"}, {"question": "Is 9 prime?", "answer": "no"}]


@pytest.mark.parametrize("question", ["question", "problem", "prompt", "instruction", "Input"])
@pytest.mark.parametrize("answer", ["answer", "target", "label", "OUTPUT", "solution"])
def test_any_question_with_its_answer(question, answer):
    task = RowsTask.of("rows", [{question: r["question"], answer: r["answer"]} for r in PLAIN])
    first, second = task.problems(2, 0)
    assert (first.question, first.answer) == (f"3+5?\n{INSTRUCTION}", "8")
    assert task.grade(first, r"It is \boxed{8}.")
    assert task.grade(second, r"\boxed{\text{No}}")
    assert not task.grade(second, "Yes")


def test_an_answer_behind_hashes_or_in_a_box():
    rows = [{"prompt": "?", "target": "2*4 = 8\n#### 1,008"}, {"prompt": "?", "target": 8.0},
            {"prompt": "?", "target": r"So \boxed{7}, no, \boxed{\frac{1}{2}}."}]  # fmt: skip
    assert [p.answer for p in RowsTask.of("a", rows).problems(3, 0)] == [
        "1008",
        "8",
        r"\frac{1}{2}",
    ]


def test_fields_by_name(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"question": "x", "prompt": "3+5?", "Gold": 8, "answer": 9}))
    [task] = find_tasks(str(file), Fields("Prompt", "gold"))
    [problem] = task.problems(1, 0)
    assert (problem.question, problem.answer) == (f"3+5?\n{INSTRUCTION}", "8")
    with pytest.raises(
        OptionError, match="must have the field nothing as their answer, got answer"
    ):
        find_tasks(str(file), Fields("prompt", "nothing"))
    with pytest.raises(OptionError, match="are of a file or a hub data set, got sums"):
        find_tasks("sums", Fields("prompt"))


ROWS = {
    "comma.csv": 'question,answer\n"3+5, ""or"" more?",8\n\n"two\nlines",9\n',
    "semicolon.CSV": 'question;answer\n"3+5, ""or"" more?";8\n"two\nlines";9\n',
    "tab.csv": 'Question \tanswer\r\n"3+5, ""or"" more?"\t8\r\n"two\nlines"\t9\r\n',
    "a.JSONL": '{"question": "3+5, \\"or\\" more?", "answer": 8}\r\n'
    '{"question": "two\\nlines", "answer": 9}',
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ROWS)
def test_csv_and_its_encodings(tmp_path, name, encoding):
    file = tmp_path / name
    file.write_bytes(ROWS[name].encode(encoding))
    [task] = find_tasks(str(file))
    questions = [p.question.removesuffix(f"\n{INSTRUCTION}") for p in task.problems(9, 0)]
    assert questions == ['3+5, "or" more?', "two\nlines"]
    assert [p.answer for p in task.problems(9, 0)] == ["8", "9"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_text_of_no_known_encoding_is_one_line(tmp_path, name, encoding):
    file = tmp_path / name
    file.write_bytes('question,answer\n"caf\u00e9?",1'.encode(encoding))
    with pytest.raises(
        OptionError, match=f"{name} must be UTF-8, or UTF-16 with .* iconv"
    ) as error:
        find_tasks(str(file))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.bin", "a.txt", "a"])
def test_a_file_of_another_ending_is_named(tmp_path, name, monkeypatch):
    (tmp_path / name).write_text("x")
    monkeypatch.chdir(tmp_path)
    for given in (tmp_path / name, name):
        with pytest.raises(OptionError, match=rf"must end in .json, .jsonl, .csv.*got \S*{name}"):
            find_tasks(str(given))


CHOSEN = {
    "index": {"choices": ["red", "blue"], "answer": 1},
    "letter": {"options": ["red", "blue"], "answer": "B"},
    "text": {"choices": ["red", "blue"], "target": "blue"},
    "labels": {"choices": {"text": ["red", "blue"], "label": ["1", "2"]}, "answerKey": "2"},
}


@pytest.mark.parametrize("row", CHOSEN.values(), ids=CHOSEN)
def test_multiple_choice_is_asked_with_its_options(row):
    for asked in ("question", "problem"):
        [problem] = RowsTask.of("rows", [{asked: "Which?"} | row]).problems(1, 0)
        assert problem.question == f"Which?\nA. red\nB. blue\n{INSTRUCTION}"
        assert problem.answer == "B"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"choices": "red", "answer": 0}, "choices must be a list of options, got 'red'"),
        ({"choices": [], "answer": 0}, "choices must be a list of options"),
        ({"choices": ["red"], "answer": 1}, "answer must name one of 1 options, got 1"),
        ({"choices": ["red"], "answer": "green"}, "answer must name one of 1 options, got 'green'"),
    ],
)
def test_options_that_do_not_go_with_their_answer(row, said):
    with pytest.raises(OptionError, match=said):
        RowsTask.of("rows", [{"question": "Which?"} | row])
