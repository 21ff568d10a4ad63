"""A problem, and the task that poses it and grades what is answered."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # it needs numpy and safetensors
    from sparing.tasks.splits import Split


@dataclass(frozen=True)
class Problem:
    """A question, as it is asked, with its reference answer.

    ``task`` and ``id`` name it: the same seed gives the same problem under the same id. ``entry``:
    what its data set made it from, for the grader; None where the answer says all.
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
        """``n`` different problems of a split; all that there are, where they are fewer.

        A file or hub data set is one split, whichever is asked for.

        Raises OptionError where the data cannot be used, or where a generator cannot give ``n``.
        """
        ...

    def grade(self, problem: Problem, answer_text: str) -> bool:
        """Whether the answer, without the thinking, is right."""
        ...
