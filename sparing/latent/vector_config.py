"""The recipe of a latent step's vector, the same in training and inference."""

from typing import Annotated, Literal

from pydantic import Field

from sparing.options import Options

Nucleus = Literal["standard", "reference"]
Vector = Literal["hidden", "fused", "pause"]
Share = Annotated[float, Field(ge=0, le=1)]


class Recipe(Options):
    """How to make a vector, with the paper's names and defaults (of its 1B and 3B models).

    ``token``, ``id``: the latent token
    ``layer``: I, the layer of the hidden state, numbered as transformers' ``hidden_states``
    ``vector``: hidden (stage 2), fused (stage 3) or pause (a learned embedding)
    ``alpha``: weight of the hidden state in a fused vector
    ``temperature``, ``top_p``, ``nucleus``: of the mixed words, see ``fusion.mixture``
    ``adapter``: width of the adapter; 0: none
    ``match_norms``: ours, see ``LatentVector.forward``
    """

    token: str = "<thinking>"
    id: Annotated[int, Field(ge=0)]
    layer: int = -2
    vector: Vector = "fused"
    alpha: Share = 0.6
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.8
    nucleus: Nucleus = "standard"
    adapter: Annotated[int, Field(ge=0)] = 0
    match_norms: bool = False
