"""Another interpreter's engine: calls, mistakes, ends."""

import os
import signal
import sys
from pathlib import Path
from threading import Timer

import numpy
import pytest

from sparing.errors import OptionError
from sparing.evaluate.baselines.llama_cpp import SCRIPT as LLAMA_CPP_SCRIPT
from sparing.evaluate.baselines.process import BaselineError, Process, check_interpreter
from tests.evaluate.baselines.fake import SCRIPT, fake_baselines, fake_llama_cpp


def process():
    return Process("fake", sys.executable, SCRIPT)


def test_a_call_gives_what_the_engine_gives_whatever_it_prints():
    found = process()
    assert found.call("load", model="a", threads=3) == {"version": "1.0", "threads": 3}
    assert found.call("nll", ids=[1, 2, 3]) == 2.0
    found.close()


def test_an_exception_is_its_last_line_and_the_engine_goes_on():
    found = process()
    with pytest.raises(BaselineError) as error:
        found.call("load", model="broken", threads=1)
    assert str(error.value) == "fake cannot be measured: this file cannot be read"
    assert found.call("load", model="a", threads=1)["version"] == "1.0"
    found.close()


def test_a_crash_says_how_it_ended():
    found = process()
    found.call("load", model="dies", threads=1)
    for _ in range(2):
        with pytest.raises(BaselineError, match="it ended with code 7: segmentation fault"):
            found.call("steps", name="a", count=1)


def test_a_missing_package_is_said(tmp_path):
    (tmp_path / "numpy").symlink_to(Path(numpy.__file__).parent)
    bare = tmp_path / "python"  # with numpy alone, whatever else is installed here
    bare.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    found = Process("llama-cpp", str(bare), LLAMA_CPP_SCRIPT)
    with pytest.raises(BaselineError, match="No module named 'llama_cpp'"):
        found.call("load", model="a", threads=1)
    found.close()


def test_ctrl_c_ends_the_other_process():
    found = process()
    found.call("load", model="a", threads=1)
    timer = Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        found.call("sleep", wanted_s=60)
    assert found._process.poll() is not None


def test_what_is_no_interpreter_is_refused():
    check_interpreter("--openvino", sys.executable)
    with pytest.raises(OptionError, match=r"--openvino must be a Python interpreter, got 'no/"):
        check_interpreter("--openvino", "no/python")


@pytest.mark.parametrize(("ids", "of"), [([[1, 2]], "one"), ([[1, 2]] * 8, "eight")])
def test_the_fastest_settings_are_kept_and_the_others_dropped(ids, of):
    llama = fake_llama_cpp()
    llama.open(of, ids, 64)
    assert llama.settings(of)["flash"] is True
    assert len(llama.trials[of]) == (2 if of == "one" else 4)
    assert llama.process.call("open_contexts") == [f"{of}/flash"]
    assert llama.steps(of, 3) == [100.0, 2.0, 2.0]
    llama.drop(of)
    assert llama.process.call("open_contexts") == []
    llama.close()


def test_a_baseline_that_cannot_start_is_left_out_with_the_reason():
    found = fake_baselines("broken.gguf")
    assert (found.engines, found.left_out) == ({}, {"llama-cpp": "this file cannot be read"})
    assert found.missing("llama-cpp") == "this file cannot be read"
    assert found.missing("openvino") == "no --openvino given"
