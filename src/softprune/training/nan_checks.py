"""Losses that are no numbers: reported where they arise, before anything is chosen by them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from softprune.errors import SoftpruneError

FROM_THE_MODEL = "the model gives no numbers in this format: take --dtype float32 or sound weights, and another --out"


class NotFinite(SoftpruneError):
    """A training that went out of bounds, which another learning rate may not."""


def check_finite(values: Sequence[float], names: Sequence[str], what: str, when: str, do: str) -> None:
    """Hold losses (or what is made of them) to be numbers.

    Args:
        values: one a name.
        names: of the prompts.
        what: they are ("training loss").
        when: where in the run ("at step 3 of 100").
        do: what may fix it.

    Raises:
        NotFinite: for the first that is NaN or infinite.
    """
    for name, value in zip(names, values, strict=True):
        if not math.isfinite(value):
            raise NotFinite(f"a finite {what}", f"{value} for {name} {when}", do)
