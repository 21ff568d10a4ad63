"""Worked solutions of GSM8K, ProsQA and MATH500 form."""

import json
from pathlib import Path

import pytest

from sparing.errors import OptionError
from sparing.tasks.forms import INSTRUCTION
from sparing.tasks.solutions import THINKING, read_solutions
from tests.data import data_file

GSM8K = {
    "question": "Natalia sold clips to 48 of her friends. How many clips?",
    "answer": "She sold 48/2 = <<48/2=24>>24 clips.\nThat is 48+24 = <<48+24=72>>72.\n#### 1,072",
}
PROSQA = {
    "question": "Is Tom a lempus or a scrompus?",
    "steps": ["Tom is a terpus.", "Every terpus is a lempus."],
    "answer": "Tom is a lempus.",
}
MATH = {"problem": "What is $1+1$?", "solution": " It is $\\boxed{2}$. ", "answer": "2"}


def solved(tmp_path, *rows, name="rows.jsonl"):
    file = tmp_path / name
    file.write_text("\n".join(map(json.dumps, rows)))
    return read_solutions(file)


def refused(path):
    with pytest.raises(OptionError) as error:
        read_solutions(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_gsm8k_without_the_notes_for_a_calculator(tmp_path):
    found, _ = solved(tmp_path, GSM8K, GSM8K)
    assert found.question == f"{GSM8K['question']}\n{INSTRUCTION}"
    assert found.thinking == "She sold 48/2 = 24 clips.\nThat is 48+24 = 72."
    assert found.answer == "1072"


def test_prosqa_steps_are_lines(tmp_path):
    found, _ = solved(tmp_path, PROSQA, PROSQA)
    assert found.question == PROSQA["question"]
    assert found.thinking == "Tom is a terpus.\nEvery terpus is a lempus."
    assert found.answer == "Tom is a lempus."
    found, _ = solved(tmp_path, PROSQA | {"steps": "One step."}, PROSQA)
    assert found.thinking == "One step."


def test_math500_solutions(tmp_path):
    found, _ = solved(tmp_path, MATH, MATH)
    assert (found.thinking, found.answer) == ("It is $\\boxed{2}$.", "2")


@pytest.mark.parametrize("row", [GSM8K, PROSQA, MATH], ids=THINKING)
def test_fields_in_any_case_and_rows_in_order(tmp_path, row):
    upper = {field.upper(): value for field, value in row.items()}
    first, second = solved(tmp_path, row, upper)
    assert first == second


def test_a_form_without_solutions(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join([json.dumps({"Problem": "1+1?", "Answer": 2})] * 2))
    said = refused(file)
    assert "training needs worked solutions (GSM8K, ProsQA, MATH500 form)" in said
    assert f"{file} has AIME form without them" in said


def test_a_task_that_is_no_file(tmp_path):
    assert "training needs pocket or a file (.json, .jsonl, .csv, .parquet)" in refused(
        Path("pokcet")
    )
    assert "must exist" in refused(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    assert "must hold two rows or more" in refused(tmp_path / "empty.jsonl")


def test_a_row_that_cannot_be_used_is_named(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text(f"{json.dumps(GSM8K)}\n{json.dumps({'question': 'x', 'answer': 'y'})}")
    assert "row 2, answer must end in '#### '" in refused(file)


@pytest.mark.parametrize(
    ("file", "rows"), [("gsm8k_train.jsonl", 7473), ("prosqa_valid.json", 300)]
)
def test_whole_sets_where_they_are(file, rows):
    path = data_file(file)
    found = read_solutions(path)
    assert len(found) == rows
    assert all(s.question and s.thinking and s.answer for s in found)
    assert not [s for s in found if "<<" in s.thinking or "####" in s.thinking]
