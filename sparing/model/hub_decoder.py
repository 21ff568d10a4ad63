"""Any causal model of transformers behind the Decoder's protocol, at its own speed."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparing.errors import ModelError
from sparing.files import read_json
from sparing.model.checkpoint import in_transformers, read_model
from sparing.model.config import Shape
from sparing.model.devices import placed
from sparing.model.gguf_files import is_gguf
from sparing.model.inputs import KeyValues, Output, RowInput
from sparing.model.layer_set import KINDS, LayerSet
from sparing.model.matrix import Matrix
from sparing.model.precision import announce_slow

PROBE = 6  # tokens with which a model is tried
FIRST = 4  # of them in a first pass
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}  # relative, of logits; else 0.1
LAYERS = ("layers", "h", "blocks")  # names of the list of layers
PARTS = {  # names of a layer's sub-layers
    "attention": ("self_attn", "attn", "attention", "self_attention"),
    "mlp": ("mlp", "feed_forward", "block_sparse_moe", "ffn"),
}
LONG = 1 << 20  # context of a model that names none


class HubEmbedding:
    """The input embeddings of a model, scaled as it scales them."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def rows(self, ids: Int[Tensor, " K"]) -> Float[Tensor, "K in"]:
        found: Tensor = self.module(ids.to(self.module.weight.device))
        return found


