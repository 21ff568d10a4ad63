"""From names to tasks."""

import json
import subprocess
import sys

import pytest

from sparing.errors import OptionError
from sparing.tasks import FAMILIES
from sparing.tasks.find import find_tasks


def names(name):
    return [task.name for task in find_tasks(name)]


def test_all_families_each_under_its_own_name():
    assert names("pocket") == list(FAMILIES)
    assert names("pocket-hard") == [f"{family}-hard" for family in FAMILIES]


def test_one_or_several():
    assert names("sums") == ["sums"]
    assert names("sums-hard") == ["sums-hard"]
    assert names("chain_sum") == ["chain_sum"]
    assert names("pocket, sums,chain_sum") == [*FAMILIES, "chain_sum"]


def test_levels_ask_other_questions():
    [standard], [hard] = (find_tasks(name)[0].problems(1, 0) for name in ("sums", "sums-hard"))
    assert len(hard.question) > len(standard.question)


def test_a_file_is_named_as_it_was_given(tmp_path):
    file = tmp_path / "a,b.json"
    file.write_text(json.dumps([{"question": "1+1?", "answer": "#### 2"}]))
    assert names(str(file)) == [str(file)]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("leg", "did you mean legs, legs-hard"),
        ("chian_sum", "did you mean chain_sum"),
        ("pocket_hard", "did you mean pocket-hard"),
        ("nonsense", "families: legs, countdown, sums, times"),
        ("zzzz", "families: legs, countdown, sums, times"),
        ("", "got ''"),
        ("sums,", "got ''"),
        ("no/such/file.jsonl", "a task file must exist, got no/such/file.jsonl"),
    ],
)
def test_what_is_no_task(name, said):
    with pytest.raises(OptionError, match="task") as error:
        find_tasks(name)
    assert said in str(error.value)


def test_a_hub_id_needs_the_package_datasets(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)  # as where it is not installed
    said = r"openai/gsm8k needs the package datasets, .* pip install datasets"
    with pytest.raises(OptionError, match=said):
        find_tasks("openai/gsm8k")


def test_the_room_is_entered_without_reasoning_gym():
    code = (
        "import sys; from sparing.tasks.wording import key; from sparing.tasks import wording\n"
        "import sparing.tasks.find\n"
        "print(callable(wording), {'reasoning_gym', 'torch', 'datasets'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "True set()\n"
