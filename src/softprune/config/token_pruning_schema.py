"""The recipe keys of learned token pruning (`kind: tokens`): type, limits, default and meaning of each."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from softprune.config.field_types import Names, Prices, RecipeBase, Section, Threads, check_known, key
from softprune.config.schema import DataConfig, ModelConfig

RULES = ("top-k", "manual", "random", "first")  # the baselines that learned thresholds are compared with


class EncoderConfig(ModelConfig):
    """The encoder that is fine-tuned and pruned."""

    dtype: Literal["auto", "float32", "bfloat16"] = key(
        "auto",
        "number format of matrix products; weights stay float32; auto is bfloat16 where the hardware has it",
    )
    threads: Threads = key("auto", "CPU threads; auto times a step on one and on all, and the run keeps the faster")


class TextTaskConfig(DataConfig):
    """What is classified."""

    id: str = key("ag_news", "a task's id, or the path of a task's YAML file", min_length=1)
    max_length: int = key(512, "longest input in tokens, special ones included; longer ones are cut, and counted", ge=3)


class FineTuningConfig(Section):
    """How weights are trained, in all stages."""

    epochs: int = key(
        2, "passes of the baseline, before anything is pruned; 0 for a model that is already fine-tuned", ge=0
    )
    lr: float = key(5e-5, "step size of the weights, falling linearly to 0 after the warm-up", gt=0)
    warmup: float = key(0.06, "share of the steps over which the step size rises", ge=0, lt=1)
    batch_size: int = key(32, "examples in a batch", ge=1)
    accumulate: int = key(1, "parts in which a batch is processed, one after the other, to save memory", ge=1)
    weight_decay: float = key(0.01, "weight decay of matrices; biases, norms and thresholds have none", ge=0)
    clip_norm: float = key(1.0, "largest norm of a gradient", gt=0)
    dropout: float | None = key(None, "dropout of hidden states; none is the model's own", ge=0, lt=1)
    attention_dropout: float = key(
        0.0, "dropout of attention probabilities; above 0, training is about half as fast", ge=0, lt=1
    )
    eval_rows: int = key(64, "texts in one evaluation call", ge=1)
    trackers: Names = key((), "names of experiment trackers that metrics also go to")


class TokenPruningConfig(Section):
    """How input tokens are pruned."""

    lambdas: Prices = key((0.03, 0.1, 0.3), "prices of keeping input tokens, summed over layers; a model for each")
    soft_epochs: int = key(1, "passes that train thresholds and weights together", ge=1)
    hard_epochs: int = key(1, "passes that train only the weights, behind fixed thresholds", ge=0)
    hard_lr: float | None = key(None, "step size of the weights in the hard stage; none is tuning.lr", gt=0)
    threshold_lr: float = key(0.02, "step size of the thresholds, by Adam, in units of an average token", gt=0)
    theta_final: float = key(1.0, "initial threshold of the last layer; 1 is an average token", ge=0)
    temperature: float = key(0.064, "width of the soft mask's step (T); the paper's 5e-4 times 128", gt=0)
    divisor: Literal["relative", "128"] = key(
        "relative", "unit of importance: that of an average token (relative), or the official code's, where it is 1/128"
    )
    protect: bool = key(True, "never prune the token that the head reads; the official code may")
    baselines: Names = key(RULES, f"rules trained at the same operations: {', '.join(RULES)}; or none")
    baseline_epochs: int | None = key(None, "passes that train each of them; none is soft_epochs + hard_epochs", ge=1)
    random_seeds: int = key(3, "seeds of the rule that keeps random tokens", ge=1)

    @field_validator("divisor", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        return str(value) if isinstance(value, int) else value  # 128 without quotes is a number in YAML

    @field_validator("baselines", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        return () if value in (None, "none") else value

    @field_validator("baselines")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_known(value, RULES)
        return value


class TokenSelectionConfig(Section):
    """How a lambda is chosen, and how models are compared."""

    fraction: float = key(0.2, "fraction of train that is held out, to choose checkpoints and lambda", gt=0, lt=1)
    within: float = key(
        0.01,
        "largest loss of accuracy on the held-out set; of the models within it, the cheapest is chosen",
        ge=0,
        lt=1,
    )
    resamples: int = key(10_000, "bootstrap resamples for an interval", ge=1)


class TokensRecipe(RecipeBase):
    """All that a run of learned token pruning depends on."""

    kind: Literal["tokens"] = key("tokens", "learned token pruning of an encoder")
    backbone: EncoderConfig = Field(EncoderConfig(), description="the encoder")
    task: TextTaskConfig = Field(TextTaskConfig(), description="what is classified")
    tuning: FineTuningConfig = Field(FineTuningConfig(), description="how weights are trained")
    pruning: TokenPruningConfig = Field(TokenPruningConfig(), description="how input tokens are pruned")
    selection: TokenSelectionConfig = Field(TokenSelectionConfig(), description="how a lambda is chosen")
    seed: int = key(0, "seed of everything random", ge=0, lt=2**32)