class HubDecoder:
    """The modules of transformers on the new tokens of all rows, packed into one sequence.

    Keys and values lie in our slots and are read there (``hub_interface.py``): nothing is copied a
    pass. Windows, sinks, capped logits, experts and shared layers come from the model.
    """

    torch_threads: int | None = None

    def __init__(self, model: Any, name: str = "the model") -> None:
        """Raises ModelError if the model keeps a state of another form, or computes another
        attention than one over keys and values."""
        self.model, self.name = model.eval(), name
        self.embedding = HubEmbedding(model.get_input_embeddings())
        self._hidden: Tensor | None = None
        self._base = body(model)
        hook = self._base.register_forward_hook(self._keep)
        try:
            self._ready()
        except Exception:
            hook.remove()
            raise

    @classmethod
    def load(
        cls,
        directory: Path,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        trust_remote_code: bool = False,
    ) -> "HubDecoder":
        """Load any causal model that attends to keys and values.

        Raises ModelError if transformers cannot load it, or it is no such model.
        """
        announce_slow(dtype, device, kernels=False)
        with in_transformers(directory):
            if not is_gguf(directory):
                refuse_config(directory, trust_remote_code)
            model = read_model(directory, dtype, trust_remote_code=trust_remote_code)
            return cls(model.to(device), directory.name)

    @property
    def dtype(self) -> torch.dtype:
        """Of hidden states and logits; the user of a model may change it."""
        found: torch.dtype = self.model.dtype
        return found

    @property
    def device(self) -> torch.device:
        found: torch.device = self.model.device
        return found

    @property
    def cache_dtype(self) -> torch.dtype:
        return self.dtype

    @property
    def _like(self) -> Tensor:
        return torch.empty(0, dtype=self.dtype, device=self.device)

    @property
    def can_skip(self) -> bool:
        """Whether layers can be left out; the first and the last one always run."""
        return self._skips and self.shape.layers > 2

    @property
    def step_bytes(self) -> int:
        """Bytes of weights read in one step: all but an untied embedding."""
        table = self.model.get_input_embeddings().weight
        tied = table is self.model.get_output_embeddings().weight
        return sum(p.nbytes for p in self.model.parameters()) - (0 if tied else table.nbytes)

    @torch.inference_mode()
    def __call__(
        self,
        inputs: Sequence[RowInput],
        cache: KeyValues,
        layer_set: LayerSet | None = None,
        *,
        layer: int | None = None,
        head: Matrix | None = None,
    ) -> Output:
        """As ``Decoder.__call__``, without another head."""
        from sparing.model.hub_interface import HubPass

        assert head is None
        now = HubPass(inputs, cache, self._slots, self._like, layer_set)
        wanted: list[int] = []
        positions: list[int] = []
        for i in inputs:
            positions += i.positions
            wanted += range(len(positions) - i.scored, len(positions))
        with now.running():
            output = self.model(
                **self._embedded(inputs),
                position_ids=placed([positions], self.device),
                past_key_values=self._layers,
                use_cache=True,
                logits_to_keep=placed(wanted, self.device, torch.long),
                output_hidden_states=layer is not None,
            )
        assert self._hidden is not None
        return Output(
            hidden=self._hidden[0],
            logits=output.logits[0],
            layer_hidden=None if layer is None else output.hidden_states[layer][0],
            attention=now.attention(),
        )

    def _keep(self, module: Any, args: Any, output: Any) -> None:
        self._hidden = output[0]

    def _embedded(self, inputs: Sequence[RowInput]) -> dict[str, Tensor]:
        """The new tokens as the model takes them: ids, or embeddings where a row has vectors."""
        ids = placed([[token for i in inputs for token in i.ids]], self.device)
        if not any(i.vectors for i in inputs):
            return {"input_ids": ids}
        x = self.model.get_input_embeddings()(ids)
        start = 0
        for i in inputs:
            for offset, vector in i.vectors.items():
                x[0, start + offset] = vector
            start += len(i.ids)
        return {"inputs_embeds": x}

    @torch.inference_mode()
    def _ready(self) -> None:
        """Find the cache's shape by the model's own attention, take its place, and compare."""
        from transformers import DynamicCache

        from sparing.model.hub_interface import NAME, slot_layers

        config = self.model.config.get_text_config()
        refuse_model(self.model, self.name)
        ids = torch.arange(PROBE, device=self.device)[None] % config.vocab_size
        own, returned = DynamicCache(config=config), {}
        parts = sub_layers(self._base)
        hooks = [
            part.register_forward_hook(lambda _, __, out, key=key: returned.update({key: out}))
            for key, part in parts.items()
        ]
        expected = self.model(ids, past_key_values=own, use_cache=True).logits[0]
        for hook in hooks:
            hook.remove()
        kv_heads, head_dim, used = cached_shape(own, self.name)
        self._slots = {layer: at for at, layer in enumerate(used)}
        self.shape = Shape(
            layers=len(used),
            kv_heads=kv_heads,
            head_dim=head_dim,
            vocabulary=config.vocab_size,
            context=getattr(config, "max_position_embeddings", None) or LONG,
        )
        self._layers = slot_layers(len(own.layers))
        self.model.set_attn_implementation(NAME)
        cache = self._probe_cache()
        found = [self._probe(ids, cache, 0, FIRST), self._probe(ids, cache, FIRST, PROBE)]
        self._compare(torch.cat([output.logits for output in found]), expected)
        self._skips = self._can_leave_out(parts, returned, ids)

    def _probe_cache(self) -> Any:
        shape = 2, 1, self.shape.kv_heads, PROBE, self.shape.head_dim
        kv = [self._like.new_zeros(shape) for _ in range(self.shape.layers)]
        positions = torch.arange(PROBE)[None].numpy()
        return SimpleNamespace(kv=kv, scales=[], positions=positions)

    def _probe(self, ids: Tensor, cache: Any, begin: int, end: int, **options: Any) -> Output:
        new = ids[0, begin:end].tolist()
        row = RowInput(0, begin, new, list(range(begin, end)), scored=len(new))
        return self([row], cache, **options)

    def _compare(self, found: Float[Tensor, "N V"], expected: Float[Tensor, "N V"]) -> None:
        """Raise ModelError unless the logits are those of the model's own attention."""
        off = float((found - expected).float().norm() / expected.float().norm())
        if not off <= TOLERANCE.get(self.dtype, 0.1):
            raise ModelError(
                f"{self.name} must attend to keys and values alone, got logits that differ by "
                f"{off:.1g} from its own; run it by transformers"
            )

    def _can_leave_out(self, parts: Any, returned: Any, ids: Tensor) -> bool:
        """Whether sub-layers can be left out, so that the residual stream stays as it is."""
        from sparing.model.hub_interface import skippable

        layers = self.shape.layers
        if set(parts) != {(kind, layer) for kind in KINDS for layer in range(layers)}:
            return False
        for (kind, layer), part in parts.items():
            out = returned[kind, layer]
            skippable(part, kind, layer, len(out) - 1 if isinstance(out, tuple) else 0)
        nothing = LayerSet((False,) * layers, (False,) * layers)
        cache = self._probe_cache()
        first, last = (
            self._probe(ids, cache, 0, PROBE, layer_set=nothing, layer=layer).layer_hidden
            for layer in (0, layers - 1)
        )
        assert first is not None
        assert last is not None
        return torch.equal(first, last)


