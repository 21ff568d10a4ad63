"""From a drafter's name to the drafter."""

from dataclasses import dataclass, field
from typing import Any

from sparing.depth.clocked import Clocked
from sparing.depth.guard import Guard, Record
from sparing.depth.hybrid import Hybrid
from sparing.depth.layers import LayerDrafter
from sparing.depth.lookup import PromptLookup
from sparing.depth.on_the_fly import OnTheFly
from sparing.depth.phrases import Phrases
from sparing.depth.search import LayerSearch, Schedule
from sparing.depth.shortlist import Shortlist, shortlist
from sparing.depth.store import Tuned
from sparing.engine.cache import SlotCache
from sparing.engine.drafting import Drafter, NoDrafter
from sparing.errors import OptionError
from sparing.model.decoder import Decoder
from sparing.model.matrix import Matrix
from sparing.options import Depth


@dataclass
class Known:
    """What an engine has learned about drafting: it outlives requests. ``sets``: found before, by
    task."""

    decoder: Any
    sets: dict[str, Tuned] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._shortlist: Shortlist | None = None
        if self.can_skip:
            self._shortlist = shortlist(self.decoder)
        self.forget()

    def forget(self) -> None:
        """Start cold again, but for the ``sets``."""
        self._records: dict[tuple[Any, ...], Record] = {}
        self._searches: dict[tuple[Any, ...], LayerSearch] = {}
        self.phrases = Phrases()

    @property
    def can_skip(self) -> bool:
        """Whether layers can be left out at all: the first and the last one always run."""
        return isinstance(self.decoder, Decoder) and self.decoder.shape.layers > 2

    @property
    def draft_head(self) -> Matrix | None:
        """What scores the words of drafts; None: the model's own head."""
        return self._shortlist.head if self._shortlist else None

    def record(self, depth: Depth) -> Record:
        """What was measured under these options."""
        key = depth.max_draft, depth.confidence, depth.trees
        return self._records.setdefault(key, Record())

    def search(self, depth: Depth) -> LayerSearch:
        """The one that goes by these options, begun where there is none; raises OptionError where
        they name a task that no set is known for."""
        if depth.task is not None and depth.task not in self.sets:
            known_tasks = ", ".join(self.sets) or "none"
            raise OptionError(
                f"task must be one with a tuned layer set ({known_tasks}), got {depth.task!r}; "
                "make one with `sparing tune depth`, or leave it out"
            )
        schedule = Schedule(depth.interval, depth.blocks, depth.window, depth.objective)
        known = self.sets.get(depth.task) if depth.task else next(iter(self.sets.values()), None)
        key = schedule, depth.task, depth.max_draft
        if key not in self._searches:
            self._searches[key] = LayerSearch(
                self.decoder, schedule, known, self.draft_head, depth.max_draft
            )
        return self._searches[key]

    def layers(self, depth: Depth, cache: SlotCache) -> LayerDrafter:
        return LayerDrafter(
            self.decoder,
            cache,
            self.search(depth),
            most=depth.max_draft,
            confidence=depth.confidence,
            trees=depth.trees,
            shortlist=self._shortlist,
        )


def find_drafter(depth: Depth, known: Known, cache: SlotCache) -> Drafter:
    """The drafter that the options ask for; raises OptionError where layers cannot be left out."""
    if depth.draft == "off":
        return NoDrafter()
    lookup = PromptLookup(longest=depth.max_draft, phrases=known.phrases)
    if depth.draft == "lookup":
        return Clocked(lookup)
    if not known.can_skip:
        if depth.draft == "auto":
            return Clocked(Guard(known.record(depth), (NoDrafter(), lookup)))
        raise OptionError(
            f"draft {depth.draft} needs Sparing's own decoder and a model of 3 layers or more; "
            "use lookup, or load without decoder='reference'"
        )
    search, layers = known.search(depth), known.layers(depth, cache)
    matches = PromptLookup(longest=depth.max_draft)  # layers guess better than phrases do
    drafter: Drafter = layers if depth.draft == "layers" else Hybrid(matches, layers)
    if depth.draft == "auto":
        drafter = Guard(known.record(depth), (NoDrafter(), lookup), (layers, drafter), search)
    return OnTheFly(Clocked(drafter), search, cache)
