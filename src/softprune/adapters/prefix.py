"""Deep prompts: trainable keys and values of P virtual tokens in front of every self-attention of a frozen model.

    attention of layer l     softmax(q [K_l; k]^T / sqrt(D)) [V_l; v],  with K_l, V_l trained, `[heads, P, D]`
    prefix                   [K_1, V_1, ..., K_L, V_L] = MLP(E),  E `[P, heads * D]`    (Li and Liang 2021, section 4.3)
    p-tuning-v2              the same without the network: K_l and V_l are parameters     (Liu et al. 2022, section 3)

Their first numbers are random, or what the model's own layers keep of a text that it has read (`start_from`): of the
same P tokens `initialize_kv_prefix_from_text` of peft has the same numbers. A network's output then counts from its
first one.

The network is for training alone: what inference needs is `[P, L * 2 * heads * D]` numbers. Both are peft's own
`PrefixEncoder`, read through a hook in front of the backbone's trunk that puts the keys and values into the cache where
transformers keeps those of earlier tokens. A model then can't tell them from P tokens that it has read: positions of
the text go on from P, and every token sees all of the prefix. An encoder-decoder has its prefix in the decoder's
self-attention, as peft has it; attention to the encoder's output is as it was.

peft lays the numbers of an encoder-decoder's prefix out for twice as many layers, and so reads half of them twice and
the other half never where the number of layers is even. Here each layer has its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, ClassVar

import torch
from torch import nn

from softprune.adapters.base import Adaptation, AdapterPlan, Tensors, check_tensors, seeded
from softprune.errors import SoftpruneError
from softprune.models.architectures import ENCODER_CLASSES
from softprune.models.base import Backbone
from softprune.models.load_check import ordinary_ids

STORED = "keys_values"
"""Name of the one tensor that inference needs."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What one virtual token is to a model's layers."""

    heads: int  # of keys and values; fewer than the queries' where they are shared by groups
    size: int  # D, of a head
    places: tuple[tuple[torch.device, torch.dtype], ...]  # device and dtype of each layer's keys and values; L of them
    window: int | None  # how many tokens those layers see that see least, None where all see all

    @property
    def numbers(self) -> int:
        """`L * 2 * heads * D`."""
        return len(self.places) * 2 * self.heads * self.size


