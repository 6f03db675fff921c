"""Deep prompts: trainable keys and values of P virtual tokens in front of every self-attention of a frozen model.

    attention of layer l     softmax(q [K_l; k]^T / sqrt(D)) [V_l; v],  with K_l, V_l trained, `[heads, P, D]`
    prefix                   [K_1, V_1, ..., K_L, V_L] = MLP(E),  E `[P, heads * D]`    (Li and Liang 2021, section 4.3)
    p-tuning-v2              the same without the network: K_l and V_l are parameters     (Liu et al. 2022, section 3)

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
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import nn

from softprune.errors import SoftpruneError
from softprune.models.architectures import ENCODER_CLASSES
from softprune.models.base import Backbone

STORED = "keys_values"
"""Name of the one tensor that inference needs."""

# As transformers names the kinds of layers that keep the keys and values of what they have read.
KEEPING = {"causal": ("full_attention", "sliding_attention")}
ONE_BY_ONE = ("prophetnet",)  # model types that read a token at a time where there are keys and values


@dataclass(frozen=True, slots=True)
class Shape:
    """What one virtual token is to a model's layers.

    Attributes:
        heads: of keys and values; fewer than the queries' where they are shared by groups.
        size: D, of a head.
        places: device and dtype of each layer's keys and values; L of them.
        window: how many tokens those layers see that see least, None where all see all.
    """

    heads: int
    size: int
    places: tuple[tuple[torch.device, torch.dtype], ...]
    window: int | None

    @property
    def width(self) -> int:
        """`heads * D`."""
        return self.heads * self.size

    @property
    def numbers(self) -> int:
        """`L * 2 * heads * D`."""
        return len(self.places) * 2 * self.width


class DeepPrompt:
    """A prefix that a backbone reads until it is detached. Made by `attach_prefix` or `attach_stored`.

    Args:
        backbone: what reads it.
        module: peft's `PrefixEncoder`; its parameters are what is trained.
        shape: what a token is to the layers.
        tokens: P.
    """

    def __init__(self, backbone: Backbone, module: nn.Module, shape: Shape, tokens: int) -> None:
        self.module, self.shape, self.tokens = module, shape, tokens
        self._backbone, self._first = backbone, first_position(backbone.trunk)
        self._hook = backbone.trunk.register_forward_pre_hook(self._before, with_kwargs=True)
        backbone.adapter.has_prefix = self._attached = True

    def keys_values(self) -> torch.Tensor:
        """`[P, L * 2 * heads * D]`, in each row layer by layer keys, then values; gradients flow into the module."""
        at = torch.arange(self.tokens, device=next(self.module.parameters()).device)
        made: torch.Tensor = self.module(at[None])[0]
        return made

    def stored(self) -> dict[str, torch.Tensor]:
        """What inference needs, for safetensors; `attach_stored` reads it."""
        return {STORED: self.keys_values().detach().cpu().contiguous()}

    def detach(self) -> None:
        """The backbone reads as it did before; done twice, it leaves alone what was attached since."""
        if self._attached:
            self._hook.remove()
            self._backbone.adapter.has_prefix = self._attached = False

    def _before(self, trunk: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        """What the trunk is given instead: a cache that holds the prefix, its mask, and positions that go on from P."""
        if not self._backbone.adapter.has_prefix:
            return None
        read = next(x for x in (kwargs.get("inputs_embeds"), kwargs.get("input_ids"), *args) if x is not None)
        cache = kwargs.get("past_key_values")
        if cache is None:
            cache = empty_cache(self._backbone)
        if cache.get_seq_length() == 0:  # else generation has read it already
            self._fill(cache, read.shape[0])
        self._check_window(cache.get_seq_length() + read.shape[1])
        given = {"past_key_values": cache}
        mask = kwargs.get("attention_mask")
        if mask is not None:
            given["attention_mask"] = widened(mask, self.tokens)
        for name in ("position_ids", "cache_position"):
            if kwargs.get(name) is not None:
                given[name] = kwargs[name] + self.tokens
        if self._first is not None:
            places = torch.arange(read.shape[1], device=read.device) + self._first + self.tokens
            given["position_ids"] = places.expand(read.shape[:2])
        return args, kwargs | given

    def _check_window(self, length: int) -> None:
        """Padding in front of a text, where it is continued, would part it from the prefix too."""
        window = self.shape.window
        if window is not None and length > window:
            raise SoftpruneError(
                f"prefix, text and answer of at most {window} tokens, since some layers look no further back",
                f"{length}",
                "lower task.max_length, or choose another model or method",
            )

    def _fill(self, cache: Any, rows: int) -> None:
        """Put the prefix into a model's empty cache, the same for every row."""
        by_layer = self.keys_values().view(self.tokens, -1, 2, self.shape.heads, self.shape.size).permute(1, 2, 3, 0, 4)
        held = own(cache)
        for layer, (device, dtype) in enumerate(self.shape.places):
            keys, values = by_layer[layer].to(device, dtype)[:, None].expand(-1, rows, -1, -1, -1)
            held.update(keys, values, layer)


