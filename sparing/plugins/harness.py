"""What lm-eval asks of a model, answered by our engine. Nothing here imports lm-eval."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field

from sparing.api import load
from sparing.cli.fields import Flags
from sparing.cli.flags import LoadingFlags, SeedlessFlags
from sparing.errors import OptionError, PromptError, reason
from sparing.evaluate.batch_generate import finished
from sparing.evaluate.likelihood import Scored, likelihoods
from sparing.model.sources import find_model
from sparing.options import Loading, Sampling
from sparing.plugins.named_options import named_options

GENERATION = (  # fields of Sampling that a task may give under their own names
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "stop_token_ids",
    "ignore_eos",
    "think_budget",
)
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
OF_MODEL = {"max_new_tokens": "max_gen_toks", "think_budget": "think_budget"}
TRUNCATED = (
    "{} contexts are longer than the model's {} tokens with what is to be scored: their first "
    "tokens are left out"
)


class ModelArguments(SeedlessFlags):
    """``--model_args``: how the model is loaded, and what is spared.

    How tokens are drawn is a task's, or ``--gen_kwargs``.
    """

    loading: Annotated[LoadingFlags, Flags(renamed={"model": "pretrained"})] = LoadingFlags()
    sampling: Annotated[
        Sampling, Flags(without=set(Sampling.model_fields) - set(OF_MODEL), renamed=OF_MODEL)
    ] = Sampling()
    enable_thinking: bool | None = Field(
        default=None, description="passed to the chat template, where it is given"
    )
    think_start_token: str | None = Field(
        default=None, description="start of a thought, where it is not found by itself"
    )
    think_end_token: str | None = Field(
        default=None, description="end of a thought; what comes before is not returned"
    )
    batch_size: int = Field(default=8, ge=1, description="rows at a time")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "ModelArguments":
        """The arguments by name; ``pretrained`` must be there. Raises OptionError."""
        values = dict(given)
        if "pretrained" not in values:
            raise OptionError("a model argument pretrained must be given; pass pretrained=pocket")
        values["pretrained"] = str(values["pretrained"])
        if values.get("batch_size") == "auto":
            del values["batch_size"]
        elif str(values.get("batch_size", "")).isdigit():  # lm-eval hands over text
            values["batch_size"] = int(values["batch_size"])
        found = named_options(cls, values, "model argument", Flags(without=["no_think"]))
        found.loading.check()
        found.check()
        found.check_for(found.loading)
        return found

    def load(self) -> Any:
        """The engine; raises OptionError for an end of thoughts that is not the model's."""
        how = {name: getattr(self.loading, name) for name in Loading.model_fields}
        start, end = self.think_start_token, self.think_end_token
        engine = load(
            self.loading.model,
            **how,
            predictor=self.loading.predictor,
            markers=(start, end) if start is not None and end is not None else None,
        )
        own = engine.chat.markers and engine.chat.markers.end
        if (start is not None and end is None) or end not in (None, own):
            raise OptionError(
                f"think_end_token must be {own!r}, the model's own, or come with a "
                f"think_start_token, got {end!r}"
            )
        return engine


def sampling_of(
    given: Mapping[str, Any], base: Sampling, seed: int, drawn: float = 1.0
) -> Sampling:
    """A task's ``generation_kwargs`` as sampling, over what the model's arguments say.

    Greedy unless ``do_sample`` or a temperature says otherwise, as in lm-eval. ``drawn``: the
    temperature where ``do_sample`` comes without one. Raises OptionError for an unknown name.
    """
    values = {name: value for name, value in given.items() if value is not None}
    until = values.pop("until", [])
    stop = [text for text in ([until] if isinstance(until, str) else until) if text]
    lengths = [values.pop(name) for name in LENGTHS if name in values]
    samples = values.pop("do_sample", values.get("temperature", 0) > 0)
    beams = values.pop("num_beams", 1)
    if beams != 1:
        raise OptionError(f"num_beams must be 1, got {beams}: Sparing has no beam search")
    for name in values:
        if name not in GENERATION:
            known = ", ".join(("until", "do_sample", *LENGTHS, *GENERATION))
            raise OptionError(f"a generation argument must be one of {known}, got {name}")
    if samples:
        values.setdefault("temperature", drawn)
    else:
        values = {n: v for n, v in values.items() if n not in ("top_p", "top_k", "min_p")}
        values["temperature"] = 0.0
    if lengths:
        values["max_new_tokens"] = lengths[0]
    told = {name: getattr(base, name) for name in base.model_fields_set}
    return Sampling(**told | values, stop=stop, stop_in="answer", seed=seed)


