"""Two charts of a run: scores against compression, and the curves of its trainings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from softprune.data.metrics import metric_label
from softprune.report import formatting
from softprune.report.charts import Chart, Facet, Series
from softprune.report.interactive import Cell, Numbers
from softprune.report.run_reader import Point, Run
from softprune.report.table import candidate_cells
from softprune.types import Candidate

# In the order in which they are drawn: what matters most lies on top.
ROLES: Final = {
    "candidate": ("other candidates", "other", "circle"),
    "tuned": ("tuning", "tuned", "circle"),
    "control": ("control", "control", "square"),
    "winner": ("winner", "kept", "diamond"),
}
"""Name, colour and marker of a training by its role."""


def group_trainings(run: Run) -> list[tuple[str, list[Point]]]:
    """The trainings that have a role, with their evaluations in order of steps.

    Fresh seeds, the random mask, gates and learning rates that lost a sweep have none.
    """
    winner = next((c.id for c in run.candidates if c.status == "winner"), None)
    chosen_rate = next((f"rate-x{name}" for name, row in run.record.sweep.items() if row.chosen), None)
    candidates = {c.id for c in run.candidates}
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in run.points:
        groups.setdefault((point.phase, point.candidate), []).append(point)
    trainings = []
    for (phase, candidate), points in groups.items():
        if phase in ("tune", "adapt") or (phase == "sweep" and candidate == chosen_rate):
            role = "tuned"
        elif phase == "control":
            if not str(candidate).startswith("control"):
                continue
            role = "control"
        elif candidate == winner:
            role = "winner"
        elif candidate in candidates:
            role = "candidate"
        else:
            continue
        trainings.append((role, sorted(points, key=lambda point: point.step)))
    order = list(ROLES)
    return sorted(trainings, key=lambda training: order.index(training[0]))


def compression_chart(run: Run) -> Chart | None:
    """Every trained candidate's `select` score against what it prunes; None without candidates or a prompt's size."""
    trained, prompt = [c for c in run.candidates if c.select is not None], run.record.prompt
    if prompt is None or not trained:
        return None
    metric, unit, scale = _score_axis(run)
    pruned = [100 * (1 - c.parameters / (prompt.P * prompt.H)) for c in trained]
    scores = [scale * (c.select or 0.0) for c in trained]
    hover, rows = _describe_candidates(run, trained, pruned)
    winner = next((i for i, c in enumerate(trained) if c.status == "winner"), None)
    front = sorted((i for i, c in enumerate(trained) if c.pareto), key=lambda i: pruned[i])
    others = [i for i in range(len(trained)) if i not in front and i != winner]
    # Beside the outermost points, so that none lies on an axis; candidates of one size have some as well.
    room = max(0.06 * (max(pruned) - min(pruned)), 3.0)
    ends = (max(min(pruned) - room, -2.0), min(max(pruned) + room, 102.0))

    def points(name: str, colour: str, places: list[int], **look: Any) -> Series:
        x, y = tuple(pruned[i] for i in places), tuple(scores[i] for i in places)
        return Series(name, x, y, colour, tuple(hover[i] for i in places), **look)

    series = [points("candidate", "other", others, marker="circle", size=4.7, opacity=0.75)]
    if front:
        # A step, not a slope: between two candidates there is only the more pruned one to use.
        series.append(points("Pareto front", "front", front, line="step", width=1.3, marker="circle", size=7.0))
    for role, name, line in (("tuned", "tuned prompt", "even"), ("control", "control", "odd")):
        level = _kept_score(run, role)
        if level is not None:
            label = f"{name} ({scale * level:.1f})"
            series.append(Series(label, ends, (scale * level,) * 2, role, (label,) * 2, line=line, width=1.6))
    if winner is not None:
        series.append(points(f"winner ({scores[winner]:.1f})", "kept", [winner], marker="star", size=17.0))
    headings = ("candidate", "parameters pruned (%)", "parameters", run.select_name, "Pareto front")
    panel = Facet("", "parameters pruned (%)", f"{metric} on select{unit}", ends, tuple(series))
    return Chart((panel,), 4.2, Numbers(headings, rows))


def _describe_candidates(
    run: Run, trained: list[Candidate], pruned: list[float]
) -> tuple[list[str], tuple[tuple[Cell, ...], ...]]:
    """What is said of each candidate where it is pointed at, and its row in the chart's table."""
    hover, rows = [], []
    for candidate, share in zip(trained, pruned, strict=True):
        cells = candidate_cells(run, candidate)
        lines = [
            "{id} (winner)" if candidate.status == "winner" else "{id}",
            "select {select}, report {report}",
            "{tokens} tokens, {pieces} pieces",
            "{parameters} parameters, {share:.1f}% pruned",
        ]
        hover.append("\n".join(lines).format(**cells, share=share))
        on_front = "yes" if candidate.pareto else "no"
        rows.append((cells["id"], f"{share:.1f}", float(candidate.parameters), cells["select"], on_front))
    return hover, tuple(rows)


