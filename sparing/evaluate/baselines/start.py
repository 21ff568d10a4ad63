"""The baselines that a command was given interpreters for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparing.evaluate.baselines.llama_cpp import LLAMA_CPP, LlamaCpp
from sparing.evaluate.baselines.openvino import OPENVINO, OPENVINO_EVICTION, OpenVINO
from sparing.evaluate.baselines.process import BaselineError
from sparing.model.sources import find_gguf

Engines = dict[str, LlamaCpp | OpenVINO]


class Baselines:
    """Engines by name, and those left out with the reason: it is a line.

    A context manager: at its end all processes are gone.
    """

    def __init__(self) -> None:
        self.engines: Engines = {}
        self.left_out: dict[str, str] = {}

    @classmethod
    def start(
        cls,
        model: str,
        threads: int,
        llama_cpp: str | None = None,
        openvino: str | None = None,
        budget: int | float | None = None,
    ) -> "Baselines":
        """Those whose interpreter is given; ``budget``: OpenVINO with its own eviction, too, which
        must be told it in slots."""
        found = cls()
        gguf = find_gguf(model)
        if llama_cpp:
            found.add(LLAMA_CPP, gguf, lambda file: LlamaCpp(llama_cpp, file, threads))
        if openvino:
            found.add(OPENVINO, gguf, lambda file: OpenVINO(openvino, file, threads))
        if openvino and isinstance(budget, int):
            found.add(
                OPENVINO_EVICTION, gguf, lambda file: OpenVINO(openvino, file, threads, budget)
            )
        elif openvino and budget is not None:
            found.left_out[OPENVINO_EVICTION] = "its budget must be slots, got a share"
        return found

    def add(self, name: str, gguf: Path | None, engine: Any) -> None:
        """Start one on a file, or say why not."""
        if gguf is None:
            self.left_out[name] = "the model is no GGUF"
            return
        try:
            self.engines[name] = engine(gguf)
        except BaselineError as error:
            self.left_out[name] = error.why

    def drop(self, error: BaselineError) -> None:
        """One broke down: it is left out from here on."""
        self.engines.pop(error.name).close()
        self.left_out[error.name] = error.why

    def missing(self, name: str) -> str | None:
        """Why one is not there; None where it is."""
        if name in self.engines:
            return None
        flag = "--llama-cpp" if name == LLAMA_CPP else "--openvino"
        return self.left_out.get(name, f"no {flag} given")

    @property
    def llama_cpp(self) -> LlamaCpp | None:
        return self.engines.get(LLAMA_CPP)  # type: ignore[return-value]

    @property
    def openvino(self) -> OpenVINO | None:
        return self.engines.get(OPENVINO)  # type: ignore[return-value]

    def described(self) -> Mapping[str, Any]:
        """Versions and settings, for a report."""
        found = {}
        for name, engine in self.engines.items():
            found[name] = dict(engine.about)
            if isinstance(engine, LlamaCpp):
                found[name]["trials"] = engine.trials
        return found

    def __enter__(self) -> "Baselines":
        return self

    def __exit__(self, *_: object) -> None:
        for engine in self.engines.values():
            engine.close()
