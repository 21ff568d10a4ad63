"""OpenVINO GenAI, in an interpreter that has openvino-genai."""

from pathlib import Path
from typing import Any

from sparing.engine.row import Request
from sparing.evaluate.baselines.answer import BaselineAnswer, asked
from sparing.evaluate.baselines.process import SCRIPTS, Process

OPENVINO, OPENVINO_EVICTION = "openvino", "openvino-eviction"


class OpenVINO:
    """A GGUF in its ``LLMPipeline``; ``budget``: slots, above which its own eviction works."""

    def __init__(self, python: str, gguf: Path, threads: int, budget: int | None = None) -> None:
        name = OPENVINO if budget is None else OPENVINO_EVICTION
        self.process = Process(name, python, SCRIPTS / "openvino_script.py")
        arguments = {"model": str(gguf), "threads": threads, "budget": budget}
        self.about: dict[str, Any] = self.process.call("load", **arguments)

    def close(self) -> None:
        self.process.close()

    def generate(self, ids: list[int], new_tokens: int) -> list[float]:
        """Seconds from the beginning to each token, greedily."""
        arguments = {
            "ids": ids,
            "new_tokens": new_tokens,
            "ends": [],
            "sampler": {"temperature": 0},
        }
        return self.process.call("generate", **arguments)["times"]

    def __call__(self, request: Request) -> BaselineAnswer:
        found = self.process.call("generate", **asked(request))
        return BaselineAnswer(found["ids"], None, found["times"])