def _kept_score(run: Run, role: str) -> float | None:
    """`select` at the checkpoint that was kept of a training; None where it wasn't measured."""
    points = [p for name, points in group_trainings(run) if name == role for p in points if p.select is not None]
    if not points:
        return None
    if run.best_by == "loss":
        return min(points, key=lambda p: float("inf") if p.select_loss is None else p.select_loss).select
    return max(points, key=lambda p: p.select or 0.0).select


def training_chart(run: Run) -> Chart | None:
    """Losses, and scores on `select`, by step; None without a training."""
    trainings = group_trainings(run)
    if not trainings:
        return None
    metric, unit, scale = _score_axis(run)
    losses: list[Series] = []
    scores: list[Series] = []
    rows = []
    for role, points in trainings:
        select = [None if p.select is None else scale * p.select for p in points]
        scores.append(_curve(role, points, metric, select))
        if role == "candidate":
            continue  # many: they would hide the others' losses, and make a table that nobody reads
        train_loss, select_loss = [p.train_loss for p in points], [p.select_loss for p in points]
        losses.append(_curve(role, points, "loss on train", train_loss))
        losses.append(_curve(role, points, "loss on select", select_loss, "dashed"))
        for p in points:
            score = p.select if run.is_generation else formatting.percent(p.select)
            rows.append((ROLES[role][0], float(p.step), p.train_loss, p.select_loss, score))
    headings = ("training", "step", "loss on train", "loss on select", f"{metric}{unit}")
    steps = (0.0, 1.05 * max(point.step for _, points in trainings for point in points))
    panels = (
        Facet("Loss", "optimiser step", "loss (train —, select - -)", steps, tuple(losses)),
        Facet("Select score", "optimiser step", f"{metric} on select{unit}", steps, tuple(scores)),
    )
    return Chart(panels, 3.7, Numbers(headings, tuple(rows)))


def _curve(role: str, points: list[Point], measure: str, values: list[float | None], line: str = "solid") -> Series:
    name, colour, marker = ROLES[role]
    hover = []
    for point, value in zip(points, values, strict=True):
        lines = [formatting.printable(point.candidate), f"step {point.step}", f"{measure} {formatting.number(value)}"]
        hover.append("\n".join(lines))
    steps = tuple(float(point.step) for point in points)
    series = Series(name, steps, tuple(values), colour, tuple(hover), line, marker)
    if role == "candidate":
        # One of many: pale, and without markers unless a single point would be invisible.
        return replace(series, marker=marker if len(points) == 1 else "", width=0.7, size=2.5, opacity=0.45)
    return series


def _score_axis(run: Run) -> tuple[str, str, float]:
    """What choices on `select` went by, its unit, and what a stored value is multiplied by."""
    if run.is_generation:
        return "minus loss", "", 1.0
    # Only what the figures' font can write.
    label = metric_label(run.metric)
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in label), " (%)", 100.0
