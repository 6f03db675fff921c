"""Models of released shapes with random weights, and random examples of given lengths. No network, no data.

A shape is saved as a released model is, and both sides load it from that folder as their users would. Its tokenizer is
a bundled model's: examples are random ids, so it only has to be there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoTokenizer

from softprune.models import BUNDLED
from softprune.models.description import find_source
from softprune.types import Encoded

_T5 = {"dropout_rate": 0.0, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 3, "vocab_size": 32_128}
_V1_1 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
_GPT2 = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 2, "eos_token_id": 3}
_QWEN3 = {"tie_word_embeddings": True, "bos_token_id": 2, "eos_token_id": 3}
_BLOOM = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "t5-v1_1-small": (
        "T5",
        {**_T5, **_V1_1, "d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_heads": 6},
    ),
    "t5-base": ("T5", {**_T5, "d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12}),
    "t5-v1_1-large": (
        "T5",
        {**_T5, **_V1_1, "d_model": 1024, "d_kv": 64, "d_ff": 2816, "num_layers": 24, "num_heads": 16},
    ),
    "gpt2": ("GPT2", {**_GPT2}),
    "qwen3-0.6b": (
        "Qwen3",
        {
            **_QWEN3,
            "vocab_size": 151_936,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
    ),
    "bloom": ("Bloom", {**_BLOOM, "vocab_size": 250_880, "hidden_size": 1024, "n_layer": 4, "n_head": 16}),
    "toy-t5": (
        "T5",
        {**_T5, **_V1_1, "vocab_size": 500, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
    ),
    "toy-gpt2": ("GPT2", {**_GPT2, "vocab_size": 500, "n_embd": 32, "n_layer": 2, "n_head": 4}),
    "toy-qwen3": (
        "Qwen3",
        {
            **_QWEN3,
            "vocab_size": 500,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
        },
    ),
    "toy-bloom": ("Bloom", {**_BLOOM, "vocab_size": 16_000, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
}
_CLASSES = {
    "T5": ("T5Config", "T5ForConditionalGeneration", "tiny-seq2seq"),
    "GPT2": ("GPT2Config", "GPT2LMHeadModel", "tiny-causal"),
    "Qwen3": ("Qwen3Config", "Qwen3ForCausalLM", "tiny-causal"),
    "Bloom": ("BloomConfig", "BloomForCausalLM", "tiny-causal"),
}
NAMES = (*SHAPES, *BUNDLED)
"""What `--shapes` takes."""

# Of AG News' articles and titles, in tokens: half lie between 40 and 60, few beyond 100.
_MIXED = {"mean": 3.9, "sigma": 0.35, "least": 8, "most": 200}

TARGET = 2
"""Tokens of an answer."""


@contextmanager
def folder_of(shape: str, dtype: torch.dtype) -> Iterator[str]:
    """What both sides load: a bundled model's folder, or one with random weights that lives as long as the block."""
    if shape in BUNDLED:
        yield find_source(shape)
        return
    with TemporaryDirectory(prefix="softprune-bench-") as folder:
        save(shape, dtype, Path(folder))
        yield folder


def save(shape: str, dtype: torch.dtype, folder: Path) -> None:
    """Draw a shape's weights and save them."""
    kind, sizes = SHAPES[shape]
    config_class, model_class, tokenizer = _CLASSES[kind]
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(**sizes))
    if sizes.get("tie_word_embeddings") is False:
        # transformers draws an untied head as wide as embeddings: logits in the hundreds. Released ones aren't so.
        model.lm_head.weight.data *= sizes["d_model"] ** -0.5
    model.to(dtype).save_pretrained(folder)
    AutoTokenizer.from_pretrained(find_source(tokenizer)).save_pretrained(folder)


def vocabulary(folder: str) -> int:
    """V of a saved model."""
    return int(AutoConfig.from_pretrained(folder).vocab_size)


def input_lengths(which: str, count: int, seed: int = 0) -> list[int]:
    """Input tokens of each example: a number for all alike, or `mixed`."""
    if which != "mixed":
        return [int(which)] * count
    drawn = np.random.default_rng(seed).lognormal(_MIXED["mean"], _MIXED["sigma"], count)
    return [int(n) for n in drawn.clip(_MIXED["least"], _MIXED["most"])]


@dataclass(frozen=True, slots=True)
class Data:
    """Random pretokenised examples, for both sides.

    Attributes:
        encoded: as our backbones read them. Two answers of two tokens each, or for a sentence encoder six.
    """

    encoded: tuple[Encoded, ...]

    @property
    def lengths(self) -> list[int]:
        """Input tokens of each example."""
        return [len(example.input_ids) for example in self.encoded]


def examples(lengths: Sequence[int], size: int, sentence: bool, seed: int = 0) -> Data:
    """Random examples of these lengths over a vocabulary of so many words.

    A sentence encoder's answers are the same for all examples, as a task's labels are.
    """
    generator = np.random.default_rng([seed, 1])

    def ids(count: int) -> tuple[int, ...]:
        return tuple(int(i) for i in generator.integers(10, size, count))

    answers = tuple(ids(3) for _ in range(6)) if sentence else ()
    return Data(
        tuple(
            Encoded(ids(n), -1, answers or (ids(TARGET), ids(TARGET)), int(generator.integers(len(answers) or 2)))
            for n in lengths
        )
    )
