"""Models that can't take a prefix: told by the configuration alone, and once more by the layers themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from pefts import DEFINED, P

from models import FAMILY
from softprune.adapters.base import AdapterPlan
from softprune.adapters.prefix import new_prefix, prefix_not_defined
from softprune.errors import SoftpruneError
from softprune.models import load_backbone
from softprune.models.base import Backbone

Backbones = Callable[..., Backbone]
Models = Callable[[str], Path]


def test_attention_that_takes_no_cache(backbone_of: Backbones) -> None:
    backbone = backbone_of("distilbert")
    reason = prefix_not_defined(backbone.model.config, "masked")
    assert reason == 'attention of "distilbert" takes no keys and values beside those of its text'
    with pytest.raises(SoftpruneError, match=r'"distilbert", of which 0 layers do'):
        new_prefix(backbone, AdapterPlan("p-tuning-v2", tokens=P), seed=0)


@pytest.mark.parametrize("name", DEFINED)
def test_the_configuration_tells_where_it_is_defined(name: str, backbone_of: Backbones) -> None:
    assert prefix_not_defined(backbone_of(name).model.config, FAMILY[name]) is None


@pytest.mark.parametrize(
    ("config", "family", "reason"),
    [
        (transformers.T5Config(), "sentence", 'attention of "t5" takes no keys'),
        (transformers.MambaConfig(), "causal", 'attention of "mamba" takes no keys'),
        (transformers.ModernBertConfig(), "masked", 'attention of "modernbert" takes no keys'),
        (transformers.ProphetNetConfig(), "seq2seq", "reads a token at a time"),
        (transformers.T5GemmaConfig(), "seq2seq", "not those of all tokens (sliding_attention)"),
        (transformers.Qwen3NextConfig(), "causal", "not those of all tokens (linear_attention)"),
        (transformers.DeepseekV3Config(), "causal", "aren't of one shape"),
    ],
)
def test_architectures_without_one(config: Any, family: str, reason: str) -> None:
    assert reason in str(prefix_not_defined(config, family))


def test_recomputed_layers_keep_nothing(tiny_models: Models) -> None:
    backbone = load_backbone(str(tiny_models("gpt2")), dtype="float32", device="cpu", checkpointing=True)
    with pytest.raises(SoftpruneError, match=r"backbone\.checkpointing out"):
        new_prefix(backbone, AdapterPlan("p-tuning-v2", tokens=P), seed=0)
