"""How a latent step's vector is made: what training and inference must agree on."""

from typing import Annotated, Literal

from pydantic import Field

from sparing.options import Options

Nucleus = Literal["standard", "reference"]
Vector = Literal["hidden", "fused", "pause"]
Share = Annotated[float, Field(ge=0, le=1)]


class Recipe(Options):
    """The paper's names and defaults (those of its 1B and 3B models).

    ``token``, ``id``: that stands for a latent step. ``layer`` I: whose hidden state is taken,
    numbered as transformers' ``hidden_states``. ``vector``: hidden (stage 2), fused (stage 3) or
    pause (a learned embedding). ``nucleus``: see ``fusion.nucleus``. ``adapter``: its width, 0
    without one; ``match_norms``: ours.
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
