"""A model of two narrow layers, made-up examples, and a run over them that takes a second."""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from sparing.train.examples import RECALL, SHOWN, TAUGHT, Corpus, Encoded, ExampleSet
from sparing.train.loop import Pace, Report, Trainer
from sparing.train.settings import TrainSettings
from tests.tiny import randomize

VOCABULARY = 40
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": 1,
}
STEPS = 12
SUMS = [
    {"question": f"{i} and {i}?", "answer": f"{i} + {i} = {2 * i}\n#### {2 * i}"} for i in range(12)
]


def small_model(**shape: Any) -> Any:
    """The same random weights each time."""
    model = LlamaForCausalLM(LlamaConfig(**SHAPE | shape))
    randomize(model, seed=0, gain=1.0)
    return model


def small_rows(count: int, seed: int = 0) -> list[Encoded]:
    """Rows of 3 to 20 tokens: some shown, some taught, some recalled; the last one taught."""
    noise = random.Random(seed)
    rows = []
    for at in range(count):
        length = noise.randint(3, 20)
        ids = [noise.randrange(VOCABULARY) for _ in range(length)]
        roles = [SHOWN, *noise.choices((SHOWN, TAUGHT, RECALL), k=length - 2), TAUGHT]
        rows.append(Encoded(ids, roles, f"task-{at % 2}"))
    return rows


def small_corpus(count: int = 30, seed: int = 0) -> Corpus:
    return Corpus(ExampleSet(small_rows(count, seed)), ExampleSet(small_rows(6, seed + 100)))


def small_settings(**changed: Any) -> TrainSettings:
    """Twelve steps of plain AdamW in float32: no dropout, no exits."""
    plain = {
        "steps": STEPS,
        "batch_tokens": 90,
        "optimizer": "adamw",
        "warmup": 2,
        "precision": "float32",
        "layer_dropout": 0.0,
        "exit_weight": 0.0,
    }
    return TrainSettings(**plain | changed)


def train(out: Path, pace: Pace, on_report: Any = lambda report: None, **changed: Any) -> Any:
    """A run in ``out``, or what is left of it; the model that it leaves."""
    model = small_model()
    Trainer(model, small_corpus(), small_settings(**changed), out, on_report).run(pace)
    return model


def weights(model: Any) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_identical(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    """To the last bit."""
    assert first.keys() == second.keys()
    unlike = [name for name in first if not torch.equal(first[name], second[name])]
    assert not unlike


def ctrl_c_at(step: int) -> Any:
    """An ``on_report`` that a user interrupts."""

    def on_report(report: Report) -> None:
        if report["step"] == step:
            raise KeyboardInterrupt

    return on_report


def write_sums(file: Path) -> Path:
    """Twelve solved sums, in the form of GSM8K."""
    file.write_text("\n".join(map(json.dumps, SUMS)))
    return file


@contextmanager
def fresh(threads: int | None = None) -> Iterator[None]:
    """As if no run had been before, with so many threads; these are as they were after."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    forget_accelerate()
    try:
        yield
    finally:
        forget_accelerate()
        torch.set_num_threads(before)


def forget_accelerate() -> None:
    """accelerate keeps one mixed precision a process; every run here has its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
