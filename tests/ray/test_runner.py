"""Workers of a cluster: the rows of one process, whatever is lost; errors as they were raised."""

import os
from dataclasses import dataclass
from functools import partial

import pytest
from rich.progress import Progress

from sparing.api import load
from sparing.errors import ModelError, OptionError
from sparing.evaluate.accuracy import AccuracyExperiment
from sparing.evaluate.batch_generate import Settings
from sparing.evaluate.experiment import Job
from sparing.options import Sampling
from sparing.tasks.find import find_tasks
from tests.tiny import tiny

pytestmark = pytest.mark.slow
TOKENS = 160


@dataclass(frozen=True)
class Where(AccuracyExperiment):
    """Rows say which process they are of."""

    def measured(self, problem, finished, before):
        return super().measured(problem, finished, before) | {"pid": os.getpid()}


def rows_of(experiment, engine, runner=None):
    [rows] = experiment.collect(engine, None, Progress(disable=True), runner).values()
    return rows


def without(rows, *fields):
    return [{k: v for k, v in row.items() if k not in fields} for row in rows]


class Watched:
    """A runner that calls ``at`` once with the rows so far, as soon as they are of two processes;
    it counts the rows that arrive."""

    def __init__(self, runner, at):
        self.runner, self.workers, self.at = runner, runner.workers, at
        self.pids, self.rows = set(), 0

    def __call__(self, jobs):
        for done in self.runner(jobs):
            self.rows += 1
            self.pids.add(done[2]["pid"])
            if len(self.pids) == 2 and self.at:
                at, self.at = self.at, None
                at()
            yield done


def test_a_node_is_killed_in_the_middle(cluster, caplog):
    from sparing.ray.runner import RayWorkers

    model = str(tiny())
    sampling = Sampling(temperature=1, max_new_tokens=TOKENS, ignore_eos=True)
    experiment = Where(find_tasks("sums,legs"), 16, 0, Settings(sampling=sampling, batch_size=2))
    engine = load(model, threads=1)
    alone = rows_of(experiment, engine)
    with RayWorkers(cluster.address, partial(load, model, threads=1), experiment.run) as workers:
        assert workers.workers == 2
        watched = Watched(workers, cluster.kill)
        shared = rows_of(experiment, engine, watched)
    assert [record.getMessage() for record in caplog.records if record.name == "sparing"] == [
        f"the worker on {cluster.cluster.head_node.node_ip_address} was lost; "
        "another does the rest of its job"
    ]
    assert watched.rows == len(alone) == 32
    assert os.getpid() not in {row["pid"] for row in shared}
    assert without(shared, "pid", "seconds") == without(alone, "pid", "seconds")


def nothing():
    return None


def ends(*_):
    os._exit(1)


def refuses(loaded, job):
    yield None, job.places[0], {}
    raise OptionError("an option must be right, got a wrong one; give another")


def missing():
    raise FileNotFoundError("no such file: model.gguf")


def done_by(cluster, load, run):
    from sparing.ray.runner import RayWorkers

    with RayWorkers(cluster.address, load, run, 1) as workers:
        return list(workers([Job(None, [0, 1])]))


@pytest.mark.parametrize(
    ("load", "run", "error", "said"),
    [
        (nothing, ends, OptionError, "got 3 workers lost with the same one, the last on {node}"),
        (ends, ends, ModelError, "must live until its model is loaded, got 3 in turn"),
        (missing, ends, ModelError, "the worker on {node} could not load: FileNotFoundError: no "),
        (nothing, refuses, OptionError, "an option must be right, got a wrong one; give another"),
    ],
)
def test_what_goes_wrong_ends_in_one_line(cluster, load, run, error, said):
    with pytest.raises(error) as raised:
        done_by(cluster, load, run)
    assert said.format(node=cluster.cluster.head_node.node_ip_address) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_more_workers_than_fit(cluster):
    from sparing.ray.runner import RayWorkers

    with pytest.raises(OptionError, match="must fit on the cluster's CPUs, 2 with 1 thread each"):
        RayWorkers(cluster.address, nothing, ends, 3)
    with pytest.raises(OptionError, match="0 with 2 threads each, got none"):
        RayWorkers(cluster.address, nothing, ends, cpus=2)
