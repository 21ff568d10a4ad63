"""Help, `sparing models` and users' mistakes import neither torch nor transformers."""

import json
import subprocess
import sys

HEAVY = ("torch", "transformers", "tokenizers", "huggingface_hub", "ray")
SCRIPT = f"""
import json, sys
from sparing.cli.main import main

for command in json.load(sys.stdin):
    sys.argv[1:] = command
    try:
        main()
    except SystemExit as exit_:
        code = exit_.code or 0
    heavy = [name for name in {HEAVY} if name in sys.modules]
    print(json.dumps([command, code, heavy]), file=sys.stderr)
"""
BENCHES = ("decode", "pocket", "memory", "depth", "serve", "all")
FINE = [
    ["--help"],
    ["-h"],
    ["--version"],
    ["models"],
    ["models", "--json"],
    *([name, "--help"] for name in ("run", "chat", "models", "serve", "eval", "compare")),
    *(["train", name, "-h"] for name in ("reason", "latent", "ablations", "predictor")),
    ["tune", "depth", "-h"],
    *(["bench", name, "-h"] for name in ("decode", "memory", "depth", "latent", "all", "serve")),
]
WRONG = [
    ["rnu"],
    ["run"],
    ["run", "hi", "--buget", "9"],
    ["run", "hi", "--budget", "much"],
    ["run", "hi", "--top-p", "0"],
    ["run", "hi", "--policy", "window"],
    ["run", "hi", "--latent", "learned"],
    ["run", "hi", "--tau", "0.5"],
    ["run", "hi", "--draft", "lookup", "--trees"],
    ["run", "hi", "--dtype", "int3"],
    ["run", "hi", "--threads", "0"],
    ["run", "hi", "--decoder", "hub", "--weights", "q8_0"],
    ["run", "hi", "--events"],
    ["run", "hi", "--model", "pokcet"],
    ["run", "hi", "--model", "./nowhere"],
    ["run", "hi", "--model", "nowhere.gguf"],
    ["run", "hi", "--predictor", "nowhere"],
    ["chat", "--temperature", "-1"],
    ["eval"],
    ["eval", "--task", "nowhere.jsonl"],
    ["eval", "--task", "sums", "--model", "pokcet"],
    ["eval", "--task", "sums", "--json", "."],
    ["eval", "--task", "sums", "--ray", "nowhere"],
    ["compare", "nowhere.json", "nowhere.json"],
    ["serve", "--kv-bytes", "much"],
    ["serve", "--rows", "0"],
    ["serve", "--model", "pokcet"],
    ["train", "reason"],
    ["train", "reason", "--out", "nowhere", "--steps", "0"],
    ["train", "predictor", "--out", "nowhere", "--epochs", "0"],
    ["train", "latent", "--base", "pocket", "--out", "nowhere", "--stages", "3,1"],
    ["train", "latent", "--base", "pokcet", "--out", "nowhere"],
    ["train", "ablations", "--out", "nowhere", "--arms", "all"],
    ["train", "ablations", "--base", "pokcet", "--out", "nowhere"],
    ["tune", "depth", "--model", "pokcet"],
    ["train", "predictor", "--out", "nowhere", "--model", "pokcet"],
    ["bench", "decode", "--nn", "1"],
    *(["bench", name, "--model", "pokcet"] for name in BENCHES),
    *(["bench", name, "--predictor", "nowhere"] for name in BENCHES),
    *(["bench", name, "--json", "."] for name in BENCHES),
    ["bench", "decode", "--llama-cpp", "nowhere"],
]


def outcomes(commands):
    """Exit code and heavy modules after each command, all in one process."""
    given = json.dumps(commands)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=given, capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stderr.splitlines() if line.startswith("[[")]


def test_help_and_models_import_nothing_heavy():
    assert outcomes(FINE) == [[command, 0, []] for command in FINE]


def test_a_mistake_is_found_before_anything_heavy_is_imported():
    assert outcomes(WRONG) == [[command, 2, []] for command in WRONG]
