"""What an engine has learned about drafting; it outlives requests."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from sparing.depth.auto import Record
from sparing.depth.layer_sets import TunedLayerSet, as_dict, as_tuned
from sparing.depth.ngram_cache import NgramCache
from sparing.depth.search import LayerSearch
from sparing.depth.shortlist import Shortlist, shortlist
from sparing.depth.speed_search import SpeedSearch
from sparing.depth.state_file import StateFile
from sparing.depth.swift import SwiftSearch
from sparing.errors import OptionError
from sparing.model.matrix import Matrix
from sparing.options import Depth

KEEP_STEPS = 32  # between two writings of the file


class DraftingState:
    """N-grams, layer searches and timings, shared by all requests that are given this state.

    ``sets``: layer sets found before, by task.
    ``file``: keeps sets and timings for the next engine; None: nowhere.
    ``ngrams``: of all output so far.
    ``shortlist``: words that drafts by layers may use; None: all.
    """

    def __init__(
        self,
        decoder: Any,
        sets: Mapping[str, TunedLayerSet] | None = None,
        file: StateFile | None = None,
    ) -> None:
        self.decoder, self.sets, self.file = decoder, dict(sets or {}), file
        self.shortlist: Shortlist | None = shortlist(decoder) if self.can_skip else None
        self.forget()

    def forget(self) -> None:
        """Start cold again, but for ``sets`` and ``file``."""
        self._records: dict[str, Record] = {}
        self._searches: dict[tuple[Any, ...], LayerSearch] = {}
        self._steps_kept = 0
        self.ngrams = NgramCache()

    @property
    def can_skip(self) -> bool:
        """Whether layers can be left out; the first and the last one always run."""
        return bool(self.decoder.can_skip)

    @property
    def draft_head(self) -> Matrix | None:
        """Scores the words of drafts; None: the model's own head."""
        return self.shortlist.head if self.shortlist else None

    def record(self, depth: Depth) -> Record:
        """The timings under these options."""
        key = f"{depth.max_draft} {depth.confidence:g} {depth.trees}"
        if key not in self._records:
            self._records[key] = self._kept[1].get(key) or Record()
        return self._records[key]

    def search(self, depth: Depth) -> LayerSearch:
        """The search under these options, begun at the first call.

        Raises OptionError for a task without a known set.
        """
        if depth.task is not None and depth.task not in self.sets:
            known_tasks = ", ".join(self.sets) or "none"
            raise OptionError(
                f"task must be one with a tuned layer set ({known_tasks}), got {depth.task!r}; "
                "make one with `sparing tune depth`, or leave it out"
            )
        schedule = depth.objective, depth.interval, depth.blocks, depth.window
        key = *schedule, depth.task, depth.max_draft
        if key not in self._searches:
            self._searches[key] = self._begun(depth)
        return self._searches[key]

    def _begun(self, depth: Depth) -> LayerSearch:
        """By speed from a known set: the task's, the first one, or the kept one. SWIFT's own search
        always begins anew."""
        if depth.objective == "matchness":
            return SwiftSearch(self.decoder, depth.window)
        first = next(iter(self.sets.values()), None) or self._kept[0]
        known = self.sets[depth.task] if depth.task else first
        return SpeedSearch(self.decoder, depth, known, self.draft_head)

    @cached_property
    def _kept(self) -> tuple[TunedLayerSet | None, dict[str, Record]]:
        """Set and records of the file; none where it cannot be read."""
        content = self.file.read() if self.file else {}
        try:
            layers = self.decoder.shape.layers
            rows = content.get("records", {})
            records = {key: Record.of(found, layers) for key, found in rows.items()}
            layer_set = content.get("set")
            return as_tuned(layer_set, layers) if layer_set else None, records
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            return None, {}

    def keep(self) -> None:
        """Write the file, if enough is new."""
        searches = [s for s in self._searches.values() if isinstance(s, SpeedSearch)]
        steps = sum(record.step for record in self._records.values())
        steps += sum(search.steps for search in searches)
        if not self.file or steps < self._steps_kept + KEEP_STEPS:
            return
        self._steps_kept = steps
        before, records = self._kept
        live = [search.tuned for search in searches if search.phase == "acceleration"]
        tuned = next(filter(None, live), before)
        rows = {key: record.to_rows() for key, record in (records | self._records).items()}
        self.file.write({"set": tuned and as_dict(tuned), "records": rows})
