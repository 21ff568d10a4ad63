"""``custom_generate`` of a Hub repository: ``generate`` of transformers, through Sparing.

model.generate(**inputs, custom_generate="ORG/sparing", trust_remote_code=True, budget=512)
"""

from typing import Any

from sparing.hf import generate as through_sparing


def generate(model: Any, tokenizer: Any = None, **arguments: Any) -> Any:
    """As ``model.generate``, with the options of ``sparing.hf.generate``."""
    plain = type(model).generate  # the model's own may have been replaced by this one
    return plain(model, custom_generate=through_sparing, text_tokenizer=tokenizer, **arguments)
