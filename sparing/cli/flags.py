"""The flags that several commands share: how a model is loaded, how it decodes."""

import os
import sys
from typing import Annotated, Any

from pydantic import Field

from sparing.cli.fields import Flags, count_or_share, flag
from sparing.cli.signals import leaving_at_once
from sparing.errors import OptionError
from sparing.latent.files import check_latent
from sparing.memory.files import find_predictor
from sparing.model.progress import LoadProgress
from sparing.model.sources import find_here, find_model
from sparing.options import Depth, Latent, Loading, Memory, Options, Sampling


def number(help_: str) -> Any:
    return flag(help_, parser=count_or_share, metavar="COUNT|SHARE")


class Named(Options):
    """Which model."""

    model: str = Field(
        default="pocket",
        description="a name of `sparing models`, a GGUF file, a directory in Hugging Face format, "
        "or a hub id",
    )


class ModelFlags(Loading, Named):
    """How a model is loaded that is to have no predictor: it is yet to be trained."""

    def check(self) -> None:
        """Raise ModelError where the model is not there; one on the hub is looked for later."""
        find_here(self.model)

    def load(self) -> Any:
        """The engine."""
        return load_quietly(self, False)


class LoadingFlags(ModelFlags):
    """How a model is loaded."""

    predictor: str | None = Field(
        default=None, description="directory of an importance predictor; by default the model's own"
    )

    def check(self) -> None:
        """The same, and where there is no such predictor."""
        here = find_here(self.model)
        if here and self.predictor:
            find_predictor(self.predictor, here)

    def load(self) -> Any:
        """The engine."""
        return load_quietly(self, self.predictor)


def load_quietly(flags: ModelFlags, predictor: Any) -> Any:
    """The engine, without a word from transformers."""
    quiet_transformers()
    with leaving_at_once(), LoadProgress(flags.model):
        from sparing.api import load

        how = {name: getattr(flags, name) for name in Loading.model_fields}
        return load(flags.model, **how, predictor=predictor)


def quiet_transformers() -> None:
    """No warnings and no bars of its own: errors are ours to report. It may not be imported yet."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if "transformers" in sys.modules:
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()


class SeedlessFlags(Options):
    """What is spared, and how the next token is drawn: all but the seed of the noise."""

    memory: Memory = Memory()
    depth: Annotated[Depth, Flags(renamed={"task": "depth_task"})] = Depth()
    latent: Annotated[Latent, Flags(renamed={"mode": "latent"})] = Latent()
    sampling: Annotated[Sampling, Flags(without=["seed"])] = Sampling()
    no_think: bool = Field(
        default=False, description="ask the chat template to leave the thought out"
    )

    def check(self) -> None:
        """Raise OptionError where a share was meant."""
        if type(budget := self.memory.budget) is int and budget == 1:
            raise OptionError(
                "budget must hold a prompt, got 1, which is one token; pass a count as 512, or a "
                "share: 0.25 is a quarter of --max-new-tokens, 1.0 all of it"
            )

    def check_for(self, loading: LoadingFlags) -> None:
        """Raise OptionError for what the model cannot do, by its files, before its weights load."""
        check_latent(loading.model, self.latent)
        check_policy(self.memory, loading)
        check_think_budget(self.sampling, loading.model)

    def options(self) -> dict[str, Any]:
        """The keyword arguments of ``Engine.stream``."""
        return {
            "memory": self.memory,
            "depth": self.depth,
            "latent": self.latent,
            "sampling": self.sampling,
            "template_options": {"enable_thinking": False} if self.no_think else None,
        }


def check_policy(memory: Memory, loading: LoadingFlags) -> None:
    """Raise OptionError for a policy that needs a predictor, where the model has none."""
    if memory.budget is None or memory.policy in ("auto", "window"):
        return
    if find_predictor(loading.predictor, find_model(loading.model)):
        return
    from sparing.memory.find import PREDICTED, without_predictor

    if memory.policy in PREDICTED:
        raise without_predictor(memory.policy)


def check_think_budget(sampling: Sampling, model: str) -> None:
    """Raise OptionError for a budget of thinking, where the model's files have no markers."""
    if sampling.think_budget is None:
        return
    from sparing.model.marker_files import has_markers
    from sparing.model.markers import unmarked

    if has_markers(find_model(model)) is False:
        raise unmarked(model, "limit max_new_tokens instead")


class DecodingFlags(SeedlessFlags):
    """The same with the seed, for commands whose ``--seed`` means the noise."""

    sampling: Sampling = Sampling()
