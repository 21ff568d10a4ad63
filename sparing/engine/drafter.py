"""The interface of drafters: propose tokens before a step, learn after it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sparing.engine.draft import Draft
from sparing.engine.events import Event

if TYPE_CHECKING:
    from sparing.engine.row import Row
else:
    Row = Any  # that module imports this one


@dataclass
class DraftTime:
    """Seconds of the steps that a row took part in.

    ``draft``: on proposals.
    ``search``: on learning, the search for layer sets above all.
    """

    draft: float = 0.0
    search: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What a step made of a row's draft.

    ``drafted``: nodes that were verified; 0 for an empty or a forced draft.
    ``accepted``: how many of them the row keeps.
    """

    row: Row
    drafted: int
    accepted: int

    @property
    def tokens(self) -> int:
        """New tokens of the row: the accepted ones and the model's own."""
        return self.accepted + 1


@runtime_checkable
class Drafter(Protocol):
    """Drafts for all rows of a step at once."""

    @property
    def name(self) -> str: ...

    def propose(self, rows: Sequence[Row], rooms: Sequence[int]) -> list[Draft]:
        """A draft for each row, perhaps an empty one; ``rooms``: the most nodes of each."""
        ...

    def learn(self, outcomes: Sequence[Outcome], seconds: float) -> Sequence[Event]:
        """After a step: what became of the drafts; events to send, marked with a row's tag.

        ``outcomes``: of all rows except where the prompt is still being read.
        ``seconds``: of the step, from its proposals to its evictions.
        """
        ...


class BuiltInDrafter:
    """The facts of a drafter that can be asked for by name.

    ``name``: in the options.
    ``label``: on the server's page.
    ``skips_layers``: needs a model whose layers can be left out.
    """

    name: str
    label: str
    skips_layers = False


class NoDrafter(BuiltInDrafter):
    """Plain decoding."""

    name, label = "off", "no drafting"

    def propose(self, rows: Sequence[Row], rooms: Sequence[int]) -> list[Draft]:
        return [Draft() for _ in rows]

    def learn(self, outcomes: Sequence[Outcome], seconds: float) -> Sequence[Event]:
        return ()
