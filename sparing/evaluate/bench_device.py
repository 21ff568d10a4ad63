"""`sparing bench device`: ``custom_generate`` on a GPU, against ``generate`` of transformers.

The model has random weights and the shape of a known one. So its speed is that of the real one, and
what it says is of no worth: a draft's share of accepted tokens is told beside its speed.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch

from sparing.evaluate.report import Figure
from sparing.evaluate.timing import in_turns
from sparing.hf import generate

SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-1.7b": {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151_936,
        "tie_word_embeddings": True,
    },
    "tiny": {
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": 8,
        "vocab_size": 300,
        "tie_word_embeddings": True,
    },
}
BUDGET = 256  # new slots beside the prompt's
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "budget": {"policy": "window"},
    "drafts": {"draft": "lookup"},
}


def random_model(shape: str, dtype: torch.dtype, device: str) -> Any:
    """A Qwen3 with random weights, the same in every run."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(**SHAPES[shape], max_position_embeddings=40_960)
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen3ForCausalLM._from_config(config, dtype=dtype)
    return model.eval()


def bench_device(
    model: Any, batches: Sequence[int], prompt: int, new: int, rounds: int
) -> tuple[list[Figure], dict[str, Any]]:
    """Tokens a second over those of ``generate``, for prompts of ``prompt`` random tokens."""
    figures: list[Figure] = []
    raw: dict[str, Any] = {"device": device_name(model.device), "prompt": prompt, "new": new}
    for rows in batches:
        stats: dict[str, list[Any]] = {name: [] for name in WAYS}
        arms: dict[str, Callable[[], list[float]]] = {
            "generate": partial(timed, model, rows, prompt, new)
        }
        for name, way in WAYS.items():
            budget = {"budget": prompt + min(BUDGET, new // 2)} if name == "budget" else {}
            arms[name] = partial(
                timed,
                model,
                rows,
                prompt,
                new,
                custom_generate=generate,
                stats=stats[name],
                **way,
                **budget,
            )
        seconds = in_turns(arms, rounds)
        raw[f"seconds/{rows}"] = seconds
        for name in WAYS:
            ratios = [a / b for [a], [b] in zip(seconds["generate"], seconds[name], strict=True)]
            what = f"{name}, {rows} rows: tokens/s over generate of transformers"
            figures.append(
                Figure(f"{name}_vs_generate/{rows}", median(ratios), "x", "higher", what)
            )
        drafted = sum(each.drafted for each in stats["drafts"])
        raw[f"accepted/{rows}"] = sum(each.accepted for each in stats["drafts"]) / max(drafted, 1)
        raw[f"evictions/{rows}"] = sum(each.evictions for each in stats["budget"])
    return figures, raw


def timed(model: Any, rows: int, prompt: int, new: int, **more: Any) -> list[float]:
    """Seconds of a whole ``generate``, prompt included."""
    torch.manual_seed(rows)
    ids = torch.randint(model.config.vocab_size, (rows, prompt)).to(model.device)
    begun = time.perf_counter()
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        **more,
    ).tolist()  # waits for a GPU to end
    return [time.perf_counter() - begun]


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
