"""Turn the bodies of requests into requests of the engine, or refuse them."""

from collections.abc import Sequence
from typing import Any

from sparing.api import Engine
from sparing.depth.find import DRAFTERS
from sparing.engine.row import Request
from sparing.errors import PromptTooLong, SparingError
from sparing.latent.files import without_latents
from sparing.options import DraftName, Latent, Memory, Sampling
from sparing.server.admission import KvBudget
from sparing.server.errors import Refused
from sparing.server.refusals import for_clients
from sparing.server.requests import CommonRequest
from sparing.server.settings import RequestDefaults, ServerConfig
from sparing.server.template_options import template_options

TOO_LONG = "context_length_exceeded"
REQUESTS = 4  # that fit at the same time, at least, if none of them says how long it may get


def default_new_tokens(engine: Engine, defaults: RequestDefaults, room: KvBudget) -> int:
    """New tokens, at most, of a request that does not say.

    The server's number, else the model's. Else a thinking model may use what its context leaves, as
    far as ``REQUESTS`` such requests fit into the room for keys and values.
    """
    own = defaults.sampling.max_new_tokens or engine.chat.defaults.sampling.get("max_new_tokens")
    return int(own or max(min(engine.default_new_tokens, room.longest // REQUESTS), 1))


class Resolver:
    """Turns bodies into requests for an ``engine``, with a server's ``defaults`` and limits."""

    def __init__(
        self,
        engine: Engine,
        serving: ServerConfig,
        defaults: RequestDefaults,
        room: KvBudget,
        models: Sequence[str],
        kv: str,
    ) -> None:
        """``models``: names of the model, its own first.

        ``kv``: this server's storage of keys and values.
        """
        self.engine, self.serving, self.defaults = engine, serving, defaults
        self.room, self.models, self.kv = room, models, kv
        self.model = models[0]
        self.new_tokens = default_new_tokens(engine, defaults, room)

    def requests(self, asked: CommonRequest, prompts: Sequence[Any]) -> list[Request]:
        """One request for each choice of each prompt, prompt by prompt.

        Raises Refused for an option that this model or server does not support.
        """
        if asked.model not in self.models:
            raise Refused(
                404,
                f"model must be {self.model}, got {asked.model!r}; pass that name",
                param="model",
                code="model_not_found",
            )
        try:
            memory, sampling = asked.sparing.memory or self.defaults.memory, self.sampling(asked)
            latent, own = self.latent(asked), asked.sparing
            template = template_options(
                own.template_options, own.no_think, self.defaults.no_think, self.engine.chat
            )
            return [
                self.request(prompt, memory, sampling, number, template, latent)
                for prompt in prompts
                for number in range(asked.n)
            ]
        except PromptTooLong as error:
            raise Refused(400, str(error), code=TOO_LONG) from None
        except SparingError as error:
            raise Refused(400, for_clients(str(error))) from None

    def latent(self, asked: CommonRequest) -> Latent:
        """The options of latent steps."""
        wanted = asked.sparing.latent or self.defaults.latent
        if wanted.mode != "off" and self.engine.latents is None:
            said = for_clients(str(without_latents(wanted.mode)))
            raise Refused(400, said, param="sparing.latent", code="unsupported_parameter")
        return wanted

    def draft(self, asked: CommonRequest) -> DraftName:
        """The drafter. The other options of drafting are the server's: they belong to what the
        engine learns from all requests."""
        depth = asked.sparing.depth
        if depth is None:
            return self.defaults.depth.draft
        for name in depth.model_fields_set - {"draft"}:
            given, ours = getattr(depth, name), getattr(self.defaults.depth, name)
            if given != ours:
                field = f"sparing.depth.{name}"
                raise Refused(
                    400,
                    f"{field} is the server's, {ours!r} for all requests, got {given!r}; leave it "
                    "out (only sparing.depth.draft is a request's own)",
                    param=field,
                    code="unsupported_parameter",
                )
        if "draft" not in depth.model_fields_set:
            return self.defaults.depth.draft
        if DRAFTERS[depth.draft].skips_layers and not self.engine.drafting.can_skip:
            raise Refused(
                400,
                f"sparing.depth.draft {depth.draft} needs a model with skippable layers, "
                f"{self.model} as loaded here has none; pass lookup",
                param="sparing.depth.draft",
                code="unsupported_parameter",
            )
        return depth.draft

    def sampling(self, asked: CommonRequest) -> Sampling:
        """The request's options over the server's; a field given twice is refused."""
        own, more = asked.sampling(), asked.sparing.sampling or Sampling()
        extra = {name: getattr(more, name) for name in more.model_fields_set}
        if twice := sorted(set(own) & set(extra)):
            raise Refused(
                400,
                f"{twice[0]} must be given once, got it in the request and in sparing.sampling; "
                "leave one out",
                param=f"sparing.sampling.{twice[0]}",
            )
        base = self.defaults.sampling
        ours = {name: getattr(base, name) for name in base.model_fields_set}
        return Sampling(**{"max_new_tokens": self.new_tokens} | ours | extra | own)

    def request(
        self,
        prompt: Any,
        memory: Memory,
        sampling: Sampling,
        number: int,
        template: dict[str, Any] | None,
        latent: Latent,
    ) -> Request:
        """The ``number``-th choice of a prompt; each choice has its own seed."""
        if sampling.seed is not None:
            sampling = sampling.model_copy(update={"seed": (sampling.seed + number) % 2**63})
        request = self.engine.request(
            prompt, memory=memory, latent=latent, sampling=sampling, template_options=template
        )
        if request.kv not in (None, self.kv):
            raise Refused(
                400,
                f"sparing.memory.kv must be {self.kv}, the storage of this server, "
                f"got {request.kv}; leave it out",
                param="sparing.memory.kv",
            )
        tokens, most = len(request.prompt.ids), self.serving.prompt_tokens
        if most is not None and tokens > most:
            raise Refused(
                400,
                f"a prompt must have at most {most} tokens here, got {tokens}; pass a shorter one",
                code=TOO_LONG,
            )
        if request.slots > self.room.longest:
            raise Refused(
                400,
                f"a request must need at most {self.room.longest} tokens here, prompt and new "
                f"ones, got {request.slots}; ask for fewer, or set sparing.memory.budget",
                code=TOO_LONG,
            )
        return request
