"""Settings beside a run: a begun run is not overwritten, and settings alone are no run."""

import json

import pytest
from accelerate import PartialState

from sparing.errors import OptionError
from sparing.train.settings import SETTINGS_FILE, begun, check_resumed, check_same, keep_settings


@pytest.fixture
def process():
    return PartialState(cpu=True)


def kept(out):
    return json.loads((out / SETTINGS_FILE).read_text())


def test_a_run_that_failed_at_once_is_replaced(tmp_path, process):
    keep_settings(tmp_path, {"n": 4}, False, process)
    (tmp_path / "stage-1").mkdir()
    (tmp_path / "stage-1" / SETTINGS_FILE).write_text("{}")
    (tmp_path / ".half-written").touch()
    assert not begun(tmp_path)
    check_same(tmp_path, {"n": 24})
    keep_settings(tmp_path, {"n": 24}, False, process)
    assert kept(tmp_path) == {"n": 24}


@pytest.mark.parametrize("made", ["step-7/model.safetensors", "traces/shard-0", "predictor.json"])
def test_a_run_with_a_result_stays(tmp_path, process, made):
    keep_settings(tmp_path, {"n": 4}, False, process)
    (tmp_path / made).parent.mkdir(exist_ok=True)
    (tmp_path / made).touch()
    assert begun(tmp_path)
    with pytest.raises(OptionError, match=r"--out must be new, .* pass --resume to go on"):
        check_resumed(tmp_path, False)
    with pytest.raises(OptionError, match=r"must keep its settings, .* begun with n 4, got 24"):
        keep_settings(tmp_path, {"n": 24}, True, process)
    keep_settings(tmp_path, {"n": 4}, True, process)
    assert kept(tmp_path) == {"n": 4}


def test_results_without_settings_are_no_run(tmp_path):
    (tmp_path / "model.safetensors").touch()
    assert not begun(tmp_path)
