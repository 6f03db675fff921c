"""Our side: softprune's own loop, batches and optimiser over K random prompts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from timing import Spent

from softprune.config.schema import TuningConfig
from softprune.models.base import Backbone
from softprune.prompts.soft_prompts import full_mask
from softprune.training.loop import Evaluation, Keeper, Schedule, Watch, train
from softprune.training.memory import keep_freed
from softprune.training.optimizers import prompt_optimiser
from softprune.training.trainable import Feed, PromptTrainable
from softprune.types import Encoded, Mask

# As runs set it before a GPU's first product, so that products there are the same from run to run.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

PIECES = 16
BATCH = 16
DECAY = 1e-5
RATE = 0.3


class Clock(Watch):
    """Notes when training began, when its last step ended, and every loss."""

    def __init__(self) -> None:
        self.begun = self.ended = Spent.now()
        self.losses: list[float] = []

    def begin(self, title: str, steps: int, done: int) -> None:
        """The clock starts."""
        self.begun = Spent.now()

    def step(self, step: int, loss: float, examples: int) -> None:
        """A step ended."""
        self.losses.append(loss)

    def stop(self, count: int) -> list[Evaluation]:
        """The clock stops where the loop evaluates, behind the epoch's last step; nothing is evaluated."""
        self.ended = Spent.now()
        return [Evaluation(0.0, 0.0)] * count


@contextmanager
def as_in_runs() -> Iterator[None]:
    """What `softprune run` sets for bit-equal results, and the peer needn't have.

    `keep_freed` holds for the process, the peer's turns too.
    """
    before, fills = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic
    filled = fills.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    fills.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    keep_freed()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        fills.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


def random_start(backbone: Backbone, tokens: int, seed: int = 1) -> torch.Tensor:
    """A prompt `[P, H]` as wide as the embeddings."""
    spread = float(backbone.embeddings_VH().std())
    return torch.randn(tokens, backbone.info.hidden, generator=torch.Generator().manual_seed(seed)) * spread


def random_masks(count: int, tokens: int, kept: int, seed: int = 2) -> list[Mask]:
    """Masks that keep so many tokens each, different ones, and all of their pieces."""
    generator = torch.Generator().manual_seed(seed)
    masks = []
    for _ in range(count):
        token_P = torch.zeros(tokens, dtype=torch.bool)
        token_P[torch.randperm(tokens, generator=generator)[:kept]] = True
        masks.append(Mask(token_P, token_P[:, None].expand(-1, PIECES).clone()))
    return masks


class Ours:
    """K prompts that train on some examples, an epoch at a time.

    Args:
        backbone: frozen.
        start_PH: where all prompts start.
        masks: one a prompt; None for a single whole prompt.
        removal: `drop` or `zero`.
    """

    def __init__(
        self, backbone: Backbone, start_PH: torch.Tensor, masks: Sequence[Mask] | None = None, removal: str = "drop"
    ) -> None:
        self.backbone = backbone
        masks = masks or [full_mask(start_PH.shape[0], PIECES)]
        self.trainable = PromptTrainable(
            backbone,
            start_PH.expand(len(masks), -1, -1),
            masks,
            removal=removal,
            loss=backbone.check_loss("auto"),
            score="sum",
        )
        self.optimiser = prompt_optimiser(
            TuningConfig(optimiser="adafactor", weight_decay=DECAY, clip_scope="all"),
            self.trainable.vectors_KPH,
            self.trainable.reading.elements_KPH,
            lr=RATE * float(start_PH.std()),
        )

    def epoch(self, encoded: Sequence[Encoded], seed: int = 0) -> Clock:
        """Train once over the examples."""
        clock, count = Clock(), self.trainable.candidates
        with as_in_runs():
            train(
                self.trainable,
                self.optimiser,
                Feed([len(e.input_ids) for e in encoded], lambda at: self.backbone.batch([encoded[i] for i in at])),
                lambda: clock.stop(count),
                Schedule(epochs=1, batch_size=BATCH, seed=seed),
                names=[str(k) for k in range(count)],
                title="",
                keeper=Keeper(),
                watch=clock,
            )
        return clock

    def step(self, encoded: Sequence[Encoded], seed: int = 0) -> Spent:
        """What a step takes, mean over an epoch: batching, collating, both passes, the optimiser."""
        clock = self.epoch(encoded, seed)
        return clock.ended.since(clock.begun, len(clock.losses))
