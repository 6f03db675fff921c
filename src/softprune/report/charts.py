"""The charts of a run: scores against what they cost, and the curves of its trainings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from softprune.data.metrics import metric_label
from softprune.report import formatting
from softprune.report.formatting import NOT_APPLICABLE, NOT_MEASURED
from softprune.report.frontier import COSTS, Contender, Frontier, find_cost_axis, find_ticks
from softprune.report.interactive import Numbers
from softprune.report.plotting import Chart, Facet, Series
from softprune.report.run_reader import Point, Run
from softprune.report.table import LABELS, candidate_cells, is_copied
from softprune.types import Candidate

# In the order in which they are drawn: what matters most lies on top.
ROLES: Final = {
    "candidate": ("other candidates", "other", "circle"),
    "tuned": ("tuning", "tuned", "circle"),
    "control": ("control", "control", "square"),
    "winner": ("winner", "kept", "diamond"),
}
"""Name, colour and marker of a training by its role."""
_LOOKS: Final = {
    "constant": ("other", "", "dashed"),
    "zero_shot": ("other", "", "dotted"),
    "instruction": ("gold", "pentagon", "solid"),
    "tuned": ("tuned", "circle", ""),
    "control": ("control", "square", ""),
    "random": ("pink", "triangle-up", ""),
    "winner": ("kept", "diamond", ""),
}
"""Colour, marker and dashes of a result; what costs nothing is a line."""
_FRONT: Final = "Pareto front on select"


def group_trainings(run: Run) -> list[tuple[str, list[Point]]]:
    """The trainings that have a role, with their evaluations in order of steps.

    Fresh seeds, the random mask, gates and learning rates that lost a sweep have none.
    """
    roles = {c.id: "winner" if c.status == "winner" else "candidate" for c in run.candidates}
    chosen_rate = next((f"rate-x{name}" for name, row in run.record.sweep.items() if row.chosen), None)
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in run.points:
        groups.setdefault((point.phase, point.candidate), []).append(point)
    trainings = []
    for (phase, candidate), points in groups.items():
        role = roles.get(candidate)
        if phase in ("tune", "adapt") or (phase == "sweep" and candidate == chosen_rate):
            role = "tuned"
        elif phase == "control":  # the random mask is in it, too
            role = "control" if str(candidate).startswith("control") else None
        if role is not None:
            trainings.append((role, sorted(points, key=lambda point: point.step)))
    order = list(ROLES)
    return sorted(trainings, key=lambda training: order.index(training[0]))


def report_frontier(run: Run) -> Frontier:
    """What was scored on `report`, with its costs: the results, and the candidates that were opened there."""
    contenders = []
    for name, (colour, marker, line) in _LOOKS.items():
        row = run.results[name]
        if row is None or row.value is None:
            continue
        costs: dict[str, float | None] = {"stored": 0, "tokens": 0, "seconds": 0}
        if name == "instruction":
            costs["tokens"] = row.tokens
        elif marker:
            tokens, seconds = run.record.tokens_read(name), run.record.training_seconds(name)
            costs = {"stored": row.parameters, "tokens": tokens, "seconds": seconds}
        value, interval = 100 * row.value, _percent_ends(row.interval)
        text = "the text's own first sentences" if name == "constant" and is_copied(run) else LABELS[name]
        contenders.append(Contender(text, name, colour, marker, value, interval, costs, line))
    for candidate in run.candidates:
        if candidate.report is not None and candidate.status != "winner":
            contenders.append(_make_contender(run, candidate, candidate.report))
    return Frontier(contenders, f"{_write_ascii(metric_label(run.metric))} on report (%)", digits=1)


def _make_contender(run: Run, candidate: Candidate, report: float) -> Contender:
    """Candidates are trained side by side: none has seconds of its own."""
    costs = {"stored": candidate.parameters, "tokens": _count_tokens(run, candidate), "seconds": None}
    name, interval = _write_ascii(candidate.id), _percent_ends(candidate.interval)
    return Contender(name, name, "front", "circle", 100 * report, interval, costs, size=4.7, group=_FRONT)


def _count_tokens(run: Run, candidate: Candidate) -> int:
    """Of a candidate, what the model reads before every input."""
    if run.record.removal == "zero" and run.record.prompt is not None:
        return run.record.prompt.P
    return candidate.tokens_kept


def _percent_ends(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if interval is None else (100 * interval[0], 100 * interval[1])


def frontier_chart(run: Run) -> Chart | None:
    """All trained candidates on `select`, then what was scored on `report`, against its costs; None without either."""
    frontier, select = report_frontier(run), _select_panel(run)
    panels = [*([] if select is None else [select]), *frontier.panels()]
    if not panels:
        return None
    return Chart(tuple(panels), 0.9 + 2.05 * len(panels), _frontier_numbers(run, frontier), stacked=True)


def _select_panel(run: Run) -> Facet | None:
    """Every trained candidate's score on `select` against its size, with those of the whole prompts."""
    trained = [c for c in run.candidates if c.select is not None and c.parameters > 0]  # 0 has no place on a log axis
    if not trained:
        return None
    metric, unit, scale = _score_axis(run)

    def points(name: str, colour: str, shown: list[Candidate], **look: Any) -> Series:
        x, y = tuple(float(c.parameters) for c in shown), tuple(scale * (c.select or 0.0) for c in shown)
        return Series(name, x, y, colour, tuple(_describe_candidate(run, c) for c in shown), **look)

    winner = [c for c in trained if c.status == "winner"]
    front = sorted((c for c in trained if c.pareto), key=lambda c: c.parameters)
    others = [c for c in trained if not c.pareto and c not in winner]
    # The front is a step, not a slope: with room for one candidate and less than for the next, one uses the first.
    series = [
        points("other candidates", "other", others, marker="circle", size=4.7, opacity=0.75),
        points(_FRONT, "front", front, line="step", width=1.3, marker="circle", size=4.7),
        *_whole_prompts(run),
        points(LABELS["winner"], "kept", winner, marker="diamond", size=7.0),
    ]
    axis = find_cost_axis([x for each in series for x in each.x], logarithmic=True)
    y_label, ends, shown = f"{metric} on select{unit}", (axis.low, axis.high), tuple(each for each in series if each.x)
    return Facet("", COSTS["stored"], y_label, ends, shown, logarithmic=True, ticks=find_ticks(axis))


