"""`sparing bench decode`: what loading takes, and two engines on one machine at once."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import torch

from sparing.evaluate.baselines.process import Process
from sparing.evaluate.bench_decode import CACHED, DecodeBench, Measured
from sparing.evaluate.report import Figure
from sparing.model.gguf_files import is_gguf, split_paths
from sparing.model.sources import find_model

SCRIPT = Path(__file__).parent / "own_script.py"
LOADS = 3
TURN_S = 2.0
MOST_STEPS = 2048  # a turn


def another(bench: DecodeBench) -> tuple[Process, dict[str, float]]:
    """A process of this interpreter with the model, and what loading it took."""
    process = Process("a second Sparing", sys.executable, SCRIPT)
    threads = torch.get_num_threads()
    return process, process.call("load", model=bench.engine.name, threads=threads, **bench.loading)


def loading(bench: DecodeBench) -> Measured:
    """In fresh processes, the file in the system's cache: the first one brings it there."""
    size = weight_bytes(find_model(bench.engine.name))
    loads = []
    for _ in range(1 + min(LOADS, bench.rounds)):
        process, took = another(bench)
        process.close()
        loads.append(took)
    seconds = median(took["seconds"] for took in loads[1:])
    peak = median(took["peak_bytes"] - took["before_bytes"] for took in loads[1:])
    figures = [
        Figure("load_seconds", seconds, "s", "lower", what="load, seconds, from a warm disk"),
        Figure(
            "load_peak_over_file",
            peak / size,
            "x",
            "lower",
            what="peak memory of a load, less that of the packages, over the file's size",
        ),
    ]
    return figures, {"loads": loads, "file_bytes": size}


def weight_bytes(path: Path) -> int:
    """Of a model's files."""
    files = split_paths(path) if is_gguf(path) else path.glob("*.safetensors")
    return sum(file.stat().st_size for file in files)


def two_engines(bench: DecodeBench) -> Measured:
    """Two processes that decode at once, against one alone, in turns."""
    processes = [another(bench)[0] for _ in range(2)]
    ids = [bench.ids[: CACHED[0]]]
    room = min(MOST_STEPS, bench.engine.decoder.shape.context - CACHED[0] - 1)

    def rate(process: Process) -> float:
        process.call("fill", ids=ids, room=room)
        return process.call("steps_within", wanted_s=TURN_S)

    with ThreadPoolExecutor(2) as pool:
        arms: dict[str, Callable[[], float]] = {
            "alone": lambda: rate(processes[0]),
            "both": lambda: sum(pool.map(rate, processes)),
        }
        rates: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(bench.rounds):
            for name, run in arms.items():
                rates[name].append(run())
    for process in processes:
        process.close()
    value = median(rates["both"]) / median(rates["alone"])
    what = "two processes at once, tokens/s of both over one alone"
    raw = {"two_engines_tokens_per_s": rates}
    return [Figure("two_engines_share", value, "share", "higher", what=what)], raw
