"""From a drafter's name to the drafter."""

from collections.abc import Sequence

from sparing.depth.auto import AutoDrafter
from sparing.depth.hybrid import Hybrid
from sparing.depth.layers import LayerDrafter
from sparing.depth.lookup import PromptLookup
from sparing.depth.online_search import OnlineSearch
from sparing.depth.state import DraftingState
from sparing.engine.cache import SlotCache
from sparing.engine.drafter import BuiltInDrafter, Drafter, NoDrafter
from sparing.errors import OptionError
from sparing.options import Depth

CLASSES: Sequence[type[BuiltInDrafter]] = (
    AutoDrafter,
    NoDrafter,
    PromptLookup,
    LayerDrafter,
    Hybrid,
)
DRAFTERS = {drafter.name: drafter for drafter in CLASSES}


def find_drafter(depth: Depth, state: DraftingState, cache: SlotCache) -> Drafter:
    """The drafter that the options ask for; raises OptionError where layers cannot be left out."""
    if depth.draft == "off":
        return NoDrafter()
    lookup = PromptLookup(longest=depth.max_draft, cache=state.ngrams)
    if depth.draft == "lookup":
        return lookup
    if DRAFTERS[depth.draft].skips_layers and not state.can_skip:
        raise OptionError(
            f"draft {depth.draft} needs a model of 3 layers or more that can be left out; "
            "use lookup"
        )
    plain = (NoDrafter(), lookup)
    if not state.can_skip:
        return AutoDrafter(state.record(depth), plain)
    search = state.search(depth)
    layers = LayerDrafter(
        state.decoder,
        cache,
        search,
        most=depth.max_draft,
        confidence=depth.confidence,
        trees=depth.trees,
        shortlist=state.shortlist,
    )
    matches = PromptLookup(longest=depth.max_draft)  # elsewhere layers guess better than n-grams
    hybrid = Hybrid(matches, layers)
    drafters: dict[str, Drafter] = {"layers": layers, "hybrid": hybrid}
    if depth.draft == "auto":
        drafter: Drafter = AutoDrafter(state.record(depth), plain, (layers, hybrid), search)
    else:
        drafter = drafters[depth.draft]
    return OnlineSearch(drafter, search, cache)
