"""A problem, and the protocol of a task, which makes problems and grades answers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # it needs numpy and safetensors
    from sparing.tasks.splits import Split


@dataclass(frozen=True)
class Problem:
    """A question with its reference answer.

    ``task``, ``id``: its name; a seed gives the same problem under the same id
    ``question``: the text for the model
    ``answer``: the reference answer
    ``entry``: the data set's entry, for the grader; None if it only needs the answer
    """

    task: str
    id: int
    question: str
    answer: str
    entry: dict[str, Any] | None = None


class Task(Protocol):
    """Problems under one name."""

    @property
    def name(self) -> str: ...

    def problems(self, n: int, seed: int, split: "Split" = "test") -> list[Problem]:
        """``n`` different problems of a split, or all if there are fewer.

        A file or hub data set has the same rows in every split.

        Raises OptionError if the data cannot be used, or if a generator cannot make ``n``.
        """
        ...

    def grade(self, problem: Problem, answer_text: str) -> bool:
        """Whether the answer (without the thinking) is right."""
        ...
