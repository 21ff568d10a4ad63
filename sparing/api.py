"""``load`` a model, ``Engine.generate`` or ``stream``: where the rooms are wired together."""

import platform
import secrets
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from pydantic import field_validator, model_validator

from sparing.depth.find import find_drafter
from sparing.depth.layer_sets import read_sets
from sparing.depth.state import DraftingState
from sparing.depth.state_file import StateFile
from sparing.engine.cache import SlotCache
from sparing.engine.drafter import Drafter
from sparing.engine.events import Event
from sparing.engine.eviction import Budget
from sparing.engine.latent_switch import ThoughtSwitch
from sparing.engine.loop import Loop
from sparing.engine.result import Result
from sparing.engine.row import Request
from sparing.engine.run import Run, Stream, results_of
from sparing.engine.sampling import Sampler
from sparing.engine.transcript import Limits
from sparing.errors import OptionError, PromptError, PromptTooLong, UnknownArchitecture
from sparing.kernels.native import announce
from sparing.latent.config import LatentConfig, load_latents
from sparing.latent.fusion import LatentVector
from sparing.latent.switch import find_switch
from sparing.malloc import give_back
from sparing.memory.files import find_predictor
from sparing.memory.find import find_policy
from sparing.memory.predictor import ImportancePredictor, load_predictor
from sparing.model.assemble import load_decoder
from sparing.model.chat import ChatFormat, Prompt, PromptLike, shortened
from sparing.model.checkpoint import read_config, reading
from sparing.model.config import ModelConfig
from sparing.model.devices import computes
from sparing.model.extras import or_without
from sparing.model.fingerprint import files_fingerprint
from sparing.model.hub_decoder import HubDecoder
from sparing.model.inputs import Forward
from sparing.model.markers import check_markers, unmarked
from sparing.model.sources import find_model
from sparing.options import Depth, Latent, Loading, Memory, Sampling, as_options

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
DEFAULT_NEW_TOKENS = 1024
SAMPLED = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
T = TypeVar("T")
Each: TypeAlias = T | Sequence[T] | None


def load(
    name_or_path: str | Path,
    weights: str = "auto",
    dtype: str | torch.dtype | None = None,
    device: str = "cpu",
    threads: int | None = None,
    decoder: str = "auto",
    *,
    trust_remote_code: bool = False,
    markers: tuple[str, str] | None = None,
    predictor: str | Path | Literal[False] | None = None,
    kind: str | None = None,
) -> "Engine":
    """A model ready to decode: an embedded name, a GGUF file, a directory, or a hub id.

    ``weights``: their precision; auto keeps what the file has.
    ``dtype``: what is computed in, a name or torch's own; auto and None are float32, any other is
    torch's to compute, and so is any other ``device`` than the CPU. ``threads``: of torch and of
    the kernels. ``decoder`` "hub" runs any causal
    model through transformers, at its speed; "fast" is ours, for four families; "auto" takes ours
    where it can. ``trust_remote_code``: run code that comes with a model.
    ``markers``: start and end of a thought, where they are not found by themselves. ``predictor``:
    directory of an importance predictor; by default the model's own, if it has one; False: none.
    ``kind``: gone since 0.2, when layouts were chosen by it; a warning, and of no effect.
    Extras beside the weights that are broken or of another model are left out, with a warning.

    Raises OptionError for wrong arguments, before anything is read, then ModelError where the model
    cannot be found or used.
    """
    if kind is not None:
        why = f"kind has no effect any more, got {kind!r}; see weights and decoder"
        warnings.warn(why, DeprecationWarning, stacklevel=2)
    decoder = "hub" if decoder == "reference" else decoder  # its name in 0.1
    wanted = LoadArguments(
        weights=weights,  # type: ignore[arg-type]
        dtype=dtype_name(dtype),  # type: ignore[arg-type]
        threads=threads,
        decoder=decoder,  # type: ignore[arg-type]
        trust_remote_code=trust_remote_code,
        device=device,
        markers=markers,
    )
    computed = DTYPES[wanted.dtype]
    directory = find_model(str(name_or_path))
    home = None if predictor is False else find_predictor(predictor, directory)
    if threads is not None:
        torch.set_num_threads(threads)
    with reading(directory):
        decoder_, chat = wanted.read(directory)
    learned = None
    if home:
        read = partial(load_predictor, home, directory, chat.tokenizer, computed, device)
        learned = or_without(read, None) if predictor is None else read()
    latents = or_without(partial(load_latents, directory, chat.tokenizer, computed, device), None)
    threads_ = f"{platform.node()}, {torch.get_num_threads()} threads"
    setting = f"{threads_}, {weights}, {wanted.dtype}, {device}, {decoder}"
    file = StateFile(files_fingerprint(directory), setting)
    drafting = DraftingState(decoder_, read_sets(directory, chat.tokenizer), file)
    return Engine(decoder_, chat, str(name_or_path), learned, drafting, latents)


