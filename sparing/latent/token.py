"""The token that stands for a latent step, put into a model and its tokenizer."""

from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken

from sparing.errors import ModelError
from sparing.train.attention import NAME as CAUSAL
from sparing.train.examples import SHOWN, ExampleSet
from sparing.train.objective import hidden_states

LOOKED = 256  # examples
FAR = 8.0  # below all words together, in logits: a probability of 0.0003
RIDGE = 1e-3  # of the mean square of a hidden state


@torch.no_grad()
def add_token(model: Any, tokenizer: Any, token: str) -> int:
    """Its id. The tables of a transformers model grow where they have no row left for it; a head of
    its own does too. The row begins as the mean of those in use.

    Raises ModelError where the tokenizer has such a token already.
    """
    known = tokenizer.get_vocab()
    if token in known:
        raise ModelError(
            f"the base must leave {token} to latent steps, its tokenizer has that token already; "
            "pass another --token"
        )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False)], special_tokens=True)
    added = int(tokenizer.convert_tokens_to_ids(token))
    if added >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(added + 1, mean_resizing=False)
    used = torch.tensor(sorted(known.values()))
    for table in (model.get_input_embeddings(), model.get_output_embeddings()):
        table.weight[added] = table.weight[used].mean(0)
    return added


@torch.no_grad()
def aim_row(
    model: Any, token: int, examples: ExampleSet, aims: np.ndarray, near: float = 0.0
) -> None:
    """Set the token's row of the head so that the token is likely where it ``aims`` [N] at.

    Ours: a model that is sure of nearly all its words gives a new one next to nothing, and would
    take most of a stage to find out where it belongs. The row w is that of a ridge regression,
    both kinds of taught positions weighing the same, on the final hidden states h of ``LOOKED``
    examples: w h = log sum_v exp(l_v) + ``near``, at 0 as likely as all words together, before a
    token that it aims at; ``FAR`` below all words before any other. Left alone where there are no
    such positions.
    """
    head, device = model.get_output_embeddings(), next(model.parameters()).device
    model.set_attn_implementation(CAUSAL)
    width = head.weight.shape[1]
    squares = torch.zeros(2, width, width, dtype=torch.float64, device=device)
    wanted = torch.zeros(2, width, dtype=torch.float64, device=device)
    counts = [0, 0]
    for row in chosen_rows(len(examples)):
        ids, roles = (values.to(device) for values in examples.batch([row]))
        taught = roles[0, 1:] != SHOWN
        own = torch.from_numpy(aims[examples.starts[row] + 1 : examples.starts[row + 1]]).to(device)
        h = hidden_states(model, ids, ())[0][0, :-1][taught]
        whole = head(h).double().logsumexp(1)
        for kind, chosen in enumerate((own[taught], ~own[taught])):
            x = h[chosen].double()
            squares[kind] += x.T @ x
            wanted[kind] += x.T @ (whole[chosen] + (near, -FAR)[kind])
            counts[kind] += len(x)
    if not all(counts):
        return
    a, b = (
        sum(of_kind / n for of_kind, n in zip(both, counts, strict=True))
        for both in (squares, wanted)
    )
    ridge = RIDGE * a.diagonal().mean() * torch.eye(width, dtype=a.dtype, device=device)
    head.weight[token] = torch.linalg.solve(a + ridge, b).to(head.weight.dtype)


def chosen_rows(count: int) -> list[int]:
    """``LOOKED`` examples at even distances: they come task by task."""
    return [at * count // LOOKED for at in range(LOOKED)] if count > LOOKED else [*range(count)]


def learn_row(model: Any, token: int) -> None:
    """Have the head learn the token's row and no other, where its weights are frozen otherwise."""
    weight = model.get_output_embeddings().weight
    only = torch.zeros(len(weight), 1, dtype=weight.dtype, device=weight.device)
    only[token] = 1
    weight.requires_grad_(True)
    weight.register_hook(lambda gradient: gradient * only.to(gradient))
