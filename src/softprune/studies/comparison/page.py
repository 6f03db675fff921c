"""The page of a comparison, one HTML file that needs nothing else, and its figures: quality against what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from softprune.config import ADAPTERS, METHODS
from softprune.errors import SoftpruneError
from softprune.report.formatting import metric
from softprune.runs.comparison_record import ComparisonRecord
from softprune.studies.comparison.columns import CONTROL, RANDOM, build_sections, interval_covers, label
from softprune.studies.comparison.texts import title
from softprune.studies.folder import write_texts

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator
    from matplotlib.transforms import ScaledTranslation

    from softprune.report.interactive import assets
    from softprune.report.mpl_style import SMALL, Plan, Theme, draw_pictures, dress, legend_below, new_figure
    from softprune.report.templating import environment
except ImportError as error:
    raise SoftpruneError(
        "matplotlib, jinja2 and plotly for pages", str(error), "pip install 'softprune[report]'"
    ) from error

LOOKS: Final = (*METHODS, CONTROL, RANDOM)
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h")
_ASIDE: Final = 8  # between the points of one cost, in 1/72 inch
_FLOORS: Final = {"zero_shot": (0, (1, 2)), "constant": (0, (5, 4))}  # dashes of their lines, as matplotlib has them


@dataclass(frozen=True, slots=True)
class Place:
    """A method in a figure."""

    name: str  # in the legend
    look: int  # its marker and colour, which are the same in every comparison
    x: float  # what it costs
    y: float  # its mean
    low: float  # its interval; both ends are the mean where there is none
    high: float


def write_page(record: ComparisonRecord, folder: Path) -> Path:
    """Write `figures/` (PNG and SVG) and `index.html` into a finished comparison's folder."""
    pictures = draw_pictures(plans(record), folder / "figures")
    template = environment(Path(__file__).parent / "templates").get_template("compare.html.j2")
    html = template.render(
        record=record,
        assets=assets(),
        title=title(record),
        sections=build_sections(record),
        pictures=pictures,
        recipe=(folder / "resolved.yaml").read_text(encoding="utf-8"),
    )
    write_texts(folder, {"index.html": html})
    return folder / "index.html"


def plans(record: ComparisonRecord) -> list[Plan]:
    """The two figures; the reason where there is nothing to draw."""
    points = "of 1 seed" if len(record.seeds) == 1 else "means over seeds"
    caption = f"Points are {points}, whiskers 95% intervals {interval_covers(record)}. "
    caption += "Methods of equal cost are drawn side by side. "
    scale = _scale(record)
    floors = {row.name: (label(row), scale * row.mean) for row in record.rows if row.kind == "floor"}
    lines = "; ".join(name for name, _ in floors.values())
    quality = f"{metric(record.metric)}{' (%)' if scale != 1 else ''}"
    fewer = "Further left trains fewer numbers (logarithmic)."
    spent = "Seconds of all that makes what is used, learning rates tried and searches too."
    figures = []
    for name, cost, what, axis, missing, meaning in (
        ("parameters", "trainable", "trainable parameters", "trainable parameters", "trainable parameters", fewer),
        ("time", "seconds", "training time", "training (seconds)", "training times", spent),
    ):
        shown = places(record, cost)
        text = f"{caption}{meaning}{f' Horizontal lines: {lines}.' if lines else ''}"
        draw = partial(scatter, shown, floors, axis, quality) if shown else None
        figures.append(Plan(f"quality_{name}", f"Quality against {what}", text, draw, missing))
    return figures


def places(record: ComparisonRecord, cost: str) -> list[Place]:
    """Every row that has this cost, in the tables' order."""
    scale, shown = _scale(record), []
    for row in record.rows:
        x = row.measured(cost)
        if row.kind != "floor" and x:
            y, low, high = (scale * each for each in (row.mean, *(row.interval or (row.mean, row.mean))))
            shown.append(Place(label(row), LOOKS.index(row.name), float(x), y, low, high))
    return shown


def _scale(record: ComparisonRecord) -> float:
    """Fractions are shown as percent; a loss is none."""
    return 1.0 if record.metric == "loss" else 100.0


def scatter(shown: Sequence[Place], floors: Mapping[str, tuple[str, float]], x: str, y: str, theme: Theme) -> Figure:
    """The points over a logarithmic axis, and the floors as lines."""
    figure = new_figure(theme, height=4.4)
    axes = figure.subplots()
    axes.set_xscale("log")
    _set_ticks(axes, [place.x for place in shown])
    for at, place in enumerate(shown):
        # Points of equal cost are drawn beside each other, around it.
        before = sum(other.x == place.x for other in shown[:at])
        count = sum(other.x == place.x for other in shown)
        aside = _ASIDE * (before - (count - 1) / 2)
        colour, filled = looks(theme)[place.look]
        axes.errorbar(
            place.x,
            place.y,
            yerr=[[max(0.0, place.y - place.low)], [max(0.0, place.high - place.y)]],
            fmt=MARKERS[place.look],
            color=colour,
            markerfacecolor=colour if filled else theme.paper,
            transform=axes.transData + ScaledTranslation(aside / 72, 0, figure.dpi_scale_trans),
            markersize=7,
            elinewidth=1.0,
            capsize=2.5,
            label=place.name,
        )
    for name, (legend, value) in floors.items():
        axes.axhline(value, color=theme.other, linewidth=1.2, linestyle=_FLOORS[name], label=legend, zorder=1)
    dress(axes, theme, x, y, grid="both")
    ends = [end for place in shown for end in (place.low, place.high)] + [value for _, value in floors.values()]
    room = 0.12 * (max(ends) - min(ends)) or 0.5
    axes.set_ylim(min(ends) - room, max(ends) + room)
    legend_below(figure, axes, theme, columns=3)
    return figure


def _set_ticks(axes: Axes, values: Sequence[float]) -> None:
    """Plain numbers on a logarithmic axis; where the values lie close, there is room around them, and more of them."""
    low, high = min(values), max(values)
    # Points are drawn beside their cost, so that no axis finds its ends from them.
    room = 3.5 if high < 10 * low else (high / low) ** 0.12
    axes.set_xlim(low / room, high * room)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    axes.tick_params(axis="x", labelsize=SMALL, labelfontfamily="DejaVu Sans")


def short(value: float) -> str:
    """A number as a tick has room for it: 20, 5,000, 20k, 10M."""
    for size, unit, sign in ((1e9, 1e9, "B"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if value >= size:
            return f"{value / unit:g}{sign}"
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def looks(theme: Theme) -> list[tuple[str, bool]]:
    """Each look's colour, and whether its marker is filled; grey is left to the floors.

    Prompts have the colours of a run's own page. Others are Okabe and Ito's and some more, in a lightness that
    both papers carry. The control and the random mask are XPrompt's prompts, so they have colours of prompts.
    """
    others = (theme.front, theme.control, "#cc79a7", "#b8860b", "#8f6fd6", "#a65e3a", "#12a5b5")
    colours = dict(zip(ADAPTERS, others, strict=True)) | {"prompt": theme.tuned, "xprompt": theme.kept}
    colours |= {CONTROL: theme.kept, RANDOM: theme.tuned}
    return [(colours[name], name not in (CONTROL, RANDOM)) for name in LOOKS]