def dtype_name(dtype: str | torch.dtype | None) -> str:
    name = "auto" if dtype is None else str(dtype).removeprefix("torch.")
    return "float32" if name == "auto" else name


class LoadArguments(Loading):
    """The arguments of ``load``, checked."""

    markers: Any

    @field_validator("device")
    @classmethod
    def _is_here(cls, value: str) -> str:
        if not computes(value):
            raise ValueError(f"must be a device that torch has here, got {value!r}")
        return value

    @model_validator(mode="after")
    def _two_markers(self) -> "LoadArguments":
        check_markers(self.markers)
        return self

    def read(self, directory: Path) -> tuple[Forward, ChatFormat]:
        """Decoder and chat format of a checkpoint; cheap checks come before the weights."""
        dtype = DTYPES[self.dtype]
        config = None if self.decoder == "hub" else self.own_config(directory)
        if config is None:
            hub = HubDecoder.load(directory, dtype, self.device, self.trust_remote_code)
            return hub, ChatFormat.load(directory, hub.shape.vocabulary, self.markers)
        chat = ChatFormat.load(directory, config.vocabulary, self.markers)
        give_back()  # a tokenizer of 150,000 tokens leaves 100 MB of freed memory behind
        return load_decoder(directory, self.weights, dtype, self.device), chat

    def own_config(self, directory: Path) -> ModelConfig | None:
        """The config where our own decoder runs the model; None: through transformers."""
        try:
            return read_config(directory)
        except UnknownArchitecture as refusal:
            if self.decoder == "fast" or self.weights != "auto":
                raise
            announce(f"{directory.name} runs through transformers, at its speed: {refusal.what}")
            return None