def attach_prefix(backbone: Backbone, tokens: int, *, project: bool, hidden: int | None, seed: int) -> DeepPrompt:
    """A fresh prefix that every call of the backbone reads from now on; prompts `[1, 0, H]` go with it.

    Args:
        backbone: the frozen model, without a prefix.
        tokens: P.
        project: whether a network makes the keys and values (prefix tuning), or they are parameters (P-tuning v2).
        hidden: units of the network's hidden layer; None for as many as a layer's keys have.
        seed: of the values that it starts from.

    Raises:
        SoftpruneError: where not all layers of the model keep keys and values, or it has a prefix already.
    """
    shape = shape_of(backbone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _encoder(shape, tokens, project, hidden)
    module = module.to(backbone.device, backbone.prompt_dtype)
    return DeepPrompt(backbone, module, shape, tokens)


def attach_stored(backbone: Backbone, tensors: Mapping[str, torch.Tensor]) -> DeepPrompt:
    """The prefix of `DeepPrompt.stored`, read by the backbone from now on.

    Raises:
        SoftpruneError: where it isn't one, or is of another model.
    """
    shape = shape_of(backbone)
    found = tensors.get(STORED)
    if found is None or found.dim() != 2 or found.shape[1] != shape.numbers:
        raise SoftpruneError(
            f'a tensor "{STORED}" [P, {shape.numbers}] for {backbone.info.name}',
            "none" if found is None else f"{list(found.shape)}",
            "take the backbone that it was trained with",
        )
    module = _encoder(shape, found.shape[0], False, None)
    module.load_state_dict({"embedding.weight": found})
    return DeepPrompt(backbone, module.to(backbone.device, backbone.prompt_dtype), shape, found.shape[0])


def _encoder(shape: Shape, tokens: int, project: bool, hidden: int | None) -> nn.Module:
    from peft import PrefixEncoder, PrefixTuningConfig

    config = PrefixTuningConfig(
        num_virtual_tokens=tokens,
        token_dim=shape.width,
        num_layers=len(shape.places),
        num_attention_heads=shape.heads,
        num_transformer_submodules=1,
        prefix_projection=project,
        encoder_hidden_size=hidden or shape.width,
    )
    made: nn.Module = PrefixEncoder(config)  # type: ignore[no-untyped-call]
    return made


def widened(mask: torch.Tensor, tokens: int) -> torch.Tensor:
    """A mask that lets all see the prefix: of tokens `[R, L]`, 1 where real, or added to scores `[R, 1, L, L]`."""
    seen = mask.new_ones if mask.dim() == 2 else mask.new_zeros
    return torch.cat([seen(*mask.shape[:-1], tokens), mask], dim=-1)


def first_position(trunk: Any) -> int | None:
    """Where RoBERTa and similar models begin to count: given embeddings, they do so whatever they have read before."""
    counting = [module for module in trunk.modules() if hasattr(module, "create_position_ids_from_inputs_embeds")]
    return int(counting[0].padding_idx) + 1 if counting else None


def empty_cache(backbone: Backbone) -> Any:
    """Where a trunk keeps keys and values, with nothing in it."""
    transformers = import_module("transformers")
    if backbone.family == "seq2seq":
        return transformers.EncoderDecoderCache(transformers.DynamicCache(), transformers.DynamicCache())
    # A decoder's configuration says which layers forget what is far away; an encoder's is about encoders.
    return transformers.DynamicCache(config=backbone.trunk.config if backbone.family == "causal" else None)


def own(cache: Any) -> Any:
    """The part of a cache that belongs to self-attention."""
    return getattr(cache, "self_attention_cache", cache)


@torch.no_grad()
def shape_of(backbone: Backbone) -> Shape:
    """Read a few tokens, and see what the layers keep of them.

    Raises:
        SoftpruneError: where not all layers keep keys and values, of one shape, or there is a prefix already.
    """
    if backbone.adapter.has_prefix:
        raise SoftpruneError("a backbone without a prefix", "one that has one", "detach it first")
    ids, cache = backbone.probe_ids(), empty_cache(backbone)
    given: dict[str, Any] = {"inputs_embeds": backbone.lookup(ids), "attention_mask": torch.ones_like(ids)}
    if backbone.family == "seq2seq":
        given = {"input_ids": ids, "encoder_hidden_states": given["inputs_embeds"]}
    backbone.trunk(**given, past_key_values=cache, use_cache=False)
    layers = own(cache).layers
    kept = [(layer.keys, layer.values) for layer in layers if layer.is_initialized]
    shapes = {part.shape for pair in kept for part in pair}
    if not kept or len(kept) < len(layers) or len(shapes) > 1:
        raise SoftpruneError(
            "a model whose layers all keep keys and values, of one shape",
            f'"{backbone.model.config.model_type}", of which {len(kept)} layers do, in {len(shapes)} shapes',
            "choose another method; and leave backbone.checkpointing out, under which no layer keeps any",
        )
    _, heads, _, size = kept[0][0].shape
    windows = [layer.sliding_window for layer in layers if layer.is_sliding]
    return Shape(heads, size, tuple((keys.device, keys.dtype) for keys, _ in kept), min(windows, default=None))


def prefix_not_defined(config: Any, family: str) -> str | None:
    """Why a model can't take a prefix, by its configuration alone; None where it can, as far as that tells.

    Args:
        config: transformers' configuration.
        family: seq2seq, causal, masked or sentence.
    """
    kind = config.model_type
    if not _takes_cache(config, family):
        return f'attention of "{kind}" takes no keys and values beside those of its text'
    if kind in ONE_BY_ONE:
        return f'"{kind}" reads a token at a time where it is given keys and values'
    text = config.get_text_config(decoder=True)
    other = sorted(set(getattr(text, "layer_types", None) or ()) - set(KEEPING.get(family, ("full_attention",))))
    if other:
        return f'"{kind}" has layers that keep no keys and values, or not those of all tokens ({", ".join(other)})'
    written = text.to_dict()
    if any(written.get(name) for name in ("kv_lora_rank", "num_kv_shared_layers", "per_layer_config")):
        return f'keys and values of "{kind}" aren\'t of one shape in all layers'
    return None


def _takes_cache(config: Any, family: str) -> bool:
    transformers = import_module("transformers")
    alone = ENCODER_CLASSES.get(config.model_type) if family == "sentence" else None
    known = transformers.MODEL_MAPPING
    if alone is None and type(config) not in known:
        return True  # code of the model's own: `shape_of` will see
    model = getattr(transformers, alone) if alone else known[type(config)]
    model = model[0] if isinstance(model, tuple) else model
    return "past_key_values" in inspect.signature(model.forward).parameters
