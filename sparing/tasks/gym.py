"""Any reasoning-gym data set as a task: its generator and its verifier, our splits.

Most of its data sets make item i from ``Random(seed + i)``, so neighbouring seeds give shifted
copies of the same questions. Therefore a seed is first hashed with its split, data set and
settings.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from itertools import count, islice
from typing import Any

from sparing.errors import OptionError, reason
from sparing.tasks.problem import Problem
from sparing.tasks.splits import QuestionSet, Split, belongs, question_hash, training_questions
from sparing.tasks.wording import key, wording

CHUNK = 500  # items from one hashed seed
SEEDS = 2**32 - CHUNK  # numpy, used in some data sets, takes no larger ones
# Some verifiers evaluate the answer as an expression: 9**9**9 would never end.
EVALUATED = {"countdown": re.compile(r"(?!.*\*\*)[\d\s+*/().-]*")}
PATIENCE = 1000  # draws in a row without a new question, before a data set counts as used up


@dataclass(frozen=True)
class GymTask:
    """A data set with its settings; ``wording`` makes the question."""

    name: str
    dataset: str
    config: dict[str, Any] = field(default_factory=dict)
    wording: Callable[[str, dict[str, Any]], str] = wording

    def problems(self, n: int, seed: int, split: Split = "test") -> list[Problem]:
        """``n`` problems; a problem depends on its id and the seed, not on ``n``."""
        drawn = entries(self.dataset, self.config, split, seed, n)
        return [
            Problem(
                task=self.name,
                id=id_,
                question=self.wording(self.dataset, entry),
                answer=str(entry["answer"] or ""),  # data sets with many answers give none
                entry=entry,
            )
            for id_, entry in enumerate(drawn, 1)
        ]

    def grade(self, problem: Problem, answer_text: str) -> bool:
        """Whether the data set's own verifier gives full marks; its exceptions count as wrong."""
        if self.dataset in EVALUATED and not EVALUATED[self.dataset].fullmatch(answer_text):
            return False
        try:
            return float(self._score(answer_text.strip(), problem.entry)) == 1.0
        except Exception:  # some verifiers raise if they cannot parse an answer
            return False

    @cached_property
    def _score(self) -> Callable[..., float]:
        return create(self.dataset, self.config, seed=0, size=1).score_answer


def entries(
    dataset: str,
    config: dict[str, Any],
    split: Split,
    seed: int,
    n: int,
    trained_on: QuestionSet | None = None,
) -> Iterator[dict[str, Any]]:
    """``n`` entries of a split with different questions, one at a time.

    ``trained_on``: questions to leave out of all splits except train; None: the set shipped with
        the package

    Raises OptionError if the data set does not exist, refuses ``config``, or has fewer than ``n``
    questions.
    """
    trained_on = training_questions() if trained_on is None else trained_on
    seen: set[int] = set()
    in_vain = 0
    for entry in islice(draws(dataset, config, split, seed), None if n else 0):
        question = key(dataset, entry)
        hashed = question_hash(question)
        if hashed in seen or not belongs(question, split, trained_on):
            in_vain += 1
            if in_vain == PATIENCE:
                raise used_up(dataset, split, n, len(seen))
            continue
        in_vain = 0
        seen.add(hashed)
        yield entry
        if len(seen) == n:
            return


def draws(
    dataset: str, config: dict[str, Any], split: Split, seed: int
) -> Iterator[dict[str, Any]]:
    """Endless entries, with repeats, in chunks of hashed seeds."""
    for chunk in count():
        source = create(dataset, config, hashed_seed(dataset, config, split, seed, chunk), CHUNK)
        for index in range(CHUNK):
            yield source[index]


def hashed_seed(dataset: str, config: dict[str, Any], split: Split, seed: int, chunk: int) -> int:
    """The first seed of a chunk: a hash of its split, data set, settings and number."""
    name = json.dumps([split, dataset, config, seed, chunk], sort_keys=True, default=str)
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") % SEEDS


def create(dataset: str, config: dict[str, Any], seed: int, size: int) -> Any:
    """Create a reasoning-gym data set; raises OptionError for settings it refuses."""
    check_gym()
    from reasoning_gym import create_dataset

    try:
        return create_dataset(dataset, **config, seed=seed, size=size)
    except Exception as error:  # AssertionError, ValueError, TypeError, depending on the data set
        raise OptionError(
            f"reasoning-gym's {dataset} must take its settings {config}, got: {reason(error)}; "
            "choose another task"
        ) from None


def gym_names() -> list[str]:
    """The names of reasoning-gym's data sets."""
    check_gym()
    from reasoning_gym.factory import DATASETS

    return sorted(DATASETS)


def check_gym() -> None:
    """Raise OptionError if reasoning-gym is not installed."""
    try:
        import reasoning_gym  # noqa: F401
    except ImportError:
        raise OptionError(
            "generated tasks need reasoning-gym, which is not installed; "
            "run: pip install 'sparing[eval]', or give a file as the task"
        ) from None


def used_up(dataset: str, split: str, n: int, found: int) -> OptionError:
    hint = f"ask for {found} or fewer" if found else "choose another task"
    return OptionError(
        f"reasoning-gym's {dataset} must have {n} different questions in the {split} split, "
        f"got {found}, then {PATIENCE} draws in a row without a new one; {hint}"
    )
