"""No finished report is lost unasked: `sparing eval`, `compare`, the benches; CSV beside JSON."""

import csv
import json

import pytest

from sparing.cli.output import PlotFlag
from tests.cli.command import assert_one_line
from tests.tiny import tiny

FAST = ("--max-new-tokens", 8, "--temperature", 0)


def asked(file, *options):
    return ("eval", "--model", tiny(), "--task", "sums", "--n", 2, "--json", file, *FAST, *options)


@pytest.fixture
def never_loads(monkeypatch):
    """From the call on, no model may be loaded."""

    def call():
        def load(*given, **more):
            raise AssertionError("a model was loaded")

        monkeypatch.setattr("sparing.api.load", load)

    return call


def test_the_same_command_again_shows_what_is_there(sparing, tmp_path, never_loads):
    file, table = tmp_path / "new" / "a.json", tmp_path / "a.csv"
    first = sparing(*asked(file, "--csv", table))
    assert first.code == 0, first.err
    before = file.read_bytes(), table.read_bytes()
    never_loads()
    again = sparing(*asked(file, "--csv", table))
    assert again.code == 0, again.err
    assert "a.json holds this evaluation already; --overwrite does it again" in again.out
    assert again.out.endswith(first.out)
    assert (file.read_bytes(), table.read_bytes()) == before
    table.unlink()
    assert sparing(*asked(file, "--csv", table)).code == 0
    assert table.read_bytes() == before[1]


def test_other_settings_are_refused_by_name_and_overwritten_if_asked(sparing, tmp_path):
    file = tmp_path / "a.json"
    assert sparing(*asked(file)).code == 0
    before = file.read_bytes()
    other = sparing(*asked(file, "--n", 3, "--budget", 100))
    said = "got another n (2 then, 3 now), memory.budget (None then, 100 now); pass --overwrite"
    assert_one_line(other, "a.json holds a finished evaluation", said)
    assert file.read_bytes() == before
    assert sparing(*asked(file, "--n", 3, "--overwrite")).code == 0
    assert len(json.loads(file.read_text())["rows"]) == 3


@pytest.mark.parametrize("content", ["{}", "hello", "[1]", '{"rows": []}'])
def test_a_file_that_is_no_report_is_kept_and_an_empty_one_is_filled(sparing, tmp_path, content):
    file = tmp_path / "a.json"
    file.write_text(content)
    assert_one_line(sparing(*asked(file)), "a.json must not be there yet, or hold this evaluation")
    assert file.read_text() == content


def test_an_empty_file_is_filled_and_a_csv_in_the_way_is_kept(sparing, tmp_path):
    file, table = tmp_path / "a.json", tmp_path / "a.csv"
    file.touch()
    table.write_text("mine")
    assert_one_line(sparing(*asked(file, "--csv", table)), "a.csv must not be there yet")
    assert (file.read_text(), table.read_text()) == ("", "mine")
    assert sparing(*asked(file)).code == 0
    assert json.loads(file.read_text())["rows"]


@pytest.mark.parametrize("name", ["decode", "pocket", "memory", "depth", "serve", "all"])
def test_a_bench_refuses_a_finished_report(sparing, tmp_path, name):
    file = tmp_path / "a.json"
    file.write_text("{}")
    outcome = sparing("bench", name, "--model", tiny(), "--json", file)
    assert_one_line(outcome, "a.json must not be there yet, got a finished file; pass --overwrite")


def test_no_directory_is_made_for_what_is_refused(sparing, tmp_path):
    file = tmp_path / "new" / "deep" / "a.json"
    command = ("eval", "--model", tiny(), "--task", "sums", "--json", file)
    assert_one_line(sparing(*command, "--think-budget", 0, "--model", tiny(markers=None)))
    assert_one_line(sparing(*command, "--budget", 2))
    assert not (tmp_path / "new").exists()


def test_a_picture_goes_into_a_directory_that_is_new(tmp_path):
    path = tmp_path / "new" / "a.png"
    flag = PlotFlag(path)
    flag.check()
    assert not path.parent.exists()
    flag.draw(lambda content, path: path.write_text(content), "drawn")
    assert path.read_text() == "drawn"


