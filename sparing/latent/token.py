"""The token that stands for a latent step, put into a model and its tokenizer."""

from typing import Any

import torch
from tokenizers import AddedToken

from sparing.errors import ModelError


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


def learn_row(model: Any, token: int) -> None:
    """Have the head learn the token's row and no other, where its weights are frozen otherwise."""
    weight = model.get_output_embeddings().weight
    only = torch.zeros(len(weight), 1, dtype=weight.dtype, device=weight.device)
    only[token] = 1
    weight.requires_grad_(True)
    weight.register_hook(lambda gradient: gradient * only.to(gradient))
