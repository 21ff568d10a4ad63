"""llama.cpp, in an interpreter that has llama-cpp-python."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from sparing.engine.row import Request
from sparing.evaluate.baselines.answer import BaselineAnswer, asked
from sparing.evaluate.baselines.process import SCRIPTS, Process

LLAMA_CPP = "llama-cpp"
SCRIPT = SCRIPTS / "llama_cpp_script.py"
TRIES = 5  # passes by which settings are chosen
Settings = dict[str, bool]
Ids = Sequence[Sequence[int]]


class LlamaCpp:
    """A GGUF in llama.cpp. Everything is timed from within the other process.

    ``about``: its version and what it was built for. ``trials``: by name of a context the settings
    that were tried and their median seconds; a context has the fastest.
    """

    def __init__(self, python: str, gguf: Path, threads: int, script: Path = SCRIPT) -> None:
        self.process = Process(LLAMA_CPP, python, script)
        self.trials: dict[str, list[tuple[Settings, float]]] = {}
        self.about = self.process.call("load", model=str(gguf), threads=threads)

    def close(self) -> None:
        self.process.close()

    def open(self, name: str, ids: Ids, slots: int, *, by_prompt: bool = False) -> None:
        """A context of ``slots`` for each of the prompts, which fill it. Settings are chosen by its
        steps of one token, or ``by_prompt``."""
        self.trials[name] = []
        for settings in candidates(len(ids)):
            tried = named(name, settings)
            filling = {"name": tried, "ids": ids, "slots": slots, "settings": settings}
            self.process.call("fill", **filling)
            if by_prompt:
                seconds = [self.process.call("fill", **filling)]
            elif len(ids) == 1:
                seconds = self.process.call("passes", name=tried, tokens=ids[0][:1], count=TRIES)
            else:
                seconds = self.process.call("steps", name=tried, count=TRIES)
            self.trials[name].append((settings, median(seconds)))
        for settings, _ in self.trials[name]:
            if settings != self.settings(name):
                self.process.call("drop", name=named(name, settings))

    def settings(self, name: str) -> Settings:
        """The fastest of those tried."""
        return min(self.trials[name], key=lambda trial: trial[1])[0]

    def drop(self, name: str) -> None:
        """Free a context."""
        self.process.call("drop", name=self._full(name))

    def fill(self, name: str, ids: Ids) -> float:
        """Seconds of the prompts, up to the next token of each; what was there is gone."""
        return self.process.call("fill", name=self._full(name), ids=ids, slots=0, settings={})

    def steps(self, name: str, count: int) -> list[float]:
        """Seconds of each greedy step of one token a sequence; the context grows."""
        return self.process.call("steps", name=self._full(name), count=count)

    def passes(self, name: str, tokens: Sequence[int], count: int) -> list[float]:
        """Seconds of each pass over new tokens, all scored; the context stays as it is."""
        return self.process.call("passes", name=self._full(name), tokens=tokens, count=count)

    def nll(self, ids: Sequence[int]) -> float:
        """Negative log likelihood of all but the first id, in sum."""
        return self.process.call("nll", ids=ids)

    def tune(self, ids: Sequence[int]) -> None:
        """Choose the settings of generations, whose cache is as full as of these ids on average."""
        self.open("generate", [list(ids)], len(ids) + TRIES)
        self.drop("generate")

    def __call__(self, request: Request) -> BaselineAnswer:
        """With the settings of ``tune``; without it, with the best for the first prompt."""
        if "generate" not in self.trials:
            self.tune(request.prompt.ids)
        given = asked(request) | {"settings": self.settings("generate")}
        found = self.process.call("generate", **given)
        return BaselineAnswer(found["ids"], None, found["times"])

    def _full(self, name: str) -> str:
        return named(name, self.settings(name)) if name in self.trials else name


def candidates(sequences: int) -> list[Settings]:
    """Settings worth a try: flash attention; of several sequences one buffer for all, too."""
    buffers = (False, True) if sequences > 1 else (False,)
    return [{"flash": flash, "unified": unified} for unified in buffers for flash in (False, True)]


def named(name: str, settings: Settings) -> str:
    return "/".join([name, *(setting for setting, on in settings.items() if on)])
