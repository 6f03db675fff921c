"""What a prompt can be trained as: `prompt.form`. The equation of each form is in its file of `prompts/forms`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from softprune.config.field_types import DEFAULT_RELATIVE_LR


@dataclass(frozen=True, slots=True)
class PromptForm:
    """Numbers that are trained in place of a prompt's vectors, and make them."""

    trains: str  # in a few words
    source: str
    lr: float  # learning rate of its own, in units of the RMS of the input embeddings
    start: str = ""  # what it starts as; empty where `prompt.init` says it
    options: Mapping[str, float] = field(default_factory=dict)  # the prompt's keys that are its own, with its defaults


PLAIN: Final = "plain"
FORMS: Final = {
    PLAIN: PromptForm("a soft prompt", "Lester et al. 2021", DEFAULT_RELATIVE_LR),
    "residual": PromptForm(
        "a soft prompt and a network beside it",
        "Razdaibiedina et al. 2023",
        lr=0.03,
        options={"bottleneck": 400},
    ),
    "low-rank": PromptForm(
        "two thin matrices, whose product is the prompt",
        "Xiao et al. 2023",
        lr=0.03,
        start="random numbers",
        options={"bottleneck": 10},
    ),
    "ulpt": PromptForm(
        "two numbers a token, a scale and a shift",
        "Wu et al. 2026",
        lr=0.03,
        start="random numbers",
        options={"bottleneck": 2},
    ),
    "superpos": PromptForm(
        "weights of sampled words",
        "Sadraei et al. 2024",
        lr=0.03,
        start="vocabulary",
        options={"words": 128},
    ),
    "cpt": PromptForm(
        "small moves of labelled demonstrations",
        "Blau et al. 2024",
        lr=0.01,
        start="demonstrations",
        options={"radius": 0.1},
    ),
}


def forms_with(option: str) -> tuple[str, ...]:
    """The forms that a key of the prompt belongs to."""
    return tuple(name for name, form in FORMS.items() if option in form.options)
