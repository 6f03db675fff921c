"""What every figure shares: colours for light and dark, axes, and its files, the same bytes from the same numbers."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

from softprune.runs import atomic_io

if TYPE_CHECKING:
    from softprune.report.plotting import Chart

DPI = 144
WIDTH = 6.2
"""Inches; half the page, so that text stays readable there."""
SMALL = 8
"""Points, for tick labels that are close together."""

_SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "softprune",  # matplotlib's ids are random without it
    "svg.fonttype": "path",
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.parse_math": False,  # a $ in a user's text is a $
    "text.usetex": False,
    "axes.unicode_minus": True,
    "hatch.linewidth": 0.6,
    "path.simplify": True,
}


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of one figure; those of series are Okabe and Ito's, safe for colour-blind readers."""

    paper: str  # background
    ink: str  # text and lines
    faint: str  # grid
    kept: str  # what survives
    pruned: str  # what doesn't
    tuned: str  # this and the next three: series
    control: str
    front: str
    other: str
    weak: str  # the importance scale, from here to `strong`
    middle: str
    strong: str
    harmful: str  # its far end below zero
    pink: str  # this and the rest: further series, which both papers carry
    gold: str
    violet: str
    brown: str
    teal: str

    @property
    def scale(self) -> Colormap:
        """Importance from weak to strong; its lightness only ever goes one way."""
        return LinearSegmentedColormap.from_list("importance", [self.weak, self.middle, self.strong])

    @property
    def signed_scale(self) -> Colormap:
        """The same above zero, blue below: leave-one-out scores have a sign."""
        colours = [self.harmful, self.kept, self.weak, self.middle, self.strong]
        return LinearSegmentedColormap.from_list("signed importance", colours)


_COLOURS = {  # of a light page, and of a dark one
    "paper": ("#ffffff", "#1b1e23"),
    "ink": ("#23262b", "#dfe3e8"),
    "faint": ("#dfe2e6", "#343941"),
    "kept": ("#0072b2", "#56b4e9"),
    "pruned": ("#b4b9c0", "#626972"),
    "tuned": ("#009e73", "#2fc79a"),
    "control": ("#d55e00", "#f08a3c"),
    "front": ("#23262b", "#dfe3e8"),
    "other": ("#9aa1aa", "#7d858f"),
    "weak": ("#fff1ea", "#2e1b1d"),
    "middle": ("#f0715a", "#b5412f"),
    "strong": ("#7a0410", "#ffd9c7"),
    "harmful": ("#00304f", "#cfeaff"),
    "pink": ("#cc79a7", "#cc79a7"),
    "gold": ("#b8860b", "#b8860b"),
    "violet": ("#8f6fd6", "#8f6fd6"),
    "brown": ("#a65e3a", "#a65e3a"),
    "teal": ("#12a5b5", "#12a5b5"),
}
LIGHT, DARK = (Theme(**dict(zip(_COLOURS, each, strict=True))) for each in zip(*_COLOURS.values(), strict=True))

Draw = Callable[[Theme], Figure]


def new_figure(theme: Theme, height: float, width: float = WIDTH) -> Figure:
    """An empty figure that lays itself out so that nothing overlaps."""
    return Figure(figsize=(width, height), dpi=DPI, facecolor=theme.paper, layout="constrained")


def dress(axes: Axes, theme: Theme, x: str, y: str, title: str = "", grid: str | None = "y") -> None:
    """Titles, colours and a quiet grid."""
    axes.set_facecolor(theme.paper)
    axes.set_xlabel(x, color=theme.ink)
    axes.set_ylabel(y, color=theme.ink)
    if title:
        axes.set_title(title, color=theme.ink, loc="left", fontsize=10.5)
    axes.tick_params(colors=theme.ink, which="both", length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.ink)
    axes.set_axisbelow(True)
    if grid in ("x", "y", "both"):
        axes.grid(True, axis=grid, color=theme.faint, linewidth=0.8)  # type: ignore[arg-type]


def legend_below(
    figure: Figure, axes: Axes | list[Axes], theme: Theme, columns: int = 3, size: float | None = None
) -> None:
    """The legend of one axes or of several under the figure, where it covers no data; `size` is of its text."""
    handles, labels = [], []
    for each in axes if isinstance(axes, list) else [axes]:
        for handle, label in zip(*each.get_legend_handles_labels(), strict=True):
            handles.append(handle)
            labels.append(label)
    if handles:
        look: dict[str, Any] = {"ncols": columns, "frameon": False, "labelcolor": theme.ink, "fontsize": size}
        figure.legend(handles, labels, loc="outside lower center", **look)


def sparse(count: int, most: int = 20) -> list[int]:
    """Tick places for `count` items: all of them, or every 2nd, 5th, 10th ... so that labels don't touch."""
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, count + 1) if count <= s * most)
    return list(range(0, count, step))


def render(draw: Draw, theme: Theme, *forms: str) -> list[bytes]:
    """A figure in each of these forms (`png`, `svg`), drawn and laid out once."""
    metadata: dict[str, Any] = {"png": {"Software": "softprune"}, "svg": {"Date": None, "Creator": "softprune"}}
    # Setting the backend would load one.
    defaults: Any = {key: value for key, value in mpl.rcParamsDefault.items() if not key.startswith("backend")}
    files = []
    # The settings are put back at once; a user's own matplotlibrc changes nothing here.
    with mpl.rc_context({**defaults, **_SETTINGS}):
        figure = draw(theme)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laying out takes as long as drawing; every further file would do it again
        for form in forms:
            target = io.BytesIO()
            figure.savefig(target, format=form, dpi=DPI, facecolor=theme.paper, metadata=metadata[form])
            files.append(target.getvalue())
    return files


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
