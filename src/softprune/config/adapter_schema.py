"""Recipe keys of the methods that aren't a prompt (`kind: adapt`)."""

from __future__ import annotations

from typing import Final, Literal

from softprune.config.field_types import LearningRate, Names, Numbers, Rate, Section, key

# Values of adapter.method.
PREFIXES: Final = ("prefix", "p-tuning-v2")  # keys and values of virtual tokens, which labels train
CARTRIDGE: Final = "cartridge"  # the same, which the model teaches that has read a document
KEYS_VALUES: Final = (*PREFIXES, CARTRIDGE)
# A prompt in front of the input, and more; prompt.init says what the prompt starts as.
WITH_PROMPT: Final = ("dept", "smop")
VIRTUAL: Final = (*KEYS_VALUES, "p-tuning", *WITH_PROMPT)  # those that take prompt.tokens positions of the model


class AdapterConfig(Section):
    """How a model is adapted other than by a prompt alone (kind: adapt)."""

    method: Literal[
        "full", "last-layer", "lora", "prefix", "p-tuning", "p-tuning-v2", "cartridge", "ia3", "dept", "smop"
    ] = key("lora", "what is trained; softprune methods lists them")
    rank: int = key(8, "lora, dept: rank of the two matrices, r", ge=1)
    alpha: int = key(
        16, "lora: alpha / rank scales the product of the two matrices; dept: alpha / sqrt(rank) does", ge=1
    )
    offset_lr: Rate = key(
        LearningRate(relative=0.03),
        "dept: learning rate of the two matrices; tuning.lr is the prompt's, and tuning.sweep multiplies both",
    )
    prompts: int = key(4, "smop: short prompts, of which a router chooses one for each input", ge=2)
    dropout: float = key(0.0, "lora: dropout of the matrices' input", ge=0, lt=1)
    targets: Names = key((), "lora, ia3: names of the modules that are adapted; empty for peft's choice")
    layers: Numbers = key((), "lora: numbers of the layers, from 0, whose modules are adapted; empty for all")
    hidden: int | None = key(None, "prefix, p-tuning: width of their network; none is the backbone's own", ge=1)
    start: Literal["random", "prompt"] = key(
        "random", "prefix, p-tuning-v2: start as random numbers, or as what the layers keep of prompt.init's prompt"
    )
    document: str | None = key(
        None, "cartridge: a UTF-8 text file, in place of which the model reads the cartridge", min_length=1
    )
    self_study: int = key(
        0, "cartridge: questions about parts of the document that the model writes itself, and answers; at most", ge=0
    )
    warmup: float = key(0.06, "share of the steps over which the learning rate rises", ge=0, lt=1)
    decay: Literal["linear", "none"] = key("linear", "the learning rate after that: falling to 0, or constant")
    clip_norm: float = key(1.0, "largest norm of a gradient", gt=0)
    untie_head: bool = key(False, "last-layer: copy an output head that is tied to the embeddings, and train it too")
