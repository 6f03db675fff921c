"""One training step against peft's PromptTuning by hand, and what a candidate costs when K train side by side.

    python benchmarks/single_step.py [--rounds 15]

A random T5 (v1.1 switches: gated GELU, untied; H = 256, 4 + 4 layers), batch 16, inputs of 32 tokens, 20 prompt
tokens, Adafactor at a constant rate, float32, same start and batches. Peers alternate; medians and ratios are printed,
since absolute times mean little on shared machines. The losses of both are compared first.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from transformers import Adafactor, T5Config, T5ForConditionalGeneration

from softprune.backbone.base import BackboneInfo
from softprune.backbone.seq2seq import Seq2SeqBackbone
from softprune.prompt.bank import full_mask
from softprune.tuning.optimisers import make_optimiser
from softprune.tuning.trainable import PromptTrainable
from softprune.types import Batch

P, B, N, V, H = 20, 16, 32, 8_000, 256
RATE = 0.3


class Tokens:
    """Stands for a tokenizer: the backbone asks it for a start of targets only."""

    all_special_ids: tuple[int, ...] = (0, 1, 2)
    pad_token_id = 0
    unk_token_id = 2
    eos_token_id = 1

    def __call__(self, *_: str, **__: str) -> dict[str, list[int]]:
        """Ids of a target text."""
        return {"input_ids": [5, 1]}


def model() -> T5ForConditionalGeneration:
    """A random T5 of the v1.1 kind."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=V,
        d_model=H,
        d_kv=64,
        d_ff=512,
        num_layers=4,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )
    return T5ForConditionalGeneration(config).eval()


def ours(count: int, start_PH: torch.Tensor, batch: Batch) -> Callable[[], torch.Tensor]:
    """A step of K prompts side by side."""
    info = BackboneInfo("t5", "seq2seq", "", "float32", "cpu", H, 0, None)
    backbone = Seq2SeqBackbone(model(), Tokens(), info)
    trainable = PromptTrainable(
        backbone,
        start_PH.expand(count, P, H),
        [full_mask(P, 16)] * count,
        removal="zero",
        loss="likelihood",
        score="sum",
    )
    optimiser = make_optimiser(
        "adafactor",
        trainable.vectors_KPH,
        trainable.survivors(),
        lr=RATE,
        weight_decay=1e-5,
        clip_threshold=1.0,
        clip_scope="all",
    )

    def step() -> torch.Tensor:
        optimiser.zero_grad(set_to_none=True)
        loss_K = trainable.loss(batch).mean(1)
        loss_K.sum().backward()
        optimiser.step()
        return loss_K.detach()[0]

    return step


def peer(start_PH: torch.Tensor, batch: Batch) -> Callable[[], torch.Tensor]:
    """A step of peft's PromptTuning: one prompt, frozen weights, the same optimiser."""
    config = PromptTuningConfig(
        task_type=TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=P, num_transformer_submodules=1, token_dim=H
    )
    wrapped: Any = get_peft_model(model(), config)
    prompt = wrapped.prompt_encoder["default"].embedding.weight
    prompt.data.copy_(start_PH)
    optimiser = Adafactor([prompt], lr=RATE, scale_parameter=False, relative_step=False, weight_decay=1e-5)
    labels = batch.answer_ids[:, 0]

    def step() -> torch.Tensor:
        optimiser.zero_grad(set_to_none=True)
        loss = wrapped(input_ids=batch.input_ids, attention_mask=batch.input_mask, labels=labels).loss
        loss.backward()
        optimiser.step()
        return loss.detach()

    return step


def seconds(step: Callable[[], torch.Tensor]) -> float:
    """Wall time of one step."""
    begun = time.perf_counter()
    step()
    return time.perf_counter() - begun


def alternate(steps: dict[str, Callable[[], torch.Tensor]], rounds: int) -> dict[str, float]:
    """Median seconds of each, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(seconds(step))
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    """Compare losses, then times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    generator = torch.Generator().manual_seed(1)
    batch = Batch(
        input_ids=torch.randint(2, V, (B, N), generator=generator),
        input_mask=torch.ones(B, N, dtype=torch.long),
        answer_ids=torch.randint(2, V, (B, 1, 2), generator=generator),
        answer_mask=torch.ones(B, 1, 2, dtype=torch.bool),
        gold=torch.zeros(B, dtype=torch.long),
        slot=torch.full((B,), -1),
    )
    start = torch.randn(P, H, generator=generator)
    left, right = ours(1, start, batch), peer(start, batch)
    pairs = [(float(left()), float(right())) for _ in range(10)]
    gap = max(abs(a - b) / abs(b) for a, b in pairs)
    print(f"losses of 10 steps agree to {gap:.1e} (last: {pairs[-1][0]:.5f} and {pairs[-1][1]:.5f})")
    times = alternate({"softprune": left, "peft": right}, rounds)
    print(f"single step: peft {times['peft']:.3f} s, softprune {times['softprune']:.3f} s, ", end="")
    print(f"ratio {times['peft'] / times['softprune']:.2f}")
    groups = {f"K = {k}": ours(k, start, batch) for k in (1, 4, 8, 16)}
    found = alternate(groups, max(3, rounds // 3))
    for name, value in found.items():
        count = int(name.removeprefix("K = "))
        print(f"{name}: {value / count:.3f} s a candidate, {value / count / found['K = 1']:.2f} of K = 1")


if __name__ == "__main__":
    main()
