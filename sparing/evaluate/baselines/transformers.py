"""``generate`` of transformers."""

from pathlib import Path
from typing import Any

import torch

from sparing.engine.row import Request
from sparing.engine.sampling import Sampler
from sparing.evaluate.baselines.answer import BaselineAnswer, room
from sparing.model.checkpoint import in_transformers, read_model

LOOKUP_TOKENS = 10  # prompt_lookup_num_tokens, as its documentation has it


def in_memory(source: Path, dtype: torch.dtype) -> Any:
    """A model of transformers, as it comes; raises ModelError where it cannot be loaded."""
    with in_transformers(source):
        return read_model(source, dtype).eval()


class Transformers:
    """``generate`` of a transformers model; ``more``: of its own options."""

    def __init__(self, model: Any, **more: Any) -> None:
        self.model, self.more = model, more

    @classmethod
    def load(cls, source: Path, dtype: torch.dtype, **more: Any) -> "Transformers":
        """From a directory or a GGUF; raises ModelError where transformers cannot load it."""
        model = in_memory(source, dtype)
        model.generation_config.eos_token_id = None  # requests say where they end
        return cls(model, **more)

    def __call__(self, request: Request) -> BaselineAnswer:
        ends = sorted(request.limits.end_ids)
        options = options_of(request.sampler) | ({"eos_token_id": ends} if ends else {}) | self.more
        prompt = torch.tensor([request.prompt.ids])
        torch.manual_seed(request.sampler.seed)
        found = generate(self.model, prompt, room(request), min_new_tokens=0, **options)
        return BaselineAnswer(found.sequences[0, prompt.shape[1] :].tolist(), cache_bytes(found))


def options_of(sampler: Sampler) -> dict[str, Any]:
    """A sampler as options of ``generate``."""
    penalty = {"repetition_penalty": sampler.repetition_penalty}
    if sampler.temperature == 0:
        return penalty | {"do_sample": False}
    return penalty | {
        "do_sample": True,
        "temperature": sampler.temperature,
        "top_k": sampler.top_k or 0,
        "top_p": sampler.top_p,
        "min_p": sampler.min_p or None,
    }


@torch.inference_mode()
def generate(model: Any, prompt: torch.Tensor, count: int, **more: Any) -> Any:
    """What transformers generates with everything kept, its cache with it: greedily and to the last
    of ``count`` tokens, unless ``more``, of its own options, says otherwise."""
    return model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=count,
        return_dict_in_generate=True,
        **{"do_sample": False, "min_new_tokens": count} | more,
    )


def cache_bytes(generated: Any) -> int:
    """Of transformers' keys and values at the end, from their storages."""
    layers = generated.past_key_values.layers
    return sum(t.untyped_storage().nbytes() for layer in layers for t in (layer.keys, layer.values))
