"""Words for latents (ours): the thought gets shorter from stage to stage.

Dropped are the words with the least predicted importance (the predictor of ``memory``): words with
little attention from later tokens, the next few tokens not counted. Words are dropped by kind
(`word_classes`), by the mean importance of the kind, so that a model can learn the rule: in a step
of a sum the operands go, not the result.

After a stage that already dropped words the share may grow. The stage's model is tested first: a
kind stays for good if the model too often fails on the words behind it. No other kind goes instead.
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
from sparing.model.chat import ChatFormat
from sparing.model.generation_defaults import GenerationDefaults
from sparing.train.attention import NAME as CAUSAL
from sparing.train.batches import bucketed
from sparing.train.examples import SHOWN, Encoded, ExampleSet
from sparing.train.objective import Exits, hidden_states
from sparing.train.reason import load_base

FILE = "words.json"
ASKED = 400  # examples, about, of the test of a stage's model
FLOOR, BEHIND = 0.5, 6  # a span is missed if one of BEHIND words after it is less likely than FLOOR
MISSED = 0.05  # largest share of missed spans of a kind


@dataclass(frozen=True)
class Rule:
    """Which kinds of words to drop.

    ``examples``: fingerprint of the examples behind the rule
    ``stage``: the stage of the rule
    ``values``: mean importance of each kind, by name
    ``goes``: names of the dropped kinds
    ``stays``: names of the kinds kept for good
    """

    examples: str
    stage: int
    values: dict[str, float]
    goes: frozenset[str]
    stays: frozenset[str]

    def content(self) -> dict[str, Any]:
        return asdict(self) | {"goes": sorted(self.goes), "stays": sorted(self.stays)}


def read_rule(path: Path, examples: str) -> Rule | None:
    """Read a rule; None if there is none, or if it belongs to other examples."""
    try:
        kept = json.loads(path.read_text())
        rule = Rule(**{**kept, **{name: frozenset(kept[name]) for name in ("goes", "stays")}})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return rule if rule.examples == examples else None


def find_values(directory: Path, predictor: str | None) -> Path:
    """The folder of the base's importance predictor; raises OptionError without one."""
    home = find_predictor(predictor, directory)
    if home is None:
        raise OptionError(
            "words-for-latents needs a base with an importance predictor, got one without; train "
            "one with `sparing train predictor` and pass --predictor"
        )
    return home


@dataclass(frozen=True)
class WordDropper:
    """Drops words from the examples of a stage.

    ``base``: the predictor's model
    ``model``, ``vector``: from the stage before
    ``before``: the folder of the stage before
    ``out``: the folder of this stage
    """

    settings: StageSettings
    base: Path
    model: Any
    vector: LatentVector
    tokenizer: Any
    before: Path
    out: Path

    def __call__(self, named: Mapping[str, ExampleSet]) -> list[ExampleSet]:
        """Shorten all sets by one rule, made from the set ``train``.

        The rule is stored in ``out``, for the next stage and for a reader.
        """
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
        """The spans to drop in each example."""
        kinds = kinds_of(examples, self.tokenizer)
        goes = np.array([name in rule.goes for name in kinds.names], bool)[kinds.kind]
        gone = np.split(goes & kinds.whole(self._free(examples)), examples.starts[1:-1])
        settings = self.settings
        return [choose(each, settings.most, settings.k, settings.per_latent) for each in gone]

    def dropped(self, examples: ExampleSet) -> Bool[np.ndarray, " N"]:
        """Mark the dropped tokens."""
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
        """Mark the replaceable tokens ``[N]``."""
        markers = ChatFormat(self.tokenizer, GenerationDefaults(frozenset())).markers
        if markers is None:
            raise ModelError(
                "words-for-latents needs a model with think markers, got one without; "
                "choose another base"
            )
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
        """The kinds on which the model of the stage before fails too often without the words."""
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
        """Whether a word close behind each span has a probability below ``FLOOR``."""
        found: list[list[bool]] = [[] for _ in behind]
        rounds = self.settings.rounds
        rounds = rounds if rounds is None else max(rounds, 1)  # 0 would put the words back
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
    """The taught words close behind each span, up to the next span.

    Returns the number of the span and the place of each word. ``behind``: the place behind each
    span; ``token``: the latent token.
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
    """Predicted importance ``[N]`` of each token, the largest over the predictor's horizons."""
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
