"""What Sparing is measured against: transformers, and OpenVINO GenAI where it is installed."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from sparing.engine.row import Request
from sparing.engine.sampling import Sampler
from sparing.engine.transcript import Transcript
from sparing.evaluate.bench_decode import cache_bytes, generate
from sparing.model.chat import ChatFormat
from sparing.model.reference import ReferenceDecoder

OPENVINO_PACKAGE = "openvino_genai"


@dataclass(frozen=True)
class Said:
    """New tokens, and the bytes of the keys and values at their end; None where nobody tells."""

    ids: list[int]
    kv_bytes: int | None


class Peer(Protocol):
    """Answers a request: its prompt, its way of drawing with another generator's noise, its end."""

    def __call__(self, request: Request) -> Said: ...


def room(request: Request) -> int:
    """How many new tokens a request may have."""
    limits = request.limits
    return min(limits.max_new_tokens, limits.context - len(request.prompt.ids))


def heard(chat: ChatFormat, request: Request, ids: list[int], vocabulary: int) -> Transcript:
    """What Sparing makes of a peer's tokens: which of them are thought, answer and end."""
    transcript = Transcript(chat, request.prompt, request.sampler, request.limits, vocabulary)
    for token in ids:
        transcript.append(token)
        if transcript.finish_reason:
            break
    return transcript


class Transformers:
    """``generate`` of a transformers model; ``more``: of its own options."""

    def __init__(self, model: Any, **more: Any) -> None:
        self.model, self.more = model, more

    @classmethod
    def load(cls, directory: Path, dtype: torch.dtype, **more: Any) -> "Transformers":
        """Raises ModelError where transformers cannot load it."""
        model = ReferenceDecoder.load(directory, dtype).model
        model.generation_config.eos_token_id = None  # requests say where they end
        return cls(model, **more)

    def __call__(self, request: Request) -> Said:
        ends = sorted(request.limits.end_ids)
        options = drawing(request.sampler) | ({"eos_token_id": ends} if ends else {}) | self.more
        prompt = torch.tensor([request.prompt.ids])
        torch.manual_seed(request.sampler.seed)
        found = generate(self.model, prompt, room(request), min_new_tokens=0, **options)
        return Said(found.sequences[0, prompt.shape[1] :].tolist(), cache_bytes(found))


def drawing(sampler: Sampler) -> dict[str, Any]:
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


@dataclass
class Stop:
    """Whether somebody wants an end."""

    wanted: bool = False


class OpenVINO:
    """OpenVINO GenAI's ``LLMPipeline`` on a GGUF, on as many threads as torch has, all else as it
    comes."""

    def __init__(self, gguf: Path) -> None:
        import openvino_genai

        self._genai = openvino_genai
        threads = torch.get_num_threads()
        self._pipeline = openvino_genai.LLMPipeline(str(gguf), "CPU", INFERENCE_NUM_THREADS=threads)

    def __call__(self, request: Request) -> Said:
        from openvino import Tensor

        prompt = Tensor(np.array([request.prompt.ids], np.int64))
        config, stop = self._config(request), Stop()
        with ThreadPoolExecutor(1) as beside:  # here Ctrl-C would not be heard before the end
            found = beside.submit(self._pipeline.generate, prompt, config, self._until(stop))
            try:
                return Said(list(found.result().tokens[0]), None)
            except KeyboardInterrupt:
                stop.wanted = True
                raise

    def _until(self, stop: "Stop") -> Any:
        """A listener that ends the generation once it is to ``stop``."""
        status = self._genai.StreamingStatus

        class Listener(self._genai.StreamerBase):  # type: ignore[name-defined]
            def write(self, tokens: Any) -> Any:
                return status.CANCEL if stop.wanted else status.RUNNING

            def end(self) -> None:
                pass

        return Listener()

    def _config(self, request: Request) -> Any:
        sampler, ends = request.sampler, request.limits.end_ids
        config = self._genai.GenerationConfig()
        config.max_new_tokens = room(request)
        config.ignore_eos = not ends
        config.stop_token_ids = set(ends)
        config.repetition_penalty = sampler.repetition_penalty
        config.do_sample = sampler.temperature > 0
        if config.do_sample:
            config.temperature, config.top_p = sampler.temperature, sampler.top_p
            config.rng_seed = sampler.seed
            if sampler.top_k:
                config.top_k = sampler.top_k
        return config


def openvino_version() -> str | None:
    """None where it is not installed."""
    return version(OPENVINO_PACKAGE.replace("_", "-")) if find_spec(OPENVINO_PACKAGE) else None
