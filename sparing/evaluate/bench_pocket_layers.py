"""`sparing bench pocket`: how often the model agrees with itself when layers are left out."""

from sparing.api import Engine
from sparing.evaluate.agreement import Spoken, agreement, best_layer_set
from sparing.evaluate.report import Figure
from sparing.options import Depth, Sampling
from sparing.tasks.families import FAMILIES
from sparing.tasks.gym import entries
from sparing.tasks.wording import wording

SKIPPED = (0.5, 0.7)  # shares of sub-layers left out
SEARCHED, MEASURED = 2, 8  # problems of each family: to find a layer set, to measure it
TRIES = 60
GREEDY = Sampling(temperature=0, max_new_tokens=1400)


def layer_figures(engine: Engine, seed: int, control: str | None = None) -> list[Figure]:
    """The best layer set found on validation problems, and its agreement on others of them.

    ``control``: how the model was trained, where it is not the one that ships.
    """
    searched, measured = (
        [s for family in FAMILIES for s in spoken(engine, family, count, seed + offset)]
        for offset, count in enumerate((SEARCHED, MEASURED))
    )
    figures = []
    for skipped in SKIPPED:
        layer_set = best_layer_set(engine.decoder, searched, skipped, TRIES, seed)
        share = agreement(engine.decoder, measured, layer_set)
        what = (
            f"tokens that agree with {layer_set.skipped} of {2 * engine.decoder.shape.layers} "
            "sub-layers skipped"
        )
        what += f", after a short training {control} layer dropout" if control else ""
        name = f"agreement/{round(100 * skipped)}" + (f"/short_{control}" if control else "")
        figures.append(Figure(name, share, "share", "higher", what))
    return figures


def spoken(engine: Engine, family: str, count: int, seed: int) -> list[Spoken]:
    """What the model says to validation questions."""
    dataset, config = FAMILIES[family].dataset, FAMILIES[family].standard
    drawn = entries(dataset, config, "validation", seed, count)
    asked = [engine.chat.question(wording(dataset, entry)) for entry in drawn]
    results = engine.generate(asked, None, Depth(draft="off"), None, GREEDY, batch_size=8)
    return [Spoken.of(result) for result in results]
