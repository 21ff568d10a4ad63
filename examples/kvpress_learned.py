"""The importance predictor as a press of kvpress, beside one of kvpress' own and a full cache.

kvpress needs transformers < 5.3 and Sparing a newer one, so this file imports nothing of Sparing
and runs in an environment of its own:

    pip install kvpress
    python examples/kvpress_learned.py MODEL [QUESTION] [TARGET_SIZE]

MODEL is a folder in Hugging Face format with ``predictor.json`` and ``predictor.safetensors``, as
`sparing train predictor` writes them; sparing/pocket/weights is one.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from kvpress import DecodingPress, KnormPress, ScorerPress
from kvpress.utils import compute_n_kept
from safetensors.torch import load_file
from torch.nn.functional import softplus
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline


@dataclass
class LearnedPress(ScorerPress):
    """DynTS (arXiv 2601.18383): the tokens with the highest predicted importance stay.

    The predictor reads hidden states behind the model's last norm, so a pass scores its tokens at
    its end, and the newest token has no score yet. Every layer and head keeps the same tokens. The
    prompt, which is read in passes of several tokens, and the ``local`` share of the rest that is
    most recent are never evicted. One row at a time.
    """

    folder: str = ""
    local: float = 0.4
    hook = None

    def post_init_from_model(self, model):
        """Called by kvpress when a generation begins."""
        config = json.loads((Path(self.folder) / "predictor.json").read_text())
        weights = load_file(Path(self.folder) / "predictor.safetensors")
        self.horizons = torch.tensor(config["horizons"])
        self.maps = [weights[f"maps.{i}.weight"].to(model.dtype) for i in range(len(weights))]
        self.predicted, self.positions, self.next = [], torch.empty(0, dtype=torch.long), 0
        if self.hook:
            self.hook.remove()
        self.hook = model.model.norm.register_forward_hook(self.remember)

    def remember(self, module, inputs, hidden):
        """Predict the importance of a generated token, for each horizon."""
        if hidden.shape[1] == 1:
            importance = hidden[0]
            for weight in self.maps:
                importance = softplus(importance @ weight.T)
            self.predicted.append(importance)

    def score(self, module, hidden_states, keys, values, attentions, kwargs):
        slots = keys.shape[2]
        if module.layer_idx == 0:  # the other layers keep the same slots
            new = slots - len(self.positions)
            self.positions = torch.cat([self.positions, self.next + torch.arange(new)])
            self.next += new
            kept = compute_n_kept(slots, self.compression_ratio)
            self.ranks = self.ranked(kept)
            self.positions = self.positions[self.ranks.topk(kept).indices]  # kvpress' own order
        return self.ranks.expand(1, keys.shape[1], slots)

    def ranked(self, kept):
        """Distinct scores: prompt and recent slots first, then by predicted importance."""
        importance, last = torch.cat(self.predicted), self.next - 1
        first = last - len(importance)  # position behind the prompt
        ages = last - self.positions
        horizon = (torch.searchsorted(self.horizons, ages, right=True) - 1).clamp(0)
        scores = importance[(self.positions - first).clamp(0, len(importance) - 1), horizon]
        scores[(self.positions < first) | (ages < self.local * (kept - first))] = torch.inf
        return scores.argsort(stable=True).argsort().float()


def main(folder, question="What is 382 - 197 + 415 - 868 + 250?", target="96"):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    answer = pipeline(
        "kv-press-text-generation", model=model, tokenizer=AutoTokenizer.from_pretrained(folder)
    )
    presses = {"full": None, "learned": LearnedPress(folder=folder), "knorm": KnormPress()}
    for name, press in presses.items():
        if press:
            press = DecodingPress(press, compression_interval=16, target_size=int(target))
        found = answer(question, press=press, max_new_tokens=1024, enable_thinking=True)
        print(f"{name:8}{found['answer'].split('</think>')[-1].strip()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