def _whole_prompts(run: Run) -> list[Series]:
    """Tuned prompt and control on `select`; they have one size and often one score, so they are drawn beside it."""
    prompt, series = run.record.prompt, []
    metric, _, scale = _score_axis(run)
    for role, aside in (("tuned", 0.97), ("control", 1.03)):
        level, (colour, marker, _) = _kept_score(run, role), _LOOKS[role]
        if level is not None and prompt is not None:
            hover = (f"{LABELS[role]}\n{metric} on select {formatting.number(scale * level)}",)
            place = (aside * prompt.P * prompt.H,)
            series.append(Series(LABELS[role], place, (scale * level,), colour, hover, marker=marker, size=7.0))
    return series


def _describe_candidate(run: Run, candidate: Candidate) -> str:
    """What is said of a candidate where it is pointed at."""
    cells, prompt = candidate_cells(run, candidate), run.record.prompt
    share = "" if prompt is None else f", {100 * (1 - candidate.parameters / (prompt.P * prompt.H)):.1f}% pruned"
    lines = [
        "{id} (winner)" if candidate.status == "winner" else "{id}",
        "select {select}, report {report}",
        "{tokens} tokens, {pieces} pieces",
        "{parameters} parameters{share}",
    ]
    return "\n".join(lines).format(**cells, share=share)


def _frontier_numbers(run: Run, frontier: Frontier) -> Numbers:
    """The frontier's table with the scores on `select`, and with the candidates that were scored there alone."""
    selects: dict[str, str] = {}
    for candidate in run.candidates:
        if candidate.select is not None:
            name = LABELS["winner"] if candidate.status == "winner" else _write_ascii(candidate.id)
            selects[name] = candidate_cells(run, candidate)["select"]
    for role in ("tuned", "control"):
        level = _kept_score(run, role)
        if level is not None:
            text = formatting.number(-level) if run.is_generation else formatting.percent(level)
            selects[LABELS[role]] = text
    opened = frontier.numbers()
    rows = [(row[0], selects.pop(str(row[0]), NOT_APPLICABLE), *row[1:]) for row in opened.rows]
    for candidate in run.smallest_first:
        name = _write_ascii(candidate.id)
        if name in selects:
            sizes = float(candidate.parameters), float(_count_tokens(run, candidate)), NOT_APPLICABLE
            unknown = (NOT_MEASURED,) * 2
            rows.append((name, selects[name], *unknown, *sizes, NOT_APPLICABLE, NOT_APPLICABLE))
    return Numbers(("prompt", run.select_name, *opened.headings[1:]), tuple(rows))


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
    return _write_ascii(metric_label(run.metric)), " (%)", 100.0


def _write_ascii(text: str) -> str:
    """What the figures' font can write of a text."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
