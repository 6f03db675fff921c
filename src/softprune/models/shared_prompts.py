"""One pass over a soft prompt for all rows behind it.

What a decoder computes at a prompt depends on nothing behind it. So where K prompts precede R rows in all, passes
over K * P tokens, not R * P, give the keys and values that the rows attend to, and the rows' gradients meet in these.
A text's own vectors are frozen: the first layer's products with them have no way back at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from softprune.models.base import Backbone, repeat_rows

BY_LENGTH = ("dynamic", "longrope")
"""Rotary embeddings whose angles depend on how long a call's sequence is: a prompt by itself would get others."""


class SharedPrompts:
    """Keys and values of K prompts `[K, P, H]`, in front of so many rows each.

    Raises:
        TypeError: the model keeps something else between calls, such as the state of a recurrence.
    """

    def __init__(self, trunk: Any, prompts_KPH: torch.Tensor, counts: Sequence[int]) -> None:
        cache = DynamicCache()
        trunk(inputs_embeds=prompts_KPH, past_key_values=cache, use_cache=True)
        if not cache.layers or any(type(layer) is not DynamicLayer for layer in cache.layers):
            raise TypeError("keys and values alone between calls")
        self._layers = [(layer.keys, layer.values) for layer in cache.layers]
        self._counts = counts
        self.length = prompts_KPH.shape[1]

    def cache(self, times: int = 1) -> DynamicCache:
        """For one call of the trunk, with so many rows in place of each."""
        counts = [count * times for count in self._counts]
        cache = DynamicCache()
        for keys, values in self._layers:
            layer = DynamicLayer()
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = repeat_rows(keys, counts), repeat_rows(values, counts)
            cache.layers.append(layer)
        return cache


def may_share(backbone: Backbone) -> bool:
    """Whether it is worth asking if a model gives the same numbers when a prompt is read once for all rows.

    On a GPU a second pass over the layers may cost more than the products it saves, and nobody has measured it.
    """
    stated = getattr(backbone.model.config.get_text_config(), "rope_parameters", None) or {}
    kinds = [stated, *(each for each in stated.values() if isinstance(each, dict))]
    by_length = any(kind.get("rope_type") in BY_LENGTH for kind in kinds)
    return backbone.device.type == "cpu" and backbone.info.quantization is None and not by_length
