import os
import signal

import pytest

from sparing.tasks.gym import GymTask
from tests.train.small import fresh, write_sums


@pytest.fixture
def anew():
    """An accelerate that knows of no run before."""
    with fresh():
        yield


@pytest.fixture
def task(tmp_path):
    return write_sums(tmp_path / "gsm8k.jsonl")


@pytest.fixture
def ctrl_c_at_answer(monkeypatch):
    """Call it with a number: this process gets a real SIGINT when that answer of a ``task`` is
    graded. It gives the list of graded problems."""

    def at(number, task=GymTask):
        grade, graded = task.grade, []

        def interrupted(self, problem, text):
            graded.append(problem)
            if len(graded) == number:
                os.kill(os.getpid(), signal.SIGINT)
            return grade(self, problem, text)

        monkeypatch.setattr(task, "grade", interrupted)
        return graded

    return at
