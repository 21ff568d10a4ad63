"""Tiny checkpoints that think latent steps, on disk and loaded by Sparing; what they say."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sparing.api import Engine, load
from sparing.engine.events import LatentEvent, TokenEvent
from sparing.engine.result import Result
from sparing.latent.config import LatentConfig, save_latents
from sparing.latent.fusion import LatentVector
from sparing.latent.token import add_token
from tests.engine import driving
from tests.tiny import tiny

LOUD = 5.0  # times the latent token's row of the head: it is picked now and then


def thinking(family: str = "llama", source: Path | None = None, **changed: Any) -> Path:
    """A random checkpoint of three layers with a latent token; ``changed``: of its config."""
    return _thinking(family, source, tuple(sorted(changed.items())))


@cache
@torch.no_grad()
def _thinking(family: str, source: Path | None, changed: tuple[tuple[str, Any], ...]) -> Path:
    source = source or tiny(family, num_hidden_layers=3)
    out = source.with_name(f"{source.name}-thinking-{abs(hash(changed))}")
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source)
    id_ = add_token(model, tokenizer, "<thinking>")
    noise = torch.Generator().manual_seed(1)
    width = model.config.hidden_size
    loud = LOUD * 0.3 * torch.randn(width, generator=noise)
    model.get_output_embeddings().weight[id_] = loud
    config = LatentConfig(id=id_, **dict(changed))
    vector = LatentVector(config, width)
    for weight in vector.parameters():
        weight.copy_(torch.randn(weight.shape, generator=noise) / weight.shape[-1] ** 0.5)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    save_latents(vector, config, out, tokenizer)
    return out


@cache
def thinker(
    path: Path, dtype: str = "float64", decoder: str = "auto", device: str = "cpu"
) -> Engine:
    return load(str(path), dtype=dtype, decoder=decoder, device=device)


def said(result: Result) -> dict[str, Any]:
    """As that of the driver, a thought's words without the last digits of their probabilities."""
    found = driving.said(result)
    for event in found["events"]:
        if event["type"] == "latent":
            event["top"] = [(word, round(p, 6)) for word, p in event["top"]]
    return found


def latents(result: Result) -> list[int]:
    return [event.position for event in result.events if isinstance(event, LatentEvent)]


def with_latents(result: Result, token: int) -> list[int]:
    """Prompt and output, the latent token at every latent position."""
    steps = [e for e in result.events if isinstance(e, TokenEvent | LatentEvent)]
    start = len(result.prompt_token_ids)
    assert [e.position for e in steps] == list(range(start, start + len(steps)))
    return result.prompt_token_ids + [e.id if isinstance(e, TokenEvent) else token for e in steps]
