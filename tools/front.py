"""README's table: decoding of each model beside llama.cpp, a line a model."""

import json
from pathlib import Path

from tools.tables import grid

MODELS = {
    "qwen2.5-coder-1.5b": "Qwen2.5-Coder-1.5B, Q4_K_M",
    "qwen2.5-coder-0.5b": "Qwen2.5-Coder-0.5B, Q4_K_M",
    "smollm2": "SmolLM2-135M, Q4_1",
    "pocket": "pocket, float32",
}
COLUMNS = {
    "ms a token": ("step_ms_64", "{:.1f}"),
    "tokens/s over llama.cpp": ("vs_llama_cpp/64", "{:.2f}"),
    "with 4,096 cached": ("vs_llama_cpp/4096", "{:.2f}"),
    "8 sequences": ("batch8_vs_llama_cpp", "{:.2f}"),
    "prompt": ("prefill_vs_llama_cpp", "{:.2f}"),
    "perplexity over llama.cpp's": ("perplexity_vs_llama_cpp", "{:.3f}"),
    "KV bytes at budget 512, over full float32": ("kv_bytes_share", "{:.0%}"),
}


def front_table() -> str:
    """Models without a report are left out; a figure that was not measured is an empty cell."""
    rows = [["model", *COLUMNS]]
    for name, label in MODELS.items():
        path = Path(f"results/decode-{name}.json")
        if path.exists():
            found = {row["name"]: row["value"] for row in json.loads(path.read_text())["rows"]}
            cells = [
                shown.format(found[key]) if key in found else "" for key, shown in COLUMNS.values()
            ]
            rows.append([label, *cells])
    return grid(rows)