def refuse_config(directory: Path, trust_remote_code: bool) -> None:
    """Raise ModelError for what a config shows not to run, before any weights are read."""
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    fields = read_json(directory / "config.json")
    foreign = fields.get("auto_map") and fields.get("model_type") not in CONFIG_MAPPING
    if foreign and not trust_remote_code:
        raise ModelError(
            f"{directory.name} must run without code of its own, got auto_map in its config; read "
            "that code, then pass trust_remote_code=True (--trust-remote-code)"
        )
    config = AutoConfig.from_pretrained(directory, trust_remote_code=trust_remote_code)
    kind = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    refuse_kind(config, kind, directory.name)


def refuse_kind(config: Any, kind: Any, name: str) -> None:
    """Raise ModelError for a kind of model whose past is no KV cache of its own."""
    if getattr(kind, "_is_stateful", False):
        raise ModelError(
            f"{name} must keep its past as keys and values, got {config.model_type}, whose state "
            "is recurrent: there is nothing to evict; run it by transformers"
        )
    if config.is_encoder_decoder:
        raise ModelError(
            f"{name} must be a decoder alone, got {config.model_type}, an encoder and a decoder; "
            "run it by transformers"
        )


def refuse_model(model: Any, name: str) -> None:
    """Raise ModelError for a model that cannot run here, or not over our slots."""
    refuse_kind(model.config, model, name)
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ModelError(f"{name} must have its weights in memory, got some on meta; load them")
    if not model._can_set_attn_implementation():
        raise ModelError(
            f"{name} must attend through the AttentionInterface of transformers, got "
            f"{model.config.model_type}, which does not; run it by transformers"
        )


def cached_shape(cache: Any, name: str) -> tuple[int, int, list[int]]:
    """Key heads and head size of a slot, and the layers that fill one; raises ModelError unless
    they are the same in all of these layers."""
    shapes = {}
    for index, layer in enumerate(cache.layers):
        if getattr(layer, "keys", None) is not None:
            shapes[index] = tuple(layer.keys.shape[1::2]), tuple(layer.values.shape[1::2])
    found = {shape for pair in shapes.values() for shape in pair}
    if len(found) != 1:
        raise ModelError(
            f"{name} must have keys and values of one shape in all layers, got (heads, size) "
            f"{', '.join(map(str, sorted(found))) or 'none'}; run it by transformers"
        )
    heads, size = found.pop()
    return heads, size, list(shapes)


def body(model: Any) -> Any:
    """What is below the output matrix: the layers and the last norm."""
    found = model.get_decoder()
    return found if found is not model else getattr(model, "model", model)


def sub_layers(base: Any) -> dict[tuple[str, int], Any]:
    """The modules of attention and MLP by kind and layer, where layers are a list."""
    layers: Any = next((getattr(base, name) for name in LAYERS if hasattr(base, name)), [])
    found = {}
    for index, layer in enumerate(layers):
        for kind, names in PARTS.items():
            part = next((getattr(layer, name) for name in names if hasattr(layer, name)), None)
            if part is not None:
                found[kind, index] = part
    return found