class Engine:
    """A loaded model, its ``decoder`` and ``chat`` format; every call starts a fresh cache.

    ``predictor``: of importance, from the last hidden states; None where the model has none.
    ``drafting``: what was learned about drafting; calls share it unless they bring their own.
    ``latents``: how the model thinks without words; None: it does not.
    """

    def __init__(
        self,
        decoder: Forward,
        chat: ChatFormat,
        name: str,
        predictor: ImportancePredictor | None = None,
        drafting: DraftingState | None = None,
        latents: tuple[LatentConfig, LatentVector] | None = None,
    ) -> None:
        self.decoder, self.chat, self.name, self.predictor = decoder, chat, name, predictor
        self.latents = latents
        self.drafting = drafting or DraftingState(decoder)

    def __repr__(self) -> str:
        shape = self.decoder.shape
        return f"Engine({self.name!r}, {shape.layers} layers, context {shape.context})"

    @property
    def horizons(self) -> tuple[int, ...] | None:
        """For which the predictor scores a token; None without one."""
        return self.predictor.horizons if self.predictor else None

    @property
    def default_new_tokens(self) -> int:
        """New tokens at most, where neither a request nor the model says: a thought may take all of
        the context."""
        return DEFAULT_NEW_TOKENS if self.chat.markers is None else self.decoder.shape.context

    def generate(
        self,
        prompts: Sequence[PromptLike] | PromptLike,
        memory: Each[Memory] = None,
        depth: Depth | None = None,
        latent: Each[Latent] = None,
        sampling: Each[Sampling] = None,
        *,
        raw: bool | None = None,
        batch_size: int = 8,
        template_options: Mapping[str, Any] | None = None,
        drafting: DraftingState | None = None,
    ) -> list[Result]:
        """Answer prompts: strings, lists of token ids, or lists of chat messages; or one of them.

        ``raw``: whether strings stand as they are; with False they are questions, through the chat
        template. None is as True, with a warning where the model has a template.
        ``memory``, ``latent`` and ``sampling`` are one for all, or a list with one each; ``depth``
        is one for all. A dict stands for options as well.
        ``batch_size``: rows that are live at a time, at most. What a row says does not depend on
        the others.

        Raises PromptError or OptionError before anything runs. A row that fails then, as on logits
        that are no numbers, ends alone: ``finish_reason`` "error", the message in ``error``, and a
        warning. Where every row failed the first one's error is raised.
        """
        prompts = list(map(partial(self._as_asked, raw=raw), as_prompts(prompts)))
        requests = [
            self.request(
                prompt,
                memory=m,
                latent=thoughts,
                sampling=s,
                tag=tag,
                template_options=template_options,
            )
            for tag, (prompt, m, thoughts, s) in enumerate(
                zip(prompts, *(each(o, prompts) for o in (memory, latent, sampling)), strict=True)
            )
        ]
        drafting = drafting or self.drafting
        loop = self.loop(requests, depth, batch_size, drafting=drafting)
        run = Run(loop, requests, drafting.keep)
        events: list[list[Event]] = [[] for _ in requests]
        for event in run:
            events[event.row].append(event)
        return results_of(run.rows, events)

    def stream(
        self,
        prompt: PromptLike,
        memory: Memory | None = None,
        depth: Depth | None = None,
        latent: Latent | None = None,
        sampling: Sampling | None = None,
        *,
        raw: bool | None = None,
        template_options: Mapping[str, Any] | None = None,
        drafting: DraftingState | None = None,
    ) -> Stream:
        """One prompt's events as they come; an iterator that may be closed at any time.

        Its ``result()`` is what has been produced so far, finished or not. Where the row fails its
        error is raised in the place of the last event. ``raw``: as in ``generate``.
        """
        request = self.request(
            self._as_asked(prompt, raw),
            memory=memory,
            latent=latent,
            sampling=sampling,
            template_options=template_options,
        )
        drafting = drafting or self.drafting
        run = Run(self.loop([request], depth, 1, drafting=drafting), [request], drafting.keep)
        return Stream(run, request)

    def request(
        self,
        prompt: PromptLike,
        memory: Memory | None = None,
        *,
        latent: Latent | None = None,
        sampling: Sampling | None = None,
        tag: int = 0,
        template_options: Mapping[str, Any] | None = None,
    ) -> Request:
        """A prompt with its options resolved for this model; raises what ``generate`` raises."""
        memory = self.with_model_defaults(as_options("memory", memory, Memory))
        sampling = as_options("sampling", sampling, Sampling)
        policy = find_policy(memory, self.chat.tokenizer, self.horizons)
        encoded = self.chat.encode(prompt, template_options)
        if self.latents and self.latents[0].id in encoded.ids:
            raise PromptError(
                f"a prompt must do without {self.latents[0].token}, which stands for a latent step "
                "of this model, got one with it; leave it out"
            )
        question, context = len(encoded.ids), self.decoder.shape.context
        if question >= context:
            raise PromptTooLong(
                f"a prompt must be shorter than the context of {context} tokens, got {question}"
            )
        limits = self._limits(sampling, encoded)
        most = min(limits.max_new_tokens, context - question)
        budget = Budget.of(memory, question, most)
        switch = self.switch(as_options("latent", latent, Latent))
        kv = None if memory.kv == "auto" else memory.kv
        return Request(encoded, self._sampler(sampling), limits, budget, policy, tag, switch, kv)

    def _as_asked(self, prompt: PromptLike, raw: bool | None) -> PromptLike:
        """A prompt of ``generate`` or ``stream``, through the template where that is wanted."""
        if raw is False and isinstance(prompt, str):
            return self.chat.question(prompt)
        if raw is None and isinstance(prompt, str) and self.chat.is_bare(prompt):
            warnings.warn(
                f"a string stands as it is, without the chat template of {self.name}; pass "
                "messages, or raw=False for a question through the template, or raw=True",
                stacklevel=3,
            )
        return prompt

    def loop(
        self,
        requests: Sequence[Request],
        depth: Depth | None = None,
        batch_size: int = 8,
        kv: str | None = None,
        drafting: DraftingState | None = None,
    ) -> Loop:
        """A loop with room for any of ``requests``, ``batch_size`` of them at a time.

        The cache is allocated at once where every request has a budget, else in blocks.
        """
        if batch_size < 1:
            raise OptionError(f"batch_size must be 1 or more, got {batch_size}")
        wanted = {r.kv for r in requests if r.kv is not None}
        if len(wanted) > 1:
            raise OptionError(
                f"kv must be the same for all prompts of a call, got {', '.join(sorted(wanted))}"
            )
        cache = self.cache(
            max(min(batch_size, len(requests)), 1),
            capacity=max((r.slots for r in requests if r.budget is not None), default=0),
            limit=max((r.slots for r in requests), default=0),
            kv=next(iter(wanted), kv),
        )
        options = as_options("depth", depth, Depth)
        drafter = find_drafter(options, drafting or self.drafting, cache)
        return self.loop_over(cache, drafter)

    def loop_over(self, cache: SlotCache, drafter: Drafter) -> Loop:
        """A loop over a cache of this model."""
        vocabulary = self.decoder.shape.vocabulary
        return Loop(self.decoder, self.chat, cache, vocabulary, drafter, self.predictor)

    def cache(
        self, rows: int, capacity: int, limit: int | None = None, kv: str | None = None
    ) -> SlotCache:
        """An empty cache for this model; ``kv``: as ``Memory.kv``, None is auto."""
        shape, decoder = self.decoder.shape, self.decoder
        known = {"float32": torch.float32, "float16": torch.float16, "q8": torch.int8}
        return SlotCache(
            shape.layers,
            rows,
            shape.kv_heads,
            shape.head_dim,
            capacity,
            limit,
            scores=len(self.horizons) if self.horizons else 1,
            dtype=known.get(kv or "auto", decoder.cache_dtype),
            device=decoder.device,
        )

    def switch(self, latent: Latent) -> ThoughtSwitch:
        """What decides on latent steps; raises OptionError where the model has not learned them."""
        return find_switch(latent, self.latents, self.decoder, self.chat.tokenizer)

    def with_model_defaults(self, memory: Memory) -> Memory:
        """The options, with what suits the model where they leave it open."""
        if memory.budget is None or self.predictor is None:
            return memory
        known = self.predictor.memory
        return memory.model_copy(
            update={name: value for name, value in known.items() if getattr(memory, name) is None}
        )

    def _sampler(self, sampling: Sampling) -> Sampler:
        """Options over the model's defaults; a filter without any temperature draws at 1."""
        chosen = self._with_defaults(sampling, SAMPLED)
        if "temperature" not in chosen and {"top_k", "top_p", "min_p"} & set(chosen):
            chosen["temperature"] = 1.0
        if sampling.seed is not None or chosen.get("temperature"):
            chosen["seed"] = secrets.randbits(63) if sampling.seed is None else sampling.seed
        return Sampler(**chosen, logprobs=sampling.logprobs)

    def _limits(self, sampling: Sampling, prompt: Prompt) -> Limits:
        chosen = self._with_defaults(sampling, ("max_new_tokens",))
        if sampling.think_budget is not None and self.chat.markers is None:
            advice = "pass markers=(start, end) to load, or limit max_new_tokens"
            raise unmarked(self.name, advice)
        ends = frozenset() if sampling.ignore_eos else self.chat.defaults.end_ids
        named = map(self.chat.special_id, sampling.stop)
        special = {token for token in named if token is not None}
        stop_in = sampling.stop_in or ("answer" if prompt.chat else "text")
        return Limits(
            max_new_tokens=chosen.get("max_new_tokens", self.default_new_tokens),
            context=self.decoder.shape.context,
            end_ids=ends | set(sampling.stop_token_ids) | special,
            stop=sampling.stop,
            stop_in_thought=stop_in == "text",
            think_budget=sampling.think_budget,
        )

    def _with_defaults(self, sampling: Sampling, names: Sequence[str]) -> dict[str, Any]:
        given = {n: getattr(sampling, n) for n in names if getattr(sampling, n) is not None}
        return {n: v for n, v in self.chat.defaults.sampling.items() if n in names} | given


def each(option: Each[T], prompts: Sequence[Any]) -> Sequence[T | None]:
    """One option for all prompts, or one each."""
    if not isinstance(option, list | tuple):
        return [option] * len(prompts)  # type: ignore[list-item]
    if len(option) != len(prompts):
        raise OptionError(
            f"options must be one, or one a prompt ({len(prompts)}), got {len(option)}"
        )
    return option


def as_prompts(prompts: Any) -> Sequence[PromptLike]:
    """Prompts as a list: a single one is a list of one."""
    if isinstance(prompts, str):
        return [prompts]
    if not isinstance(prompts, Sequence) or isinstance(prompts, bytes):
        raise PromptError(
            f"prompts must be strings, lists of token ids or lists of messages, got "
            f"{shortened(prompts)}"
        )
    single = bool(prompts) and isinstance(prompts[0], Integral | Mapping)
    return [prompts] if single else prompts
