"""`methods`: the ways to adapt a model."""

from __future__ import annotations

from typing import Annotated, Any

from softprune.cli.options import option_like
from softprune.cli.output import print_rich, say
from softprune.config import DEFAULT_RELATIVE_LR


def methods(
    backbone: Annotated[str | None, option_like("--backbone", "none: for every family of models")] = None,
) -> None:
    """List the methods: what each trains, where it comes from, its learning rate, and where it is defined."""
    from softprune.adapters.registry import FAMILIES, METHODS
    from softprune.models import describe
    from softprune.terminal import Table

    family = None if backbone is None else str(describe(backbone).family)
    families = list(FAMILIES) if family is None else [family]
    here = [] if family is None else ["here"]
    style: dict[str, Any] = {"box": None, "pad_edge": False, "header_style": "bold underline"}
    summary = Table("method", "trains", "from", "learning rate", "kind", *here, **style)
    defined = Table("defined for", *families, **style)
    reasons = []
    for method in METHODS.values():
        rate = f"{DEFAULT_RELATIVE_LR} × RMS of embeddings" if method.lr is None else f"{method.lr:g}"
        cells = [method.name, method.trains, method.source, rate, method.kind]
        if family is not None:
            cells.append("not defined" if family in method.refused else "yes")
        summary.add_row(*cells)
        defined.add_row(method.name, *("no" if name in method.refused else "yes" for name in families))
        for name in families:
            if name in method.refused:
                reasons.append(f"{method.name} with {name} models: not defined: {method.refused[name]}")
    print_rich(summary, "", defined)
    for line in reasons:
        say(line)
