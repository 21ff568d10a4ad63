"""A drafter for each request, in one loop."""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from sparing.depth.find import find_drafter
from sparing.depth.state import DraftingState
from sparing.engine.cache import SlotCache
from sparing.engine.draft import Draft
from sparing.engine.drafter import Drafter, Outcome
from sparing.engine.events import Event
from sparing.engine.row import Row
from sparing.options import Depth, DraftName

# The most drafted tokens of a step in all rows together, and the least for each row: steps stay
# short for waiting requests.
SHARED_DRAFTS, SHARED_DRAFT = 64, 8


class PerRequestDrafter:
    """Each row has the drafter of its request; rows with the same drafter draft together.

    All drafters share the drafting ``state`` and the other options of ``depth``. To bring a new
    row's first token soon, drafts get shorter with more rows, and a pass that reads a prompt has
    none.
    """

    name = "by request"

    def __init__(self, state: DraftingState, cache: SlotCache, depth: Depth) -> None:
        """Raises OptionError if the model does not support ``depth``."""
        self.state, self.cache, self.depth = state, cache, depth
        self._plain = False  # no drafts in this step
        self._drafters: dict[str, Drafter] = {depth.draft: find_drafter(depth, state, cache)}
        self._names: WeakKeyDictionary[Row, DraftName] = WeakKeyDictionary()

    def begin(self, row: Row, draft: DraftName, *, alone: bool) -> None:
        """Add an admitted row.

        A row ``alone`` in the loop gets a new drafter: timings are kept, trials start again. A row
        that joins others shares their drafter; otherwise trials would never end.
        """
        if alone or draft not in self._drafters:
            depth = self.depth.model_copy(update={"draft": draft})
            self._drafters[draft] = find_drafter(depth, self.state, self.cache)
        self._names[row] = draft

    def of(self, row: Row) -> Drafter:
        return self._drafters[self._name(row)]

    def propose(self, rows: Sequence[Row], rooms: Sequence[int]) -> list[Draft]:
        drafts = {row: Draft() for row in rows}
        self._plain = len(rows) > 1 and any(row.reading for row in rows)
        if self._plain:
            return list(drafts.values())
        if len(rows) > 1:
            most = max(SHARED_DRAFTS // len(rows), SHARED_DRAFT)
            rooms = [min(room, most) for room in rooms]
        room_of = dict(zip(rows, rooms, strict=True))
        for draft in dict.fromkeys(map(self._name, rows)):
            group = [row for row in rows if self._name(row) == draft]
            found = self._drafters[draft].propose(group, [room_of[row] for row in group])
            drafts |= zip(group, found, strict=True)
        return list(drafts.values())

    def learn(self, outcomes: Sequence[Outcome], seconds: float) -> Sequence[Event]:
        """Each drafter learns from its own rows, with their share of the step's time."""
        events: list[Event] = []
        if self._plain:
            return events
        for draft in dict.fromkeys(self._name(outcome.row) for outcome in outcomes):
            group = [outcome for outcome in outcomes if self._name(outcome.row) == draft]
            events += self._drafters[draft].learn(group, seconds * len(group) / len(outcomes))
        return events

    def _name(self, row: Row) -> DraftName:
        return self._names.get(row, self.depth.draft)
