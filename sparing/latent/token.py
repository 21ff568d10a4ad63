"""Add a latent token to a model and its tokenizer."""

from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken

from sparing.errors import ModelError
from sparing.train.attention import NAME as CAUSAL
from sparing.train.examples import SHOWN, ExampleSet
from sparing.train.objective import hidden_states

LOOKED = 256  # examples of the regression
FAR = 8.0  # below all words together, in logits: a probability of 0.0003
RIDGE = 1e-3  # of the mean square of a hidden state


@torch.no_grad()
def add_token(model: Any, tokenizer: Any, token: str) -> int:
    """Add ``token`` to the tokenizer and the model; returns its id.

    The embedding and an untied head grow if they have no free row. The new row is the mean of the
    rows in use. Raises ModelError if the tokenizer already has the token.
    """
    known = tokenizer.get_vocab()
    if token in known:
        raise ModelError(
            f"the latent token must be new to the base, its tokenizer already has {token}; "
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
    """Set the token's row of the head so that the token is likely before the tokens ``aims`` [N].

    Ours: a model sure of nearly all its words gives a new token almost no probability, and would
    need most of a stage to learn its places. The row w is a ridge regression on the final hidden
    states h of ``LOOKED`` examples, with equal weight for both kinds of taught positions:

        w h = log sum_v exp(l_v) + near    before an aimed token; near = 0: as likely as all words
        w h = log sum_v exp(l_v) - FAR     before any other token

    The row does not change if one of the two kinds has no positions.
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
    """``LOOKED`` examples at even distances, because they are ordered by task."""
    return [at * count // LOOKED for at in range(LOOKED)] if count > LOOKED else [*range(count)]


def learn_row(model: Any, token: int) -> None:
    """Make only the token's row of a frozen head trainable."""
    weight = model.get_output_embeddings().weight
    only = torch.zeros(len(weight), 1, dtype=weight.dtype, device=weight.device)
    only[token] = 1
    weight.requires_grad_(True)
    weight.register_hook(lambda gradient: gradient * only.to(gradient))
