"""Floating-point operations that a training step needs: forward, and backward through the activations.

Counted by hand from the shape, over real tokens (no padding), a multiplication and an addition as two. Weights are
frozen, so a linear layer's backward pass is one product, not two; attention's is two for each of its own. Left out:
what isn't a matrix product, and what no gradient reaches in the first decoder layer. The gradient of the input tokens
at the first layer, which nobody needs, is counted, since autograd computes it. Where lengths are all alike, torch's own
counter finds the same number in plain attention; it doesn't count torch's fused attention on a CPU (tests/benchmarks).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shapes import TARGET

LINEAR = 2 * 2  # forward and backward, each a multiplication and an addition a weight
GATED = ("llama", "qwen3")  # decoders whose feed-forward part has three matrices
ATTENTION = 6 * 2  # two products forward, four backward


def step_flops(config: Any, family: str, lengths: Sequence[int], prompt: int) -> float:
    """Of one pass over examples of these input lengths behind a prompt of so many tokens.

    Args:
        config: of the Hugging Face model.
        family: seq2seq, causal or sentence.
        lengths: input tokens of each example.
        prompt: prompt tokens, those that are read.
    """
    if family == "seq2seq":
        read = [prompt + n for n in lengths]
        return _encoder_decoder(config, read)
    extra = TARGET - 1 if family == "causal" else 0
    read = [prompt + n + extra for n in lengths]
    hidden = config.hidden_size
    inner = getattr(config, "n_inner", None) or getattr(config, "intermediate_size", None) or 4 * hidden
    matrices = 3 if config.model_type in GATED else 2
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or hidden // heads
    shared = getattr(config, "num_key_value_heads", None) or heads  # heads of keys and of values
    weights = 2 * hidden * size * (heads + shared) + matrices * hidden * inner
    squares = ATTENTION * heads * size * sum(n * n for n in read)
    body = config.num_hidden_layers * (LINEAR * weights * sum(read) + squares)
    head = LINEAR * hidden * config.vocab_size * TARGET * len(read) if family == "causal" else 0
    return float(body + head)


def _encoder_decoder(config: Any, read: Sequence[int]) -> float:
    hidden, inner = config.d_model, config.num_heads * config.d_kv
    forward = (3 if config.is_gated_act else 2) * hidden * config.d_ff
    tokens, memory = TARGET * len(read), sum(read)
    encoder = LINEAR * (4 * hidden * inner + forward) * memory + ATTENTION * inner * sum(n * n for n in read)
    own = LINEAR * 4 * hidden * inner * tokens + ATTENTION * inner * TARGET * tokens
    across = LINEAR * 2 * hidden * inner * (tokens + memory) + ATTENTION * inner * TARGET * memory
    decoder = own + across + LINEAR * forward * tokens
    # Backwards, nothing reaches the first layer's own attention, nor the queries that come of it.
    untouched = 2 * 5 * hidden * inner * tokens + 8 * inner * TARGET * tokens + 2 * inner * TARGET * memory
    head = LINEAR * hidden * config.vocab_size * tokens
    return float(config.num_layers * encoder + config.num_decoder_layers * decoder - untouched + head)
