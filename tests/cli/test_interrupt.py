"""Ctrl-C in the first seconds: imports and loading."""

import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, sys, threading

signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a shell, whatever starts the tests
pressed = threading.Timer({at}, os.kill, (os.getpid(), signal.SIGINT))
pressed.daemon = True
from sparing.cli.main import main

sys.argv[1:] = {command}
pressed.start()
main()
"""


@pytest.mark.parametrize("at", [0.05, 0.2, 0.4, 0.8, 1.4])
def test_it_ends_the_command_without_a_word(at):
    command = ["run", "hi", "--max-new-tokens", "100000", "--ignore-eos"]
    script = SCRIPT.format(at=at, command=command)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
