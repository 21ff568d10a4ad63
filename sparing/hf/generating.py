"""``generate`` for transformers: budgets and drafts over the user's own model.

    from sparing.hf import generate
    model.generate(**inputs, custom_generate=generate, budget=512)

``generate`` is called by transformers in the place of its sampling loop, with its logits processors
and stopping criteria. What it cannot do is refused by name.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import MaxLengthCriteria, PreTrainedTokenizerFast
from transformers.generation.utils import GenerateDecoderOnlyOutput, GenerationMixin

from sparing.api import Engine
from sparing.engine.events import TokenEvent
from sparing.engine.eviction import Budget
from sparing.engine.row import Request
from sparing.engine.run import Run, results_of
from sparing.engine.sampling import Sampler
from sparing.engine.transcript import Limits
from sparing.errors import OptionError
from sparing.memory.find import find_policy
from sparing.memory.predictor import ImportancePredictor
from sparing.model.chat import ChatFormat, Prompt
from sparing.model.devices import placed
from sparing.model.generation_defaults import GenerationDefaults
from sparing.model.hub_decoder import HubDecoder
from sparing.model.hub_interface import NAME
from sparing.options import Depth, Memory

ENGINE = "_sparing"  # attribute of a model that was used here
# Fields of a GenerationConfig that ask for another way of decoding, with what is neutral.
OTHERS = {
    "num_beams": (1, "beam search keeps rows that Sparing would have evicted"),
    "num_beam_groups": (1, "beam search keeps rows that Sparing would have evicted"),
    "penalty_alpha": (0, "contrastive search looks at all past states"),
    "dola_layers": (None, "DoLa looks at the logits of several layers"),
    "prompt_lookup_num_tokens": (None, "pass draft='lookup' instead"),
    "assistant_early_exit": (None, "pass draft='layers' instead"),
    "force_words_ids": (None, "constrained beam search keeps rows"),
    "constraints": (None, "constrained beam search keeps rows"),
    "token_healing": (False, "it changes the prompt"),
    "output_attentions": (False, "evicted slots have none"),
    "output_hidden_states": (False, "drafted passes have others"),
}
# Processors that run the model themselves over all past keys, or count the steps of a whole batch.
PROCESSORS = {
    "UnbatchedClassifierFreeGuidanceLogitsProcessor": "it needs all past keys of its own",
    "SynthIDTextWatermarkLogitsProcessor": "its state is of a whole batch",
}
BATCHED = {"RepetitionPenaltyLogitsProcessor", "PrefixConstrainedLogitsProcessor"}  # know all rows


def generate(
    model: Any,
    input_ids: Int[Tensor, "B T"],
    logits_processor: Any = None,
    stopping_criteria: Any = None,
    generation_config: Any = None,
    *,
    budget: int | float | None = None,
    local: int | float | None = None,
    selection: int | float | None = None,
    policy: Any = "auto",
    draft: str = "off",
    predictor: ImportancePredictor | None = None,
    text_tokenizer: Any = None,
    stats: list[Any] | None = None,
    **model_kwargs: Any,
) -> Any:
    """What transformers calls as ``custom_generate``; returns what its ``generate`` returns.

    ``budget``, ``local``, ``selection``, ``policy``: as in ``Memory``; the prompt is never evicted.
    ``draft``: as in ``Depth``. Off by default: in half precision a drafted pass may round a tie the
    other way. ``predictor``: of importance, for the policy ``learned``. ``text_tokenizer``: tells
    where a thought begins and ends; without one all that is said may be evicted. ``stats``: a list
    to which each row's ``Stats`` is appended.

    Rows are drawn with the seed of torch. Raises OptionError for what cannot be honoured.
    """
    asked = arguments_of_generate(sys._getframe(1))
    streamer = asked.get("streamer")
    refuse_others(generation_config, logits_processor, {**asked, **model_kwargs})
    prompts = unpadded(input_ids, model_kwargs.get("attention_mask"))
    if policy == "sepllm" and text_tokenizer is None:
        raise OptionError("policy sepllm must know the text, got no tokenizer; pass text_tokenizer")
    memory = Memory(budget=budget, local=local, selection=selection, policy=policy)
    with attached(model, predictor, text_tokenizer) as engine:
        call = Call(
            engine, generation_config, logits_processor, stopping_criteria, memory, len(prompts)
        )
        padded = input_ids.tolist()
        requests = [
            call.request(tag, prompt, row)
            for tag, (prompt, row) in enumerate(zip(prompts, padded, strict=True))
        ]
        loop = engine.loop(requests, Depth(draft=draft), len(requests))  # type: ignore[arg-type]
        run = Run(loop, requests, engine.drafting.keep)
        events: list[list[Any]] = [[] for _ in requests]
        for event in run:
            events[event.row].append(event)
            if streamer is not None and isinstance(event, TokenEvent):
                streamer.put(torch.tensor([event.id]))
        if streamer is not None:
            streamer.end()
    results = results_of(run.rows, events)
    if stats is not None:
        stats += [result.stats for result in results]
    return call.output(input_ids, run.rows)


@dataclass
class Call:
    """The arguments of one ``generate``, turned into requests, and rows into its output.

    ``told``: of each row, the raw and the processed logits of each new token, where asked for
    """

    engine: Engine
    config: Any
    processors: Any
    criteria: Any
    memory: Memory
    rows: int
    told: dict[int, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)

    def request(self, tag: int, prompt: list[int], padded: list[int]) -> Request:
        """A row's; ``padded``: its prompt as processors and criteria of transformers see it."""
        engine, most = self.engine, self.config.max_length - len(padded)
        budget = Budget.of(self.memory, len(prompt), most)
        ended = None
        if criteria := [each for each in self.criteria or () if not self._is_limit(each)]:
            ended = self._ended(criteria, tag, padded, len(prompt))
        seed = int(torch.randint(1 << 62, ()))
        sampled = bool(self.config.do_sample)
        return Request(
            engine.chat.encode(prompt) if engine.chat.tokenizer.vocab_size else Prompt(prompt),
            Sampler(
                1.0 if sampled else 0.0,
                seed=seed,
                processor=self._processor(tag, padded, len(prompt)),
            ),
            Limits(most, max(engine.decoder.shape.context, self.config.max_length), ended=ended),
            budget,
            find_policy(self.memory, engine.chat.tokenizer, engine.horizons),
            tag,
        )

    def _processor(self, tag: int, padded: list[int], asked: int) -> Callable[..., Any] | None:
        tells = self.config.output_scores or self.config.output_logits
        if not self.processors and not (tells and self.config.return_dict_in_generate):
            return None

        def process(tokens: Sequence[int], logits: Float[Tensor, " V"]) -> Float[Tensor, " V"]:
            ids = self._seen(padded, tokens[asked:], logits.device)
            raw = logits.float()  # as transformers does
            scores = raw[None].clone()
            for processor in self.processors or ():
                if is_rowwise(processor):
                    scores = processor(ids, scores)
                else:
                    whole = ids.expand(self.rows, -1), scores.repeat(self.rows, 1)
                    scores = processor(*whole)[tag : tag + 1]
            if tells:
                self.told.setdefault(tag, []).append((raw.clone(), scores[0]))
            return scores[0].to(logits.dtype)

        return process

    def _is_limit(self, criterion: Any) -> bool:
        """Whether it only says what ``Limits`` says: nothing is asked a token then."""
        known = type(criterion) is MaxLengthCriteria
        return known and criterion.max_length >= self.config.max_length

    def _ended(
        self, criteria: Sequence[Any], tag: int, padded: list[int], asked: int
    ) -> Callable[[Sequence[int]], bool]:
        device = self.engine.decoder.device

        def ended(tokens: Sequence[int]) -> bool:
            ids = self._seen(padded, tokens[asked:], device)
            return any(
                bool(criterion(ids, None)[0])
                if is_rowwise(criterion)
                else bool(criterion(ids.expand(self.rows, -1), None)[tag])
                for criterion in criteria
            )

        return ended

    def _seen(self, padded: list[int], new: Sequence[int], device: Any) -> Int[Tensor, "1 L"]:
        """A row's tokens as processors and criteria see them: padded prompt and output."""
        return placed([[*padded, *new]], device)

    def output(self, input_ids: Tensor, rows: Sequence[Any]) -> Any:
        """As ``generate`` of transformers: sequences, padded behind their ends."""
        new = [list(row.tokens[row.transcript.question :]) for row in rows]
        longest = max(map(len, new))
        pad = self.config._pad_token_tensor
        fill = 0 if pad is None else int(pad)
        rest = torch.tensor([[*ids, *[fill] * (longest - len(ids))] for ids in new])
        sequences = torch.cat([input_ids, rest.to(input_ids)], 1)
        if not self.config.return_dict_in_generate:
            return sequences
        return GenerateDecoderOnlyOutput(
            sequences=sequences,
            scores=self._told(1, longest) if self.config.output_scores else None,
            logits=self._told(0, longest) if self.config.output_logits else None,
        )

    def _told(self, which: int, longest: int) -> tuple[Tensor, ...]:
        """Per step, of all rows; a row that has ended says what it said last."""
        rows = [self.told[tag] for tag in sorted(self.told)]
        return tuple(
            torch.stack([row[min(step, len(row) - 1)][which] for row in rows])
            for step in range(longest)
        )


