"""From a drafter's name to the drafter."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sparing.depth.auto import AutoDrafter, Record
from sparing.depth.clocked import Clocked
from sparing.depth.hybrid import Hybrid
from sparing.depth.layer_sets import TunedLayerSet, as_dict, as_tuned
from sparing.depth.layers import LayerDrafter
from sparing.depth.lookup import PromptLookup
from sparing.depth.ngram_cache import NgramCache
from sparing.depth.online_search import OnTheFly
from sparing.depth.search import LayerSearch, Schedule
from sparing.depth.shortlist import Shortlist, shortlist
from sparing.depth.state_file import StateFile
from sparing.engine.cache import SlotCache
from sparing.engine.drafting import Drafter, NoDrafter
from sparing.errors import OptionError
from sparing.model.decoder import Decoder
from sparing.model.matrix import Matrix
from sparing.options import Depth

KEEP_STEPS = 32  # between two writings of what is kept


@dataclass
class DraftingState:
    """What an engine has learned about drafting: it outlives requests, and where it is ``kept`` the
    engine too. ``sets``: found before, by task."""

    decoder: Any
    sets: dict[str, TunedLayerSet] = field(default_factory=dict)
    kept: StateFile | None = None

    def __post_init__(self) -> None:
        self._shortlist: Shortlist | None = None
        if self.can_skip:
            self._shortlist = shortlist(self.decoder)
        self.forget()

    def forget(self) -> None:
        """Start cold again, but for the ``sets`` and what is ``kept``."""
        self._records: dict[str, Record] = {}
        self._steps_kept = 0
        self._searches: dict[tuple[Any, ...], LayerSearch] = {}
        self.ngrams = NgramCache()

    @property
    def can_skip(self) -> bool:
        """Whether layers can be left out at all: the first and the last one always run."""
        return isinstance(self.decoder, Decoder) and self.decoder.shape.layers > 2

    @property
    def draft_head(self) -> Matrix | None:
        """What scores the words of drafts; None: the model's own head."""
        return self._shortlist.head if self._shortlist else None

    @cached_property
    def _found(self) -> tuple[TunedLayerSet | None, dict[str, Record]]:
        """The set and the records that were kept; none where they cannot be read."""
        content = self.kept.read() if self.kept else {}
        try:
            layers = self.decoder.shape.layers
            rows = content.get("records", {})
            records = {key: Record.of(found, layers) for key, found in rows.items()}
            layer_set = content.get("set")
            return as_tuned(layer_set, layers) if layer_set else None, records
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            return None, {}

    def keep(self) -> None:
        """Write what is worth to be known by the next engine, after enough is new."""
        searches = [s for s in self._searches.values() if s.schedule.objective == "speed"]
        steps = sum(record.step for record in self._records.values())
        steps += sum(search.steps for search in searches)
        if not self.kept or steps < self._steps_kept + KEEP_STEPS:
            return
        self._steps_kept = steps
        before, records = self._found
        live = [search.tuned for search in searches if search.phase == "acceleration"]
        tuned = next(filter(None, live), before)
        rows = {key: record.to_rows() for key, record in (records | self._records).items()}
        self.kept.write({"set": tuned and as_dict(tuned), "records": rows})

    def record(self, depth: Depth) -> Record:
        """What was measured under these options."""
        key = f"{depth.max_draft} {depth.confidence:g} {depth.trees}"
        if key not in self._records:
            self._records[key] = self._found[1].get(key) or Record()
        return self._records[key]

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
        key = schedule, depth.task, depth.max_draft
        if key not in self._searches:
            self._searches[key] = LayerSearch(
                self.decoder, schedule, self._known_set(depth), self.draft_head, depth.max_draft
            )
        return self._searches[key]

    def _known_set(self, depth: Depth) -> TunedLayerSet | None:
        """The task's, or the first one, or that which was kept; none where the paper's schedule
        is to find its own."""
        if depth.objective == "matchness":
            return None
        if depth.task:
            return self.sets[depth.task]
        return next(iter(self.sets.values()), None) or self._found[0]

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


def find_drafter(depth: Depth, known: DraftingState, cache: SlotCache) -> Drafter:
    """The drafter that the options ask for; raises OptionError where layers cannot be left out."""
    if depth.draft == "off":
        return NoDrafter()
    lookup = PromptLookup(longest=depth.max_draft, cache=known.ngrams)
    if depth.draft == "lookup":
        return Clocked(lookup)
    if not known.can_skip:
        if depth.draft == "auto":
            return Clocked(AutoDrafter(known.record(depth), (NoDrafter(), lookup)))
        raise OptionError(
            f"draft {depth.draft} needs Sparing's own decoder and a model of 3 layers or more; "
            "use lookup, or load without decoder='reference'"
        )
    search, layers = known.search(depth), known.layers(depth, cache)
    matches = PromptLookup(longest=depth.max_draft)  # layers guess better than n-grams do
    drafter: Drafter = layers if depth.draft == "layers" else Hybrid(matches, layers)
    if depth.draft == "auto":
        drafter = AutoDrafter(known.record(depth), (NoDrafter(), lookup), (layers, drafter), search)
    return OnTheFly(Clocked(drafter), search, cache)
