"""Words for latents (ours): text that gets shorter, stage by stage.

What goes is what the importance predictor of ``memory`` gives the least value: words that nothing
later looks back at (it does not see what the next few tokens need of them). It is decided by kind
(``kinds``), by the mean over all of a kind, so that it can be learned where words go: of a step
of a sum its operands, not its result. Where the stage before has dropped words already, the share
may grow, and its model is asked first: kinds behind which it is too often at a loss come back for
good, and none goes in their place.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from jaxtyping import Bool

from sparing.errors import ModelError, OptionError
from sparing.files import write_atomically
from sparing.latent.fusion import LatentVector, of_words
from sparing.latent.objective import LatentThought
from sparing.latent.settings import StageSettings
from sparing.latent.spans import Span, bar_for, choose, droppable, shorten
from sparing.latent.word_classes import kinds_of
from sparing.memory.files import find_predictor
from sparing.memory.predictor import ImportancePredictor, load_predictor
from sparing.model.chat import ChatFormat, GenerationDefaults
from sparing.train.attention import NAME as CAUSAL
from sparing.train.batches import bucketed
from sparing.train.examples import SHOWN, Encoded, ExampleSet
from sparing.train.objective import Exits, hidden_states
from sparing.train.reason import load_base

FILE = "words.json"
ASKED = 400  # examples, about, on which a model is asked what it cannot do without
FLOOR, BEHIND = 0.5, 6  # a model is at a loss below this probability of any of so many words behind
MISSED = 0.05  # share of a kind's spans behind which it may be


@dataclass(frozen=True)
class Rule:
    """What goes: ``goes`` and ``stays`` are names of kinds. ``values``: what each is worth;
    ``examples``: the fingerprint of those that it is drawn from."""

    examples: str
    stage: int
    values: dict[str, float]
    goes: frozenset[str]
    stays: frozenset[str]

    def content(self) -> dict[str, Any]:
        return asdict(self) | {"goes": sorted(self.goes), "stays": sorted(self.stays)}


def read_rule(path: Path, examples: str) -> Rule | None:
    """The rule of these examples that is kept there, if any."""
    try:
        kept = json.loads(path.read_text())
        rule = Rule(**{**kept, **{name: frozenset(kept[name]) for name in ("goes", "stays")}})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return rule if rule.examples == examples else None


def find_values(directory: Path, predictor: str | None) -> Path:
    """Where the importance predictor of the base is; raises OptionError where there is none."""
    home = find_predictor(predictor, directory)
    if home is None:
        raise OptionError(
            "words-for-latents needs a base with an importance predictor, got one without; train "
            "one with `sparing train predictor` and pass --predictor"
        )
    return home


@dataclass(frozen=True)
class WordDropper:
    """Drops words from examples for a stage. ``base``: the model that the predictor is of;
    ``model``, ``vector``, ``before``: as the stage before left them, and its folder."""

    settings: StageSettings
    base: Path
    model: Any
    vector: LatentVector
    tokenizer: Any
    before: Path
    out: Path

    def __call__(self, named: Mapping[str, ExampleSet]) -> list[ExampleSet]:
        """All of them shortened by one rule, drawn from those named ``train`` and kept in ``out``,
        for whoever wants to read it and for the next stage."""
        train, path = named["train"], self.out / FILE
        process = PartialState(cpu=not torch.cuda.is_available())
        of = train.fingerprint()
        if process.is_main_process:
            kept = read_rule(path, of)
            if kept is None or kept.stage != self.settings.stage:
                content = self._rule(train, of).content()
                write_atomically(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
        process.wait_for_everyone()
        rule = read_rule(path, of)
        assert rule is not None
        return [self._shortened(each, self.spans(each, rule))[0] for each in named.values()]

    def spans(self, examples: ExampleSet, rule: Rule) -> list[list[Span]]:
        """What the rule drops of each example."""
        kinds = kinds_of(examples, self.tokenizer)
        goes = np.array([name in rule.goes for name in kinds.names], bool)[kinds.kind]
        gone = np.split(goes & kinds.whole(self._free(examples)), examples.starts[1:-1])
        settings = self.settings
        return [choose(each, settings.most, settings.k, settings.per_latent) for each in gone]

    def dropped(self, examples: ExampleSet) -> Bool[np.ndarray, " N"]:
        """The tokens that go."""
        rule = read_rule(self.out / FILE, examples.fingerprint())
        assert rule is not None
        gone = np.zeros(len(examples.ids), bool)
        for start, own in zip(examples.starts[:-1], self.spans(examples, rule), strict=True):
            for span in own:
                gone[start + span.begin : start + span.end] = True
        return gone

    def _rule(self, examples: ExampleSet, of: str) -> Rule:
        before = read_rule(self.before / FILE, of)
        kinds = kinds_of(examples, self.tokenizer)
        whole = kinds.whole(self._free(examples))
        if before is None:
            scores = importance_of(examples, self.base, self.settings)
            values, stays = kinds.means(scores, whole), frozenset[str]()
        else:
            values, stays = before.values, before.stays | self._missed(examples, before)
        own = np.array([values.get(name, np.inf) for name in kinds.names])[kinds.kind]
        each, free = (np.split(found, examples.starts[1:-1]) for found in (own, whole))
        bar = bar_for(each, free, self.settings.drop, self.settings.most)
        goes = frozenset(name for name, value in values.items() if value <= bar) - stays
        return Rule(of, self.settings.stage, values, goes, stays)

    def _free(self, examples: ExampleSet) -> np.ndarray:
        """Tokens ``[N]`` that may go."""
        markers = ChatFormat(self.tokenizer, GenerationDefaults(frozenset())).markers
        if markers is None:
            raise ModelError("words-for-latents needs a model that marks its thoughts, got none")
        each = map(examples.__getitem__, range(len(examples)))
        start, end = markers.start_ids, markers.end_ids
        return np.concatenate([droppable(e.ids, e.roles, start, end) for e in each])

    def _shortened(
        self, examples: ExampleSet, spans: Sequence[Sequence[Span]]
    ) -> tuple[ExampleSet, list[list[int]]]:
        taught, token = self.settings.targets == "predict", self.vector.recipe.id
        pairs = [shorten(examples[row], own, token, taught) for row, own in enumerate(spans)]
        return ExampleSet(example for example, _ in pairs), [behind for _, behind in pairs]

    def _missed(self, examples: ExampleSet, rule: Rule) -> set[str]:
        """The kinds that the stage before did not learn to do without."""
        every = range(0, len(examples), max(len(examples) // ASKED, 1))
        asked = ExampleSet(map(examples.__getitem__, every))
        kinds, spans = kinds_of(asked, self.tokenizer), self.spans(asked, rule)
        found, missed = np.zeros((2, len(kinds.names)))
        rows = zip(spans, self._surprises(*self._shortened(asked, spans)), strict=True)
        for start, (own, surprises) in zip(asked.starts[:-1], rows, strict=True):
            for span, surprising in zip(own, surprises, strict=True):
                of = np.unique(kinds.kind[start + span.begin : start + span.end])
                found[of] += 1
                missed[of] += surprising
        return {kinds.names[number] for number in np.flatnonzero(missed > MISSED * found)}

    @torch.no_grad()
    def _surprises(self, examples: ExampleSet, behind: Sequence[Sequence[int]]) -> list[list[bool]]:
        """Of each span, whether a word close behind it has a probability below ``FLOOR``."""
        found: list[list[bool]] = [[] for _ in behind]
        rounds = self.settings.rounds
        rounds = rounds if rounds is None else max(rounds, 1)  # words themselves would miss nothing
        objective = LatentThought(self.model, Exits(), self.vector, rounds=rounds)
        head, device = self.model.get_output_embeddings(), next(self.model.parameters()).device
        self.model.eval()
        for rows in bucketed(examples.lengths, self.settings.batch_tokens, 0, 0):
            ids, roles = (values.to(device) for values in examples.batch(rows))
            with torch.autocast(device.type, torch.bfloat16, enabled=self._mixed):
                dropped = examples.dropped_of(rows).to(device)
                [states] = objective.states(ids, roles, (), dropped=dropped)
                for at, row in enumerate(rows):
                    spans, ahead = followers(examples[row], behind[row], self.vector.recipe.id)
                    places = torch.tensor(ahead, dtype=torch.long, device=device)
                    logits = head(states[at, places - 1]).float()
                    p = of_words(logits, self.vector.recipe.id).softmax(-1)
                    p = p.gather(1, ids[at, places][:, None])[:, 0]
                    least = np.ones(len(behind[row]))
                    np.minimum.at(least, spans, p.cpu().numpy())
                    found[row] = (least < FLOOR).tolist()
        self.model.train()
        return found

    @property
    def _mixed(self) -> bool:
        return self.settings.precision == "bfloat16"


def followers(example: Encoded, behind: Sequence[int], token: int) -> tuple[list[int], list[int]]:
    """The places of the taught words close behind each span, up to the next one; and whose each is.

    ``behind``: where the first of them stands; ``token``: of latents.
    """
    spans: list[int] = []
    places: list[int] = []
    for span, begin in enumerate(behind):
        for at in range(begin, min(begin + BEHIND, len(example.ids))):
            if example.ids[at] == token:
                break
            if example.roles[at] != SHOWN:
                spans.append(span)
                places.append(at)
    return spans, places


def importance_of(examples: ExampleSet, base: Path, settings: StageSettings) -> np.ndarray:
    """What each token will be worth to later ones, as the base's predictor says: the largest over
    its horizons, ``[N]``."""
    model, tokenizer = load_base(str(base))
    home = find_values(base, settings.predictor)
    predictor = load_predictor(home, base, tokenizer, torch.float32)
    return predicted(model, predictor, examples, settings)


@torch.no_grad()
def predicted(
    model: Any, predictor: ImportancePredictor, examples: ExampleSet, settings: StageSettings
) -> np.ndarray:
    found = np.zeros(len(examples.ids), np.float32)
    model.set_attn_implementation(CAUSAL)
    model.eval()
    for rows in bucketed(examples.lengths, settings.batch_tokens, 0, 0):
        ids, _ = examples.batch(rows)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bfloat16"):
            [states] = hidden_states(model, ids, ())
        values = predictor(states.float().flatten(0, 1)).amax(1).view(ids.shape)
        for at, row in enumerate(rows):
            length = int(examples.lengths[row])
            found[examples.starts[row] : examples.starts[row + 1]] = values[at, :length].numpy()
    return found
