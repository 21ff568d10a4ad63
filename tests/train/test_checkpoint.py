"""Which folders count as checkpoints."""

import pytest
import torch
from accelerate import Accelerator

from sparing.train import checkpoint


@pytest.fixture
def accelerator():
    prepared = Accelerator(cpu=True)
    prepared.prepare(torch.nn.Linear(2, 2))
    return prepared


def test_the_newest_are_kept_and_the_newest_is_restored(tmp_path, accelerator):
    [model] = accelerator._models
    for step in (2, 9, 10, 100):
        with torch.no_grad():
            model.bias.fill_(step)
        checkpoint.save(accelerator, tmp_path, step)
    assert checkpoint.steps(tmp_path) == [10, 100]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-10", "step-100"]
    with torch.no_grad():
        model.bias.fill_(0)
    assert checkpoint.restore(accelerator, tmp_path) == 100
    assert model.bias.tolist() == [100, 100]


def test_leftovers_are_no_checkpoints_and_in_nobodys_way(tmp_path, accelerator):
    for name in ("step-3.partial", "step-1.removed", "step-x", "step-"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").touch()
    (tmp_path / "step-7").touch()  # no folder
    assert checkpoint.steps(tmp_path) == []
    assert checkpoint.restore(accelerator, tmp_path) == 0
    (tmp_path / "step-7").unlink()
    for step in (1, 2, 3):
        checkpoint.save(accelerator, tmp_path, step)
    assert checkpoint.steps(tmp_path) == [2, 3]
    assert not (tmp_path / "step-3" / "half").exists()
    (tmp_path / "training.json").touch()
    checkpoint.clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["training.json"]


def test_tied_weights_are_saved_without_a_word(tmp_path, caplog):
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    model[1].weight = model[0].weight
    accelerator = Accelerator(cpu=True)
    accelerator.prepare(model)
    checkpoint.save(accelerator, tmp_path, 1)
    assert caplog.text == ""
