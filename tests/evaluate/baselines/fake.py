"""Baselines whose engine is a fake, in a process of its own."""

import sys
from pathlib import Path

from sparing.evaluate.baselines.llama_cpp import LLAMA_CPP, LlamaCpp
from sparing.evaluate.baselines.start import Baselines

SCRIPT = Path(__file__).with_name("fake_script.py")


def fake_llama_cpp(model="a.gguf"):
    return LlamaCpp(sys.executable, Path(model), 2, SCRIPT)


def fake_baselines(model="a.gguf"):
    found = Baselines()
    found.add(LLAMA_CPP, Path(model), lambda file: fake_llama_cpp(str(file)))
    return found
