"""A figure on its way to a page: planned, drawn in light and dark, written as PNG and SVG."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from softprune.report.mpl_style import DARK, LIGHT, Draw, render
from softprune.runs import atomic_io

if TYPE_CHECKING:
    from softprune.report.charts import Chart


@dataclass(frozen=True, slots=True)
class Plan:
    """A figure before it is drawn."""

    name: str  # of its files
    title: str
    caption: str  # what one sees, in a sentence or two
    draw: Draw | None  # None where the numbers weren't measured
    missing: str = ""  # which numbers these are
    chart: Chart | None = None  # what it shows, where a page can draw it too


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure as a page shows it: PNGs as data addresses, empty where nothing was drawn."""

    plan: Plan
    light: str = ""
    dark: str = ""


def draw_pictures(plans: Iterable[Plan], folder: Path) -> list[Picture]:
    """Draw the figures and write a light PNG and SVG of each into a folder.

    Files of an earlier report are removed where there is nothing to draw now.
    """
    pictures = []
    for plan in plans:
        png, svg = folder / f"{plan.name}.png", folder / f"{plan.name}.svg"
        if plan.draw is None:
            png.unlink(missing_ok=True)
            svg.unlink(missing_ok=True)
            pictures.append(Picture(plan))
            continue
        light, drawn = render(plan.draw, LIGHT, "png", "svg")
        atomic_io.write_bytes(png, light)
        atomic_io.write_bytes(svg, drawn)
        (dark,) = render(plan.draw, DARK, "png")
        pictures.append(Picture(plan, _data_address(light), _data_address(dark)))
    return pictures


def _data_address(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