class Prefix(Adaptation):
    """Keys and values of P virtual tokens that a backbone reads until they are detached.

    The parameters of the module, peft's `PrefixEncoder`, are what is trained.
    """

    peft_type: ClassVar = "PREFIX_TUNING"

    def __init__(self, backbone: Backbone, module: nn.Module, shape: Shape, tokens: int) -> None:
        super().__init__(backbone, dict(module.named_parameters()))
        self.module, self.shape, self.tokens = module, shape, tokens
        # What is added to a network's output; a run that is resumed makes it again, and `stored` includes it.
        self._offset: torch.Tensor | None = None
        self._other: torch.Tensor | None = None  # what is read in the prefix's place
        # RoBERTa and similar models count positions from behind the padding index: given embeddings, they begin there
        # whatever they have read before.
        trunk = backbone.trunk
        counting = [m for m in trunk.modules() if hasattr(m, "create_position_ids_from_inputs_embeds")]
        self._first = int(counting[0].padding_idx) + 1 if counting else None
        self._hook = trunk.register_forward_pre_hook(self._before, with_kwargs=True)
        self._is_attached = True
        backbone.adapter = replace(backbone.adapter, has_prefix=True)

    def keys_values(self) -> torch.Tensor:
        """`[P, L * 2 * heads * D]`, in each row layer by layer keys, then values; gradients flow into the module."""
        at = torch.arange(self.tokens, device=next(self.module.parameters()).device)
        numbers: torch.Tensor = self.module(at[None])[0]
        return numbers if self._offset is None else numbers + self._offset

    @torch.no_grad()
    def keep(self, vectors_QH: torch.Tensor) -> torch.Tensor:
        """What the layers keep of Q vectors, read without this prefix: `[Q, L * 2 * heads * D]`, in the layers' dtype.

        An encoder-decoder's decoder reads them in front of what its encoder makes of the same vectors.

        Raises:
            SoftpruneError: a layer doesn't look back over all Q.
        """
        with self.off():
            layers = _keeping(self.backbone, vectors_QH.to(self.backbone.device, self.backbone.dtype)[None])
        kept = [torch.stack([layer.keys[0], layer.values[0]]).to(layers[0].keys) for layer in layers]
        fewest = min(part_2hQD.shape[2] for part_2hQD in kept)
        if fewest < len(vectors_QH):
            expected = (
                f"a prefix of at most {fewest} tokens to start from a text, since some layers look no further back"
            )
            raise SoftpruneError(expected, f"{len(vectors_QH)}", "lower prompt.tokens, or set adapter.start=random")
        return torch.stack(kept).permute(3, 0, 1, 2, 4).flatten(1)

    @torch.no_grad()
    def start_from(self, vectors_PH: torch.Tensor) -> None:
        """Begin as the keys and values that the layers keep of P vectors; errors as of `keep`."""
        start = self.keep(vectors_PH).to(self.keys_values())
        if self.module.prefix_projection:
            self._offset = start - self.keys_values()
        else:
            self.module.get_parameter("embedding.weight").copy_(start)

    @contextmanager
    def reading(self, numbers_QX: torch.Tensor) -> Iterator[None]:
        """Within the block, the backbone reads what `keep` gave of Q vectors in place of the prefix."""
        before, self._other = self._other, numbers_QX
        try:
            yield
        finally:
            self._other = before

    def peft_config(self) -> dict[str, Any] | None:
        """Of a causal model's keys and values; for encoder-decoders peft lays them out otherwise."""
        if self.backbone.family != "causal":
            return None
        return {
            "peft_type": self.peft_type,
            "num_virtual_tokens": self.tokens,
            "token_dim": self.shape.heads * self.shape.size,
            "num_attention_heads": self.shape.heads,
            "num_layers": len(self.shape.places),
            "num_transformer_submodules": 1,
        }

    def stored(self) -> Tensors:
        """Keys and values; a network that makes them isn't needed any more."""
        return {STORED: self.keys_values().detach().cpu().contiguous()}

    def detach(self) -> None:
        """The backbone reads as it did before; done twice, it leaves alone what was attached since."""
        if self._is_attached:
            self._hook.remove()
            self._is_attached = False
            self.backbone.adapter = replace(self.backbone.adapter, has_prefix=False)

    def _before(self, trunk: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        """What the trunk is given instead: a cache that holds the prefix, its mask, and positions that go on from P."""
        if not self.backbone.adapter.has_prefix:
            return None
        read = next(x for x in (kwargs.get("inputs_embeds"), kwargs.get("input_ids"), *args) if x is not None)
        cache = kwargs.get("past_key_values")
        if cache is None:
            cache = empty_cache(self.backbone)
        if cache.get_seq_length() == 0:  # else generation has read it already
            self._fill(cache, read.shape[0])
        length, window = cache.get_seq_length() + read.shape[1], self.shape.window
        if window is not None and length > window:  # padding in front of a text would part it from the prefix too
            expected = f"prefix, text and answer of at most {window} tokens, since some layers look no further back"
            raise SoftpruneError(expected, f"{length}", "lower task.max_length, or choose another model or method")
        tokens = self.tokens if self._other is None else len(self._other)
        given = {"past_key_values": cache}
        mask = kwargs.get("attention_mask")
        if mask is not None:  # of tokens [R, L], 1 where real, or added to scores [R, 1, L, L]: all see the prefix
            seen = mask.new_ones if mask.dim() == 2 else mask.new_zeros
            given["attention_mask"] = torch.cat([seen(*mask.shape[:-1], tokens), mask], dim=-1)
        for name in ("position_ids", "cache_position"):
            if kwargs.get(name) is not None:
                given[name] = kwargs[name] + tokens
        if self._first is not None:
            places = torch.arange(read.shape[1], device=read.device) + self._first + tokens
            given["position_ids"] = places.expand(read.shape[:2])
        return args, kwargs | given

    def _fill(self, cache: Any, rows: int) -> None:
        """Put the prefix into a model's empty cache, the same for every row."""
        numbers_PX = self.keys_values() if self._other is None else self._other
        by_layer = numbers_PX.view(len(numbers_PX), -1, 2, self.shape.heads, self.shape.size)
        by_layer = by_layer.permute(1, 2, 3, 0, 4)
        held = _self_attention(cache)
        for layer, (device, dtype) in enumerate(self.shape.places):
            keys, values = by_layer[layer].to(device, dtype)[:, None].expand(-1, rows, -1, -1, -1)
            held.update(keys, values, layer)


def new_prefix(backbone: Backbone, plan: AdapterPlan, seed: int) -> Prefix:
    """A fresh prefix that every call of the backbone reads from now on; prompts `[1, 0, H]` go with it."""
    shape = read_shape(backbone)
    with seeded(seed):
        module = _encoder(shape, plan.tokens, plan.method == "prefix", plan.hidden)
    return Prefix(backbone, module.to(backbone.device, backbone.prompt_dtype), shape, plan.tokens)


def stored_prefix(backbone: Backbone, plan: AdapterPlan, tensors: Mapping[str, torch.Tensor]) -> Prefix:
    """The prefix of `Prefix.stored`, read by the backbone from now on."""
    shape = read_shape(backbone)
    check_tensors(plan, {STORED: (plan.tokens, shape.numbers)}, tensors)
    module = _encoder(shape, plan.tokens, False, None)
    module.load_state_dict({"embedding.weight": tensors[STORED]})
    return Prefix(backbone, module.to(backbone.device, backbone.prompt_dtype), shape, plan.tokens)


def _encoder(shape: Shape, tokens: int, project: bool, hidden: int | None) -> nn.Module:
    from peft import PrefixEncoder, PrefixTuningConfig

    width = shape.heads * shape.size
    config = PrefixTuningConfig(
        num_virtual_tokens=tokens,
        token_dim=width,
        num_layers=len(shape.places),
        num_attention_heads=shape.heads,
        num_transformer_submodules=1,
        prefix_projection=project,
        encoder_hidden_size=hidden or width,
    )
    encoder: nn.Module = PrefixEncoder(config)  # type: ignore[no-untyped-call]
    return encoder


def empty_cache(backbone: Backbone) -> Any:
    """Where a trunk keeps keys and values, with nothing in it."""
    transformers = import_module("transformers")
    if backbone.family == "seq2seq":
        return transformers.EncoderDecoderCache(transformers.DynamicCache(), transformers.DynamicCache())
    # A decoder's configuration says which layers forget what is far away; an encoder's is about encoders.
    return transformers.DynamicCache(config=backbone.trunk.config if backbone.family == "causal" else None)


def _self_attention(cache: Any) -> Any:
    """The part of a cache that belongs to self-attention."""
    return getattr(cache, "self_attention_cache", cache)


def _keeping(backbone: Backbone, vectors_1PH: torch.Tensor) -> list[Any]:
    """A cache's layers of self-attention after the trunk has read P vectors as its input embeddings."""
    cache = empty_cache(backbone)
    given: dict[str, Any] = {"attention_mask": vectors_1PH.new_ones(vectors_1PH.shape[:2], dtype=torch.long)}
    if backbone.family == "seq2seq":
        encoded = backbone.model.get_encoder()(inputs_embeds=vectors_1PH, **given)
        given = {"encoder_hidden_states": encoded.last_hidden_state}
    backbone.trunk(inputs_embeds=vectors_1PH, **given, past_key_values=cache, use_cache=False)
    layers: list[Any] = _self_attention(cache).layers
    return layers


@torch.no_grad()
def read_shape(backbone: Backbone) -> Shape:
    """Read a few tokens, and see what the layers keep; a SoftpruneError where they don't all, or not in one shape."""
    if backbone.adapter.has_prefix:
        raise SoftpruneError("a backbone without a prefix", "one that has one", "detach it first")
    layers = _keeping(backbone, backbone.lookup(ordinary_ids(backbone.model)))
    kept = [layer for layer in layers if layer.is_initialized]
    shapes = {layer.keys.shape for layer in kept} | {layer.values.shape for layer in kept}
    if not kept or len(kept) < len(layers) or len(shapes) > 1:
        raise SoftpruneError(
            "a model whose layers all keep keys and values, of one shape",
            f'"{backbone.model.config.model_type}", of which {len(kept)} layers do, in {len(shapes)} shapes',
            "choose another method; and leave backbone.checkpointing out, under which no layer keeps any",
        )
    _, heads, _, size = kept[0].keys.shape
    windows = [layer.sliding_window for layer in layers if layer.is_sliding]
    places = tuple((layer.keys.device, layer.keys.dtype) for layer in kept)
    return Shape(heads, size, places, min(windows, default=None))


def prefix_not_defined(config: Any, family: str) -> str | None:
    """Why a model can't take a prefix, by its configuration alone; None where it can, as far as it shows."""
    kind = config.model_type
    if not _takes_cache(config, family):
        return f'attention of "{kind}" takes no keys and values beside those of its text'
    if kind == "prophetnet":
        return f'"{kind}" reads a token at a time where it is given keys and values'
    text = config.get_text_config(decoder=True)
    # Layers that keep the keys and values of what they have read, by transformers' names; a window is checked in use.
    keeping = {"full_attention", "sliding_attention"} if family == "causal" else {"full_attention"}
    other = sorted(set(getattr(text, "layer_types", None) or ()) - keeping)
    if other:
        return f'"{kind}" has layers that keep no keys and values, or not those of all tokens ({", ".join(other)})'
    written = text.to_dict()
    if any(written.get(name) for name in ("kv_lora_rank", "num_kv_shared_layers", "per_layer_config")):
        return f'keys and values of "{kind}" aren\'t of one shape in all layers'
    return None


def _takes_cache(config: Any, family: str) -> bool:
    transformers = import_module("transformers")
    if family == "sentence" and config.model_type in ENCODER_CLASSES:
        model = getattr(transformers, ENCODER_CLASSES[config.model_type])
    elif type(config) in transformers.MODEL_MAPPING:
        model = transformers.MODEL_MAPPING[type(config)]
    else:
        return True  # code of the model's own: `read_shape` will see
    first = model[0] if isinstance(model, tuple) else model  # some configurations have several classes
    return "past_key_values" in inspect.signature(first.forward).parameters
