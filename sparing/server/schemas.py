"""Descriptions of the model and of runs, for the API."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from sparing.api import Engine
from sparing.depth.find import DRAFTERS
from sparing.errors import SparingError
from sparing.memory.find import POLICIES, find_policy
from sparing.model.chat import ChatFormat
from sparing.options import POLICY_NAMES, DraftName, Latent, LatentMode, Memory
from sparing.server.refusals import for_clients
from sparing.server.runs import Choice, LiveRun
from sparing.server.settings import RequestDefaults

# Budgets for a try: slots that leave the example questions of pocket's families right, and a share
# for a model whose answers have another length.
TRIAL, TRIAL_SHARE = 288, 0.5


class Health(BaseModel):
    """The server's state.

    ``status``: ok, loading, stopping or failed
    ``live``, ``waiting``: numbers of rows
    ``kv_bytes``, ``kv_bytes_limit``: bytes of keys and values, now and at most
    """

    status: str
    live: int
    waiting: int
    kv_bytes: int
    kv_bytes_limit: int


class Capabilities(BaseModel):
    """The options of this model on this server.

    ``policies``, ``drafts``, ``latents``: the supported names
    ``labels``: descriptions of policies and drafters, by saving and name
    ``why_not``: by saving, why some of its options are not supported
    ``thoughts``: whether the model marks its thoughts
    ``budget``: for a try; the page's default
    ``slot_bytes``: bytes of the keys and values of a token in all ``layers``
    ``memory``, ``draft``, ``latent``, ``max_new_tokens``: defaults of a request
    """

    policies: list[str]
    drafts: list[str]
    latents: list[str]
    labels: dict[str, dict[str, str]]
    why_not: dict[str, str]
    thoughts: bool
    budget: int | float
    slot_bytes: int
    layers: int
    memory: dict[str, Any]
    draft: str
    latent: str
    max_new_tokens: int


class Model(BaseModel):
    """The served model. ``context``: trained positions."""

    id: str
    object: str = "model"
    created: int
    owned_by: str = "sparing"
    context: int
    sparing: Capabilities


class Models(BaseModel):
    object: str = "list"
    data: list[Model]


class ExampleQuery(BaseModel):
    """The query of examples, without unknown fields."""

    model_config = ConfigDict(extra="forbid")

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class Examples(BaseModel):
    """Example questions. ``more``: whether another seed has others."""

    seed: int
    questions: list[str]
    more: bool


class PromptToken(BaseModel):
    id: int
    text: str


class ChoiceState(BaseModel):
    """A choice of a run.

    ``budget``: in slots; None: no budget
    ``slots``: the most slots it can use
    ``seed``: repeats the choice
    ``finish_reason``: None until its end
    ``stats``: until now
    """

    index: int
    prompt: list[PromptToken]
    budget: int | None
    slots: int
    policy: str
    seed: int
    notice: str | None
    finish_reason: str | None
    stats: dict[str, Any]


class RunState(BaseModel):
    id: str
    created: int
    model: str
    status: Literal["waiting", "live", "ended"]
    choices: list[ChoiceState]


def spares(
    engine: Engine, defaults: RequestDefaults, slot_bytes: int, new_tokens: int
) -> Capabilities:
    """An engine's capabilities; each option is tried as in a request."""
    why_not: dict[str, str] = {}

    def tried(saving: str, names: Sequence[str], find: Callable[[Any], object]) -> list[str]:
        found = []
        for name in names:
            try:
                find(name)
                found.append(name)
            except SparingError as error:
                why_not.setdefault(saving, for_clients(str(error)))
        return found

    tokenizer, horizons = engine.chat.tokenizer, engine.horizons
    policies = tried(
        "memory",
        [name for name in POLICY_NAMES if name != "full"],
        lambda name: find_policy(Memory(budget=1, policy=name), tokenizer, horizons),
    )
    latents = tried("latent", get_args(LatentMode), lambda name: engine.switch(Latent(mode=name)))
    drafts = list(get_args(DraftName))
    if not engine.drafting.can_skip:
        drafts = [name for name in drafts if not DRAFTERS[name].skips_layers]
        why_not["depth"] = "skipping layers needs 3 layers or more that can be left out"
    return Capabilities(
        policies=policies,
        drafts=drafts,
        latents=latents,
        labels=labels(),
        why_not=why_not,
        thoughts=engine.chat.markers is not None,
        budget=defaults.memory.budget or (TRIAL_SHARE if engine.chat.scope is None else TRIAL),
        slot_bytes=slot_bytes,
        layers=engine.decoder.shape.layers,
        memory=defaults.memory.model_dump(),
        draft=defaults.depth.draft,
        latent=defaults.latent.mode,
        max_new_tokens=new_tokens,
    )


def labels() -> dict[str, dict[str, str]]:
    """The descriptions of policies and drafters, for the page."""
    policies = {name: policy.label for name, policy in POLICIES.items()}
    return {
        "memory": {"auto": "the model's default"} | policies,
        "depth": {name: drafter.label for name, drafter in DRAFTERS.items()},
    }


def run_state(run: LiveRun, chat: ChatFormat, model: str) -> RunState:
    """The state of a run."""
    started = any(choice.tokens for choice in run.choices)
    return RunState(
        id=run.id,
        created=run.created,
        model=model,
        status="ended" if run.done else "live" if started else "waiting",
        choices=[choice_state(choice, chat) for choice in run.choices],
    )


def choice_state(choice: Choice, chat: ChatFormat) -> ChoiceState:
    request = choice.request
    ids = request.prompt.ids
    return ChoiceState(
        index=choice.index,
        prompt=[PromptToken(id=id_, text=chat.token_text(id_)) for id_ in ids],
        budget=request.budget.slots if request.budget else None,
        slots=request.slots,
        policy=request.policy.name if request.policy else "full",
        seed=request.sampler.seed,
        notice=request.prompt.notice,
        finish_reason=choice.done.finish_reason if choice.done else None,
        stats=choice.stats.to_dict(),
    )
