"""Models of Sparing in EleutherAI's evaluation harness: ``lm_eval --model sparing``.

    lm_eval --model sparing --model_args pretrained=M,budget=1024 --tasks gsm8k --batch_size 8

Releases up to 0.4.13 know nothing of installed plugins; ``python -m sparing.plugins.lm_eval`` takes
the place of ``lm_eval`` there.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.model import LM
from lm_eval.api.registry import MODEL_REGISTRY, register_model
from lm_eval.utils import simple_parse_args_string
from tqdm import tqdm

from sparing import __version__
from sparing.errors import OptionError, SparingError
from sparing.plugins.harness import Harness, ModelArguments

NAME = "sparing"
UNASKED_DEVICE = "cuda:0"  # what lm-eval says where its user said nothing


class SparingLM(LM):
    """A model of Sparing; its arguments are those of ``ModelArguments``, by name."""

    def __init__(self, **given: Any) -> None:
        super().__init__()
        self.harness = Harness(ModelArguments.of(given))
        self.think_end_token = self.harness.think_end_token

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: Mapping[str, Any] | None = None
    ) -> "SparingLM":
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: Mapping[str, Any], additional_config: Mapping[str, Any] | None = None
    ) -> "SparingLM":
        """``additional_config``: flags of lm-eval's own; the model's arguments come first."""
        flags = {n: v for n, v in (additional_config or {}).items() if v is not None}
        if flags.get("device") == UNASKED_DEVICE and not torch.cuda.is_available():
            del flags["device"]
        return cls(**flags | dict(arg_dict))

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        asked = [request.args for request in requests]
        found = self.harness.generate(asked)
        return self._gathered("generate_until", requests, found, disable_tqdm)

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        found = self.harness.loglikelihood([request.args for request in requests])
        return self._gathered("loglikelihood", requests, found, disable_tqdm)

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        found = self.harness.rolling([request.args[0] for request in requests])
        return self._gathered("loglikelihood_rolling", requests, found, disable_tqdm)

    def apply_chat_template(
        self, chat_history: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True
    ) -> str:
        return self.harness.render(chat_history, add_generation_prompt)

    @property
    def tokenizer_name(self) -> str:
        return self.harness.fingerprint()

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template, as lm-eval notes it beside its results."""
        if isinstance(chat_template, str):
            raise OptionError(
                "apply_chat_template must come without a name: the model's own template is taken, "
                f"got {chat_template!r}"
            )
        return self.harness.tokenizer.chat_template if chat_template else None

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval notes beside its results."""
        arguments = self.harness.arguments.model_dump(mode="json", fallback=str)
        return {"sparing_version": __version__, "sparing_arguments": arguments}

    def _gathered(
        self,
        kind: str,
        requests: Sequence[Any],
        found: Iterator[tuple[int, Any]],
        disable_tqdm: bool,
    ) -> list[Any]:
        """Answers in the order of the requests; lm-eval's cache has each as soon as it is there."""
        answers = {}
        with tqdm(total=len(requests), desc=f"Sparing, {kind}", disable=disable_tqdm) as bar:
            for index, answer in found:
                answers[index] = answer
                self.cache_hook.add_partial(kind, requests[index].args, answer)
                bar.update()
        return [answers[index] for index in range(len(requests))]


def main() -> None:
    """lm-eval's own command, with our model in its registry."""
    import lm_eval.models  # noqa: F401  # its own models, which it reads into an empty registry alone

    if NAME not in MODEL_REGISTRY:
        register_model(NAME)(SparingLM)
    try:
        cli_evaluate()
    except SparingError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