def is_rowwise(part: Any) -> bool:
    """Whether a processor or criterion looks at each row alone; others see a whole batch, in which
    every row is the one that is asked for."""
    ours = type(part).__module__.startswith("transformers.generation.")
    return ours and type(part).__name__ not in BATCHED


@contextmanager
def attached(model: Any, predictor: Any, tokenizer: Any) -> Iterator[Engine]:
    """An engine over the user's model, whose attention is ours meanwhile."""
    before, training = model.config._attn_implementation, model.training
    try:
        known = getattr(model, ENGINE, None)
        if known is None:
            decoder = HubDecoder(model, type(model).__name__)
            chat = ChatFormat(wordless(), GenerationDefaults(frozenset()))
            known = Engine(decoder, chat, decoder.name)
            setattr(model, ENGINE, known)
        model.set_attn_implementation(NAME)
        model.eval()
        chat = known.chat if tokenizer is None else ChatFormat(tokenizer, known.chat.defaults)
        yield Engine(known.decoder, chat, known.name, predictor, known.drafting)
    finally:
        model.set_attn_implementation(before)
        model.train(training)


def wordless() -> Any:
    """A tokenizer that knows no words: rows then have ids, and no text."""
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))


def unpadded(input_ids: Tensor, mask: Tensor | None) -> list[list[int]]:
    """The prompts without their padding; raises OptionError for padding behind them."""
    if mask is None:
        return [list(row) for row in input_ids.tolist()]
    found = []
    for ids, seen in zip(input_ids.tolist(), mask.bool().tolist(), strict=True):
        first = seen.index(True) if True in seen else len(seen)
        if not all(seen[first:]) or first == len(seen):
            raise OptionError(
                "attention_mask must hide padding on the left alone, got other zeros; set the "
                "tokenizer's padding_side to left"
            )
        found.append(ids[first:])
    return found


