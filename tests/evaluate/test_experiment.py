"""What every experiment does: jobs of what is missing, rows in place in any order of their ends."""

from dataclasses import dataclass, field

from rich.progress import Progress

from sparing.evaluate.experiment import Experiment, Job, draw, shared
from sparing.evaluate.partial_results import PartialResults
from tests.evaluate.questions import Words


@dataclass(frozen=True)
class Lengths(Experiment[int]):
    """Arms are numbers that are added to a question's length; odd ones need the even ones' rows."""

    tasks: tuple[Words, ...] = (Words(), Words("others"))
    n: int = 3
    done: list[tuple[int, int]] = field(default_factory=list)

    keys = ("added",)
    reported = ("id", "length")
    arms = (0, 2, 1)

    @property
    def problems(self):
        return draw(self.tasks, self.n, 0)

    @property
    def stages(self):
        return [[0, 2], [1]]

    def key(self, arm):
        return (arm,)

    def label(self, arm):
        return f"plus {arm}"

    def before(self, arm, places, found):
        wanted = [self.problems[place] for place in places]
        return [found[self.name(0, problem)] for problem in wanted] if arm % 2 else ()

    def to_dict(self):
        return {"n": self.n}

    def run(self, loaded, job):
        for at, place in enumerate(job.places):
            self.done.append((job.arm, place))
            problem = self.problems[place]
            length = job.before[at]["length"] if job.before else len(problem.question)
            yield job.arm, place, self.new_row(job.arm, problem) | {"length": length + job.arm}


@dataclass
class LastFirst:
    """A runner; rows come from the last one to the first."""

    experiment: Lengths
    workers: int = 3

    def __call__(self, jobs):
        return reversed([done for job in jobs for done in self.experiment.run(None, job)])


def collected(experiment, part=None, runner=None):
    return experiment.collect(None, part, Progress(disable=True), runner)


def test_rows_are_in_the_problems_order_however_they_come():
    experiment = Lengths()
    rows = collected(experiment)
    lengths = [len(problem.question) for problem in experiment.problems]
    assert list(rows) == [0, 2, 1]
    for arm, of_arm in rows.items():
        assert [row["length"] for row in of_arm] == [length + arm for length in lengths]
        assert [(row["task"], row["id"]) for row in of_arm] == [
            (problem.task, problem.id) for problem in experiment.problems
        ]
    assert collected(experiment, runner=LastFirst(experiment)) == rows


def test_a_job_is_of_an_arm_and_a_task_and_of_what_is_missing(tmp_path):
    experiment = Lengths()
    assert [(job.arm, list(job.places)) for job in experiment.jobs([0, 2], {})] == [
        (0, [0, 1, 2]), (0, [3, 4, 5]), (2, [0, 1, 2]), (2, [3, 4, 5]),
    ]  # fmt: skip
    rows = collected(experiment)
    with PartialResults(tmp_path / "a.json", experiment.fingerprint({})) as part:
        for row in [*rows[0], *rows[2][:4]]:
            part.append(row)
    experiment.done.clear()
    with PartialResults(tmp_path / "a.json", experiment.fingerprint({})) as part:
        assert collected(experiment, part) == rows
    assert experiment.done == [(2, 4), (2, 5), *((1, place) for place in range(6))]


def test_columns_are_lists_by_arm_and_task():
    experiment = Lengths(n=2)
    found = experiment.columns(collected(experiment))
    assert list(found) == ["plus 0", "plus 2", "plus 1"]
    lengths = [len(problem.question) for problem in experiment.problems]
    assert found["plus 2"] == {
        "words": {"id": [1, 2], "length": [2 + length for length in lengths[:2]]},
        "others": {"id": [1, 2], "length": [2 + length for length in lengths[2:]]},
    }


def test_a_cut_job_has_each_problem_once_and_what_it_needs():
    job = Job("arm", [3, 5, 8, 9, 11], [{"length": n} for n in range(5)])
    parts = job.parts(2)
    assert [list(part.places) for part in parts] == [[3, 8, 11], [5, 9]]
    assert [[row["length"] for row in part.before] for part in parts] == [[0, 2, 4], [1, 3]]
    assert [list(part.places) for part in Job("arm", [1, 2]).parts(5)] == [[1], [2]]
    left = job.without({5, 11})
    assert (left.places, [row["length"] for row in left.before]) == ([3, 8, 9], [0, 2, 3])


def test_jobs_are_cut_where_there_are_too_few():
    job = Job("arm", range(100))
    assert [len(part.places) for part in shared([job], 2)] == [25] * 4
    assert shared([job] * 4, 2) == [job.only(range(100))] * 4
    assert shared([], 2) == []
