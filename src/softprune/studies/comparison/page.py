"""The page of a comparison, one HTML file that needs nothing else, and its figure: scores against what they cost."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from softprune.config import METHODS
from softprune.errors import SoftpruneError
from softprune.report.formatting import metric
from softprune.runs.comparison_record import ComparisonRecord, ComparisonRow
from softprune.studies.comparison.columns import CONTROL, RANDOM, build_sections, interval_covers, label
from softprune.studies.comparison.texts import title
from softprune.studies.folder import write_texts

try:
    from softprune.report.frontier import COSTS, Contender, Frontier
    from softprune.report.interactive import assets
    from softprune.report.mpl_style import Plan, draw_pictures
    from softprune.report.plotting import MARKERS, Chart, draw_chart, plot_chart
    from softprune.report.templating import environment
except ImportError as error:
    raise SoftpruneError(
        "matplotlib, jinja2 and plotly for pages", str(error), "pip install 'softprune[report]'"
    ) from error

LOOKS: Final = (*METHODS, CONTROL, RANDOM)
# Prompts have the colours of a run's own page; other methods have these in turn, and grey is left to the floors.
_PROMPTS: Final = {"prompt": "tuned", "xprompt": "kept", CONTROL: "kept", RANDOM: "tuned"}
_COLOURS: Final = ("front", "control", "pink", "gold", "violet", "brown", "teal")
_FLOORS: Final = {"zero_shot": "dotted", "constant": "dashed"}


def write_page(record: ComparisonRecord, folder: Path) -> Path:
    """Write `figures/` (PNG and SVG) and `index.html` into a finished comparison's folder."""
    plan = plan_frontier(record)
    (picture,) = draw_pictures([plan], folder / "figures")
    plots = [] if plan.chart is None else [plot_chart(plan, plan.chart)]
    template = environment(Path(__file__).parent / "templates").get_template("compare.html.j2")
    html = template.render(
        record=record,
        assets=assets(plots),
        title=title(record),
        sections=build_sections(record),
        picture=picture,
        plots=plots,
        recipe=(folder / "resolved.yaml").read_text(encoding="utf-8"),
    )
    write_texts(folder, {"index.html": html})
    return folder / "index.html"


def plan_frontier(record: ComparisonRecord) -> Plan:
    """The figure of scores against costs; without a chart where no cost was measured."""
    frontier = build_frontier(record)
    panels, title = frontier.panels(), "All methods, by three costs"
    unknown = [name for cost, name in COSTS.items() if not any(row.measured(cost) is not None for row in record.rows)]
    if not panels:
        return Plan("frontier", title, "", None, ", ".join(unknown))
    seeds = "of 1 seed" if len(record.seeds) == 1 else "means over seeds"
    caption = (
        f"Points are {seeds}, whiskers 95% intervals {interval_covers(record)}. Further left costs less; points that "
        f"would lie on each other are drawn side by side. {frontier.caption()}"
    )
    if unknown:
        caption += f" Not measured: {', '.join(unknown)}."
    chart = Chart(tuple(panels), 1.4 + 2.05 * len(panels), frontier.numbers(), stacked=True)
    return Plan("frontier", title, caption, partial(draw_chart, chart), chart=chart)


def build_frontier(record: ComparisonRecord) -> Frontier:
    """Every row of a comparison with its costs; floors cost nothing."""
    is_loss = record.metric == "loss"
    scale, unit = (1.0, "") if is_loss else (100.0, " (%)")
    contenders = []
    for row in record.rows:
        interval = None if row.interval is None else (scale * row.interval[0], scale * row.interval[1])
        colour, marker = find_look(row)
        costs = {cost: 0.0 if row.kind == "floor" else row.measured(cost) for cost in COSTS}
        line = _FLOORS.get(row.name, "solid")
        contenders.append(Contender(label(row), row.name, colour, marker, scale * row.mean, interval, costs, line))
    return Frontier(contenders, f"{metric(record.metric)}{unit}", digits=3 if is_loss else 1)


def find_look(row: ComparisonRow) -> tuple[str, str]:
    """Colour and marker of a row, the same in every comparison; what is retrained for XPrompt's sake is an outline."""
    if row.kind == "floor":
        return "other", ""
    place = LOOKS.index(row.name)
    marker = MARKERS[place % len(MARKERS)]
    if row.kind == "control":
        marker += "-open"
    return _PROMPTS.get(row.name, _COLOURS[place % len(_COLOURS)]), marker