def refuse_others(config: Any, processors: Any, given: Mapping[str, Any]) -> None:
    """Raise OptionError for what ``generate`` of transformers could do and this one cannot."""
    if given.get("assistant_model") is not None:
        raise OptionError(
            "a draft must be one of Sparing's, got assistant_model; pass draft='lookup' or 'layers'"
        )
    for name, (neutral, why) in OTHERS.items():
        value = getattr(config, name, neutral)
        if value not in (neutral, None, False):
            raise OptionError(
                f"{name} must be {neutral} with Sparing's generate, got {value!r}: {why}"
            )
    for processor in processors or ():
        name = type(processor).__name__
        if name in PROCESSORS:
            raise OptionError(
                f"logits processors must look at tokens and logits alone, got {name}: "
                f"{PROCESSORS[name]}; leave it out"
            )
    past = given.get("past_key_values")
    if past is not None and past.get_seq_length() > 0:
        raise OptionError("past_key_values must be empty, got some; pass the whole prompt")
    if given.get("inputs_embeds") is not None:
        raise OptionError("a prompt must be input_ids, got inputs_embeds; pass token ids")


def arguments_of_generate(caller: FrameType | None) -> Mapping[str, Any]:
    """Those of the ``generate`` that called: transformers hands a function neither the streamer nor
    the assistant."""
    code = GenerationMixin.generate.__wrapped__.__code__
    while caller is not None and caller.f_code is not code:
        caller = caller.f_back
    names = ("streamer", "assistant_model")
    return {} if caller is None else {name: caller.f_locals.get(name) for name in names}
