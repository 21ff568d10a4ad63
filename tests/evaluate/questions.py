"""Tasks over made-up questions, for tests that need rows and no reasoning; and Ctrl-C."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from sparing.tasks.problem import Problem


@dataclass(frozen=True)
class Words:
    """Questions of rising length, the same in every split; an answer is right where it has an even
    number of characters.

    ``watch`` sees every problem that is graded, and may raise.
    """

    name: str = "words"
    watch: Callable[[Problem], None] | None = None

    def problems(self, n: int, seed: int, split: str = "test") -> list[Problem]:
        return [
            Problem(self.name, i, f"{self.name} {seed} " + "na " * (7 * i % 5 * 3), "even")
            for i in range(1, n + 1)
        ]

    def grade(self, problem: Problem, answer_text: str) -> bool:
        if self.watch:
            self.watch(problem)
        return len(answer_text) % 2 == 0


@dataclass(frozen=True)
class Asked(Words):
    """One given question, again and again."""

    question: str = ""

    def problems(self, n: int, seed: int, split: str = "test") -> list[Problem]:
        return [replace(p, question=self.question) for p in super().problems(n, seed)]


class Interrupt:
    """Ctrl-C while the answer to one of the problems is graded, after ``left`` others."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, problem: Problem) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
