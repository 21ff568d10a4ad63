"""What an engine has learned about drafting is known to the next one of its checkpoint."""

import json

import pytest

from sparing import Depth, Sampling, load
from sparing.depth.auto import TRIAL, Record
from sparing.model.layer_set import LayerSet
from tests.depth.planted import IDLE, LAYERS, WRONG, find, planted
from tests.tiny import tiny

SAMPLING = Sampling(temperature=0, max_new_tokens=120, ignore_eos=True)


def loaded(**options):
    return load(str(planted()), dtype="float64", **options)


def only_file(state):
    [file] = (state / "sparing" / "depth").iterdir()
    return file


@pytest.fixture
def taught(state, monkeypatch):
    """An engine with timings and a layer set that its search has found."""
    monkeypatch.setattr("sparing.depth.state.KEEP_STEPS", 0)
    model = loaded()
    model.generate(["Q"], depth=Depth(), sampling=SAMPLING)
    find(IDLE, model.drafting.search(Depth()))
    model.generate(["Q"], depth=Depth(), sampling=SAMPLING)
    return model


def test_the_next_engine_begins_with_set_and_record(taught):
    again = loaded()
    search = again.drafting.search(Depth())
    assert (search.layer_set, search.matchness, search.phase) == (IDLE, 1.0, "acceleration")
    before, after = (m.drafting.record(Depth()).to_rows() for m in (taught, again))
    assert after == before != []


def test_a_set_that_was_found_with_layers_alone_is_kept():
    """Nothing else was measured: without ``auto`` there are no timings."""
    model, depth = loaded(), Depth(draft="layers")
    find(IDLE, model.drafting.search(depth))
    model.generate(["Q"], depth=depth, sampling=SAMPLING)
    assert loaded().drafting.search(Depth()).layer_set == IDLE


def test_what_the_papers_schedule_finds_is_not_kept(taught):
    model, depth = loaded(), Depth(draft="layers", objective="matchness")
    find(WRONG, model.drafting.search(depth), matchness=0.1)
    model.generate(["Q"], depth=depth, sampling=SAMPLING)
    assert model.drafting.search(depth).layer_set == WRONG
    assert loaded().drafting.search(Depth()).layer_set == IDLE


def test_under_another_setting_nothing_is_known(taught, state):
    file = only_file(state)
    content = json.loads(file.read_text())
    file.write_text(json.dumps({f"{setting}, elsewhere": c for setting, c in content.items()}))
    again = loaded()
    assert again.drafting.search(Depth()).layer_set is None
    assert again.drafting.record(Depth()).to_rows() == []
    again.generate(["Q"], sampling=SAMPLING)
    assert len(json.loads(file.read_text())) == 2, "both are kept"


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"SETTING": 3}', '{"SETTING": {"set": {"skipped": ["x"]}, "records": {}}}',
     '{"SETTING": {"set": null, "records": {"a": [[1]]}}}'],
)  # fmt: skip
def test_a_broken_file_is_none(taught, state, content):
    file = only_file(state)
    file.write_text(content.replace("SETTING", taught.drafting.file.setting))
    again = loaded()
    assert again.drafting.search(Depth()).layer_set is None
    again.generate(["Q"], sampling=SAMPLING)
    assert json.loads(file.read_text())[again.drafting.file.setting]["records"]


def test_a_folder_that_cannot_be_written_keeps_nothing(state):
    (state / "sparing").write_text("a file")
    model = loaded()
    [result] = model.generate(["Q"], sampling=SAMPLING)
    assert len(result.token_ids) == 120


def test_a_record_comes_back_as_it_was():
    record = Record()
    some = LayerSet.skipping(LAYERS, {1}, {2})
    for step in range(1, TRIAL + 3):
        record.timing("layers", some, 3).add(0.5, 7, step)
    record.timing("off", None, 1).due = 9.0
    record.seconds[0] = 4.0
    again = Record.of(json.loads(json.dumps(record.to_rows())), LAYERS)
    assert again.timing("layers", some, 3).speed == record.timing("layers", some, 3).speed
    assert again.timing("off", None, 1).due == 5.0


def test_plain_decoding_learns_nothing(state):
    load(str(tiny())).generate(["Q"], None, Depth(draft="off"), None, SAMPLING)
    assert not (state / "sparing").exists()
