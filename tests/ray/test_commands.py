"""`--ray`: commands write what they write without it; interrupted, they leave nothing running."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from sparing.memory.traces import SHARD
from tests.cli.command import assert_one_line
from tests.memory.small import thinker
from tests.server.live import until
from tests.tiny import NARROW, tiny

TRAIN = ("train", "predictor", "--accept", "any", "--max-new-tokens", 24, "--temperature", 1,
         "--horizons", "3,9", "--epochs", 1, "--threads", 1)  # fmt: skip


def of_eval(file, *options):
    sampled = ("--max-new-tokens", 40, "--temperature", 1, "--threads", 1)
    tasks = ("--task", "sums,legs", "--n", 6, "--batch-size", 2)
    return ("eval", "--model", tiny(), "--json", file, *tasks, *sampled, *options)


def rows(file):
    return [row | {"seconds": 0} for row in json.loads(file.read_text())["rows"]]


@pytest.mark.slow
def test_eval(sparing, tmp_path, cluster):
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    assert sparing(*of_eval(one)).code == 0
    outcome = sparing(*of_eval(two, "--ray", cluster.address))
    assert outcome.code == 0, outcome.err
    assert "legs" in outcome.out
    assert rows(one) == rows(two)
    outcome = sparing(*of_eval(tmp_path / "3.json", "--ray", cluster.address, "--workers", 9))
    assert_one_line(outcome, "--workers must fit on the cluster's CPUs, 2 with 1 thread each")


@pytest.mark.slow
def test_eval_in_processes_of_this_machine(sparing, tmp_path):
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    assert sparing(*of_eval(one)).code == 0
    outcome = sparing(*of_eval(two, "--workers", 2))
    assert outcome.code == 0, outcome.err
    assert rows(one) == rows(two)


@pytest.mark.slow
def test_bench_memory(sparing, tmp_path, cluster):
    model = tiny(num_hidden_layers=2, max_position_embeddings=300)
    command = ("bench", "memory", "--model", model, "--task", "sums,sums-hard", "--n", 2,
               "--max-new-tokens", 30, "--policies", "window,rkv", "--shares", 0.5,
               "--budget", 0.5, "--new-tokens", 20, "--rounds", 1, "--threads", 1)  # fmt: skip
    found = []
    for options in ((), ("--ray", cluster.address)):
        file = tmp_path / f"{len(options)}.json"
        outcome = sparing(*command, "--json", file, *options)
        assert outcome.code == 0, outcome.err
        found.append(json.loads(file.read_text())["raw"])
    one, two = (raw["rows"] for raw in found)
    assert [raw["workers"] for raw in found] == [1, 2]
    for tasks in (*one.values(), *two.values()):
        for fields in tasks.values():
            del fields["seconds"]
    assert one == two


@pytest.mark.slow
def test_traces_of_train_predictor(sparing, tmp_path, cluster):
    problems = [{"question": f"{i} and {i}?", "answer": f"#### {2 * i}"} for i in range(2 * SHARD)]
    task = tmp_path / "gsm8k.jsonl"
    task.write_text("\n".join(map(json.dumps, problems)))
    given = (*TRAIN, "--model", thinker(tmp_path / "model", **NARROW), "--task", task)
    found = []
    for name, options in (("one", ()), ("two", ("--ray", cluster.address))):
        out = tmp_path / name
        outcome = sparing(*given, "--out", out, *options)
        assert outcome.code == 0, outcome.err
        shards = sorted((out / "traces").glob("*.safetensors"))
        weights = (out / "predictor.safetensors").read_bytes()
        found.append(([(path.name, path.read_bytes()) for path in shards], weights))
    assert len(found[0][0]) == 2
    assert found[0] == found[1]
    outcome = sparing(*given, "--out", tmp_path / "3", "--traces", tmp_path / "one" / "traces",
                      "--ray", cluster.address)  # fmt: skip
    assert_one_line(outcome, "--ray samples traces, got some with --traces")


def test_one_process_of_several_may_not(sparing, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    outcome = sparing(*TRAIN, "--out", tmp_path / "out", "--ray", "local")
    assert_one_line(outcome, "--ray must be given to one process")


@pytest.mark.slow
def test_ctrl_c_ends_all_and_the_same_command_goes_on_without_ray(sparing, tmp_path):
    """The signal goes to all processes of the terminal, those of Ray among them."""
    file, part = tmp_path / "a.json", tmp_path / "a.json.part.jsonl"
    command = of_eval(file, "--n", 60)
    told = [*map(str, command), "--ray", "local", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sparing", *told],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until(lambda: process.poll() is not None or lines(part) > 3)
    others = psutil.Process(process.pid).children(recursive=True)
    assert len(others) > 2  # of Ray: a server of the cluster, one of the node, two workers
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (130, ""), err
    said = f"{lines(part) - 1} rows are kept in {part}, the same command goes on"
    assert said in err.splitlines()[-1]
    psutil.wait_procs(others, timeout=20)
    assert not [other for other in others if other.is_running()]
    kept = part.read_text().splitlines()[1:]
    assert sparing(*command).code == 0
    written = json.loads(file.read_text())["rows"]
    assert len(written) == 120
    assert all(json.loads(row) in written for row in kept)


def lines(path):
    return len(path.read_text().splitlines()) if path.exists() else 0