class Harness:
    """A loaded model, and the answers to the three kinds of requests.

    An answer comes with the number of its request, as soon as it is there.
    """

    def __init__(self, arguments: ModelArguments) -> None:
        self.arguments = arguments
        self.engine = arguments.load()
        self.tokenizer = self.engine.chat.tokenizer

    @property
    def think_end_token(self) -> str | None:
        markers = self.engine.chat.markers
        return markers.end if markers else None

    @property
    def prefix_token(self) -> int:
        """What stands for an empty context."""
        bos = self.tokenizer.bos_token_id
        return self.tokenizer.eos_token_id if bos is None else bos

    def generate(self, asked: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[tuple[int, str]]:
        """Answers to prompts as they stand, without their thoughts; each with its arguments.

        Rows are drawn with the seed of torch, which lm-eval sets.
        """
        options = self.arguments
        drawn = self.engine.chat.defaults.sampling.get("temperature", 1.0)
        requests = [
            self.engine.request(
                prompt,
                memory=options.memory,
                latent=options.latent,
                sampling=sampling_of(
                    given, options.sampling, int(torch.randint(1 << 62, ())), drawn
                ),
                tag=tag,
            )
            for tag, (prompt, given) in enumerate(asked)
        ]
        if not requests:
            return
        loop = self.engine.loop(requests, options.depth, options.batch_size)
        for row in finished(loop, requests, range(len(requests))):
            yield row.index, self._behind_thoughts(row.result.answer)
        self.engine.drafting.keep()

    def loglikelihood(
        self, pairs: Sequence[tuple[str, str]]
    ) -> Iterator[tuple[int, tuple[float, bool]]]:
        """Of continuations behind their contexts: the sum of log-probabilities, and whether greedy
        decoding would have said the same."""
        most = self.engine.decoder.shape.context + 1
        encoded = [self._encode_pair(*pair) for pair in pairs]
        cut = sum(len(ids) > most for ids, _ in encoded)
        if cut:
            warnings.warn(TRUNCATED.format(cut, most - 1), stacklevel=2)
        texts = [Scored(tuple(ids[-max(most, count + 1) :]), count) for ids, count in encoded]
        for index, found in self._likelihoods(texts):
            yield index, (found.logprob, found.greedy)

    def rolling(self, texts: Sequence[str]) -> Iterator[tuple[int, float]]:
        """Log-likelihoods of whole texts: each token once, in windows of the model's context."""
        windows = [list(self._windows(self._encode(text, special=False))) for text in texts]
        owners = [index for index, parts in enumerate(windows) for _ in parts]
        left = [len(parts) for parts in windows]
        sums = [0.0] * len(texts)
        yield from ((index, 0.0) for index, parts in enumerate(left) if not parts)
        for number, found in self._likelihoods([part for parts in windows for part in parts]):
            index = owners[number]
            sums[index] += found.logprob
            left[index] -= 1
            if not left[index]:
                yield index, sums[index]

    def render(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True
    ) -> str:
        """Messages through the chat template; without a generation prompt the last one goes on."""
        if not self.engine.chat.has_template:
            raise PromptError(
                "apply_chat_template needs a model with a chat template, got one without; "
                "leave it out"
            )
        thinking = self.arguments.enable_thinking
        try:
            return self.tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
                **({} if thinking is None else {"enable_thinking": thinking}),
            )
        except Exception as error:  # from jinja, or raised by the template on purpose
            raise PromptError(
                f"messages must be valid for the chat template, got: {reason(error)}"
            ) from None

    def fingerprint(self) -> str:
        """A name of the tokenizer and its template, without slashes."""
        return str(find_model(self.arguments.loading.model)).strip("/").replace("/", "__")

    def _behind_thoughts(self, answer: str) -> str:
        """An answer without what ends in a lone end marker, as lm-eval cuts it."""
        end = self.think_end_token
        return answer.rpartition(end)[2].lstrip() if end and end in answer else answer

    def _likelihoods(self, texts: Sequence[Scored]) -> Any:
        options = self.arguments
        for name, asked in (
            ("budget", options.memory.budget is not None),
            ("latent", options.latent.mode != "off"),
        ):
            if asked:
                raise OptionError(
                    f"{name} must be left out where given text is scored: it acts on what a model "
                    "says itself; run these tasks without it"
                )
        return likelihoods(self.engine, texts, options.batch_size, options.memory.kv)

    def _encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids; with ``special`` those that the tokenizer adds, but no second first one."""
        bos = self.tokenizer.bos_token
        again = bool(bos) and text.startswith(bos)
        return self.tokenizer.encode(text, add_special_tokens=special and not again)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], int]:
        """Tokens of both, and how many are the continuation's.

        A context's last spaces are encoded with the continuation, as they are in a whole text.
        """
        if context.strip():
            whole, before = self._encode(context + continuation), self._encode(context.rstrip())
        else:
            whole, before = self._encode(context + continuation, special=False), [self.prefix_token]
            whole = whole if whole[:1] == before else before + whole
        count = len(whole) - len(before)
        if count < 1:
            raise PromptError(f"a continuation must have a token or more, got {continuation!r}")
        return whole, count

    def _windows(self, ids: Sequence[int]) -> Iterator[Scored]:
        """Tokens in windows, each scored in one of them, behind as many as fit."""
        whole, most = [self.prefix_token, *ids], self.engine.decoder.shape.context
        for begin in range(0, len(ids), most):
            end = min(begin + most, len(ids))
            yield Scored(tuple(whole[max(end - most, 0) : end + 1]), end - begin)
