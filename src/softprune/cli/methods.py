"""`methods`: the ways to adapt a model."""

from __future__ import annotations

from typing import Annotated

from softprune.cli.options import option_like
from softprune.cli.output import print_rich, say
from softprune.config import DEFAULT_RELATIVE_LR, BackboneConfig


def methods(
    backbone: Annotated[str | None, option_like("--backbone", "none: without asking a model")] = None,
) -> None:
    """List the methods: what each trains, its source, its learning rate, and whether a model has room for it."""
    from softprune.adapters.registry import METHODS
    from softprune.studies.comparison.method_runs import refused_by_model
    from softprune.terminal import Table

    heads, refused = ["method", "trains", "from", "learning rate", "kind"], {}
    if backbone is not None:
        heads.append("here")
        refused = refused_by_model(BackboneConfig(name=backbone), METHODS)
    table = Table(*heads, box=None, pad_edge=False, header_style="bold underline")
    for method in METHODS.values():
        rate = f"{DEFAULT_RELATIVE_LR} × RMS of embeddings" if method.lr is None else f"{method.lr:g}"
        cells = [method.name, method.trains, method.source, rate, method.kind]
        if backbone is not None:
            cells.append("not defined" if method.name in refused else "yes")
        table.add_row(*cells)
    print_rich(table)
    for name, reason in refused.items():
        say(f"{name}: not defined: {reason}")