def test_a_device_is_no_file_to_write(sparing):
    for name in ("--json", "--csv"):
        outcome = sparing("eval", "--task", "sums", name, "/dev/null")
        assert_one_line(outcome, "/dev/null must be a file to write, got a directory or a device")


def test_rows_as_csv_with_thoughts(sparing, tmp_path):
    file, table = tmp_path / "a.json", tmp_path / "a.csv"
    assert sparing(*asked(file, "--csv", table, "--thoughts")).code == 0
    rows = json.loads(file.read_text())["rows"]
    with open(table, newline="") as lines:
        found = list(csv.DictReader(lines))
    assert [row["question"] for row in found] == [row["question"] for row in rows]
    assert [row["thinking"] for row in found] == [row["thinking"] for row in rows]
    assert found[0].keys() == rows[0].keys()


def test_compare_writes_the_same_again_and_nothing_else_over_it(sparing, tmp_path):
    one, two, figures = (tmp_path / f"{name}.json" for name in ("one", "two", "figures"))
    for file, budget in ((one, 100), (two, 120)):
        assert sparing(*asked(file, "--budget", budget, "--policy", "window")).code == 0
    command = ("compare", one, two, "--json", figures, "--csv", tmp_path / "pairs.csv")
    for _ in range(2):
        outcome = sparing(*command)
        assert outcome.code == 0, outcome.err
        assert "memory.budget: 100 in one, 120 in two" in outcome.out
        assert "only one" in outcome.out
    outcome = sparing("compare", two, one, "--json", figures)
    assert outcome.code == 2
    assert "figures.json must not be there yet" in outcome.err
    assert sparing("compare", two, one, "--json", one).code == 2
    assert json.loads(one.read_text())["rows"]
    with open(tmp_path / "pairs.csv", newline="") as lines:
        pairs = list(csv.DictReader(lines))
    assert len(pairs) == 2
    assert {"correct_a", "answer_b", "kv_bytes_peak_a"} <= pairs[0].keys()


def test_compare_warns_of_another_model_and_shows_both_answers(sparing, tmp_path):
    one, two = tmp_path / "one" / "a.json", tmp_path / "two" / "a.json"
    assert sparing(*asked(one)).code == 0
    assert sparing(*asked(two, "--model", tiny("qwen2"))).code == 0
    content = json.loads(two.read_text())
    content["rows"][1] |= {"correct": True, "answer": "forty-two"}
    two.write_text(json.dumps(content))
    outcome = sparing("compare", one, two, "--texts", 3)
    assert outcome.code == 0, outcome.err
    assert outcome.err == "warning: the models differ, so a difference is not a setting's alone\n"
    assert f"sums 2, solved by {two} alone: " in outcome.out
    assert f"  {two}: forty-two" in outcome.out
    assert outcome.out.count(" alone: ") == 1


LINES = {
    "length": (("--max-new-tokens", 8, "--ignore-eos"),
               ["cut off: 2 of 2 (2 by length); raise --max-new-tokens", "policy full, no budget"]),
    "unreached": (("--max-new-tokens", 400, "--budget", 0.9),
                  ["policy window, budget", "no problem reached the budget: nothing was evicted"]),
    "reached": (("--max-new-tokens", 60, "--ignore-eos", "--budget", 0.5),
                ["policy window, budget", "evictions a problem"]),
}  # fmt: skip


@pytest.mark.parametrize(("options", "said"), LINES.values(), ids=LINES)
def test_the_table_says_what_was_cut_off_and_what_the_memory_was(sparing, options, said):
    command = ("eval", "--model", tiny(), "--task", "sums", "--n", 2, "--temperature", 0)
    outcome = sparing(*command, *options)
    assert outcome.code == 0, outcome.err
    for line in said:
        assert line in outcome.out
    assert ("no problem reached" in outcome.out) == (said[-1].startswith("no problem"))
