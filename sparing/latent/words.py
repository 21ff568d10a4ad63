"""Words for latents (ours): a stage 3 whose text gets shorter, part by part.

What goes is what the importance predictor of ``memory`` gives the least value: words that nothing
later looks back at (it does not see what the next few tokens need of them), whole ones, as a step
of a calculation is one or several. The share grows from part to part. So that the text stays one
which the model can go on from, each part first asks the model that the part before has trained:
where it still finds one of the words behind a span unlikely, the span's words come back for good,
and none goes in their place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from safetensors.numpy import load_file, save

from sparing.errors import ModelError, OptionError
from sparing.files import write_atomically
from sparing.latent.fusion import LatentVector
from sparing.latent.objective import LatentThought
from sparing.latent.scores import metadata
from sparing.latent.settings import StageSettings
from sparing.latent.spans import (
    Span,
    bar_for,
    by_words,
    choose,
    droppable,
    packed,
    shorten,
    unpacked,
)
from sparing.memory.predictor import ImportancePredictor, find_predictor, load_predictor
from sparing.model.chat import ChatFormat, Defaults
from sparing.train.attention import NAME as CAUSAL
from sparing.train.batches import bucketed
from sparing.train.examples import SHOWN, Encoded, ExampleSet
from sparing.train.objective import Exits, hidden_states
from sparing.train.reason import load_base

FILE = "words-{}.safetensors"
# What a token that begins a word begins with, in byte-level and in sentencepiece vocabularies.
SPACES = tuple("ĠĊĉ▁ \t\n")
SPANS, BANNED = "spans", "banned"
FLOOR, BEHIND = 0.5, 6  # probability of any of so many words behind a span: below it, words return


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
class Shortener:
    """Drops words from examples for one part of stage 3. ``base``: the model that the predictor is
    of; ``model``, ``vector``, ``before``: as the part before left them, and its folder."""

    settings: StageSettings
    base: Path
    model: Any
    vector: LatentVector
    tokenizer: Any
    before: Path
    out: Path

    def __call__(self, name: str, examples: ExampleSet) -> ExampleSet:
        """The shortened examples; what was dropped is kept in ``out``, for the next part."""
        path = self.out / FILE.format(name)
        process = PartialState(cpu=not torch.cuda.is_available())
        told = {"examples": examples.fingerprint(), "part": str(self.settings.part)}
        if process.is_main_process and metadata(path) != told:
            banned = self._banned(name, examples)
            spans = self._spans(examples, banned)
            flat = [packed(s, int(n)) for s, n in zip(spans, examples.lengths, strict=True)]
            write_atomically(path, save({SPANS: np.concatenate(flat), BANNED: banned}, told))
        process.wait_for_everyone()
        spans = read_spans(load_file(path)[SPANS], examples)
        return self._shortened(examples, spans)[0]

    def _shortened(
        self, examples: ExampleSet, spans: Sequence[Sequence[Span]]
    ) -> tuple[ExampleSet, list[list[int]]]:
        taught, token = self.settings.targets == "predict", self.vector.recipe.id
        pairs = [shorten(examples[row], own, token, taught) for row, own in enumerate(spans)]
        return ExampleSet(example for example, _ in pairs), [behind for _, behind in pairs]

    def _spans(self, examples: ExampleSet, banned: np.ndarray) -> list[list[Span]]:
        """What goes in this part, of each example."""
        scores = importance_of(examples, self.base, self.settings)
        markers = ChatFormat(self.tokenizer, Defaults(frozenset())).markers
        if markers is None:
            raise ModelError("words-for-latents needs a model that marks its thoughts, got none")
        begins = begins_words(self.tokenizer)

        def valued(row: int, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            ids, roles = examples[row].ids, examples[row].roles
            free = droppable(ids, roles, markers.start_ids, markers.end_ids)
            return by_words(values, free, begins[np.asarray(ids)])

        values, stays = (np.split(found, examples.starts[1:-1]) for found in (scores, banned))
        own, thoughts = zip(*map(valued, range(len(examples)), values), strict=True)
        most, k = self.settings.most, self.settings.k
        bar = bar_for(own, thoughts, self.settings.drop, most)
        each = zip(own, thoughts, stays, strict=True)
        return [choose(v, thought & ~stay, bar, most, k) for v, thought, stay in each]

    def _banned(self, name: str, examples: ExampleSet) -> np.ndarray:
        """Tokens ``[N]`` that stay: of spans which the part before did not learn to do without."""
        path = self.before / FILE.format(name)
        told = metadata(path)
        if told is None or told["examples"] != examples.fingerprint():
            return np.zeros(len(examples.ids), bool)
        content = load_file(path)
        spans, banned = read_spans(content[SPANS], examples), content[BANNED]
        shortened, behind = self._shortened(examples, spans)
        for row, own in enumerate(self._surprises(shortened, behind)):
            for span, surprising in zip(spans[row], own, strict=True):
                if surprising:
                    start = examples.starts[row]
                    banned[start + span.begin : start + span.end] = True
        return banned

    @torch.no_grad()
    def _surprises(self, examples: ExampleSet, behind: Sequence[Sequence[int]]) -> list[list[bool]]:
        """Of each span, whether a word close behind it has a probability below ``FLOOR``."""
        found: list[list[bool]] = [[] for _ in behind]
        objective = LatentThought(self.model, Exits(), self.vector)
        head, device = self.model.get_output_embeddings(), next(self.model.parameters()).device
        self.model.eval()
        for rows in bucketed(examples.lengths, self.settings.batch_tokens, 0, 0):
            ids, roles = (values.to(device) for values in examples.batch(rows))
            with torch.autocast(device.type, torch.bfloat16, enabled=self._mixed):
                [states] = objective.states(ids, roles, ())
                for at, row in enumerate(rows):
                    spans, ahead = followers(examples[row], behind[row], self.vector.recipe.id)
                    places = torch.tensor(ahead, dtype=torch.long, device=device)
                    p = head(states[at, places - 1]).float().softmax(-1)
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


def read_spans(flat: np.ndarray, examples: ExampleSet) -> list[list[Span]]:
    """Of each example, from a number for each of all tokens."""
    bounds = zip(examples.starts[:-1], examples.starts[1:], strict=True)
    return [unpacked(flat[begin:end]) for begin, end in bounds]


def begins_words(tokenizer: Any) -> np.ndarray:
    """Of each id whether its token begins a word, ``[V]``."""
    vocabulary = tokenizer.get_vocab()
    found = np.zeros(max(vocabulary.values()) + 1, bool)
    found[[id_ for piece, id_ in vocabulary.items() if piece.startswith(SPACES)]] = True
    return found


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
