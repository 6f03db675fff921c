"""The figures of a run: what was important, what was kept, what it cost; all of measured numbers only.

Importance of tokens and pieces is drawn here, as bars, histograms and the paper's maps; what is made of points and
lines is in `charts`.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from softprune.config.criteria import CRITERIA
from softprune.report.charts import frontier_chart, report_frontier, training_chart
from softprune.report.mpl_style import SMALL, Draw, Plan, Theme, dress, legend_below, new_figure, sparse
from softprune.report.plotting import Chart, draw_chart
from softprune.report.run_reader import Bools, Run, TicketMask
from softprune.statistics.bootstrap import Floats

# By the name of each figure that a run which prunes could have, in the page's order: title, caption, and the numbers
# that are missing where it can't be drawn.
_WORDS = {
    "token_importance": (
        "Token importance",
        "Each bar is one prompt token: {meaning}. {fate}",
        "the tokens' importance",
    ),
    "token_retention": (
        "Token retention",
        "How much of each prompt token is left: the bar counts its surviving pieces, its outline all of its pieces. "
        "A cross marks a token that was pruned whole.",
        "the winning ticket",
    ),
    "piece_importance": (
        "Piece importance before pruning",
        "Importance of every token (left column) and piece of the tuned, unpruned prompt, as a share of the largest "
        "in its panel: the further along the colour bar, the more important (the paper's Figure 9).",
        "the pieces' importance",
    ),
    "piece_retention": (
        "Piece retention",
        "What the winning ticket keeps: pruned tokens and pieces are gray, survivors show their importance, {source} "
        "(the paper's Figure 10).",
        "the winning ticket or its importance",
    ),
    "token_histogram": (
        "Distribution of token importance",
        "How many tokens are how important, as a share of the most important one (the paper's Figure 6).",
        "the tokens' importance",
    ),
    "piece_histogram": (
        "Distribution of piece importance",
        "How many pieces of the unpruned prompt are how important, as a share of the most important one "
        "(the paper's Figure 7).",
        "the pieces' importance",
    ),
}


def plan_figures(run: Run) -> list[Plan]:
    """All figures that a run of this kind could have, in the page's order; `draw` is None where numbers are missing."""
    caption = "Loss and select score at each evaluation, by training step."
    if run.prunes:
        caption += " Retrained prompts start again from the tuned prompt at step 0."
    curves = _plan_chart("training", "Training curves", caption, "the training curves", training_chart(run))
    if not run.prunes:
        return [curves]
    scores, ticket, measured = run.importance, run.ticket, run.record.importance
    token_P, piece_PS = scores.token_P, scores.piece_PS
    draws: dict[str, Draw] = {}
    fate = "Which of them were kept is not measured."
    if token_P is not None:
        kept_P = None
        if ticket is not None and len(ticket.token_P) == len(token_P):
            kept_P = ticket.token_P
            fate = "Blue tokens are in the winning ticket, hatched ones on a gray band were pruned."
        draws["token_importance"] = partial(token_bars, token_P, kept_P)
        draws["token_histogram"] = partial(histogram, token_P, 5, "prompt tokens", "kept")
    if piece_PS is not None:
        draws["piece_importance"] = partial(importance_map, token_P, piece_PS, None)
        draws["piece_histogram"] = partial(histogram, piece_PS, 10, "pieces", "control")
    source = "as measured on the unpruned prompt"
    if scores.winner_piece_PS is not None:
        piece_PS, source = scores.winner_piece_PS, "measured again on the token-pruned prompt"
    if ticket is not None:
        draws["token_retention"] = partial(retention_bars, ticket.piece_PS)
        if piece_PS is not None and piece_PS.shape == ticket.piece_PS.shape:
            draws["piece_retention"] = partial(importance_map, token_P, piece_PS, ticket)
    meaning = CRITERIA.get(measured.method if measured else "paper", CRITERIA["paper"]).meaning
    plans = []
    for name, (title, text, missing) in _WORDS.items():
        shown = text.format(meaning=meaning, fate=fate, source=source)
        plans.append(Plan(name, title, shown, draws.get(name), missing))
    return [*plans, _plan_frontier(run), curves]


def _plan_frontier(run: Run) -> Plan:
    caption, frontier = "", report_frontier(run)
    count, trained = len(run.candidates), sum(candidate.select is not None for candidate in run.candidates)
    if trained:
        caption = (
            "The panel of select, the set that choices look at, shows every trained candidate, and the Pareto front "
            "among them as a stepped line. "
        )
        if trained < count:
            caption += (
                f"{count - trained} of {count} candidates were not trained to the end: not measured, so not shown. "
            )
    if frontier.panels():
        caption += (
            "The panels of report show what was scored on that other set once every choice was made. Their whiskers "
            "are 95% intervals over its examples, and don't cover seeds. Seconds of the winning ticket are those of "
            f"the whole search. {frontier.caption()}"
        )
    missing = "scores on select and on report"
    return _plan_chart("frontier", "Score against cost", caption, missing, frontier_chart(run))


def _plan_chart(name: str, title: str, caption: str, missing: str, chart: Chart | None) -> Plan:
    draw = None if chart is None else partial(draw_chart, chart)
    return Plan(name, title, caption, draw, missing, chart)


def scale_to_largest(values: Floats) -> Floats:
    """Values as shares of the one furthest from zero; all zero where that is zero."""
    top = float(np.abs(values).max(initial=0.0))
    return values / top if top > 0 else np.zeros_like(values)


def is_signed(*values: Floats | None) -> bool:
    """Whether some importance is below zero, as leave-one-out's can be."""
    return any(each is not None and bool((each < 0).any()) for each in values)


def token_bars(token_P: Floats, kept_P: Bools | None, theme: Theme) -> Figure:
    """Importance of each token; what was pruned is hatched, on a band."""
    figure = new_figure(theme, height=2.9)
    axes = figure.subplots()
    places = np.arange(len(token_P))
    kept = np.ones(len(token_P), dtype=bool) if kept_P is None else kept_P
    _label_tokens(axes, len(token_P), theme, "importance")
    if (~kept).any():
        # A band behind the bar: a pruned token's own bar is often too low to see.
        for place in places[~kept]:
            axes.axvspan(place - 0.5, place + 0.5, color=theme.faint, linewidth=0, zorder=0.5)
        look = {"color": theme.pruned, "edgecolor": theme.paper, "linewidth": 0, "hatch": "////"}
        axes.bar(places[~kept], token_P[~kept], width=0.8, label="pruned", **look)  # type: ignore[arg-type]
    axes.bar(places[kept], token_P[kept], color=theme.kept, width=0.8, label="kept")
    if kept_P is not None:
        legend_below(figure, axes, theme)
    return figure


def retention_bars(piece_PS: Bools, theme: Theme) -> Figure:
    """Surviving pieces of each token."""
    count, pieces = piece_PS.shape
    left_P = piece_PS.sum(axis=1)
    figure = new_figure(theme, height=2.9)
    axes = figure.subplots()
    places = np.arange(count)
    edge, cross = (0.8, 30) if count <= 40 else (0.3, 9)  # long prompts have narrow bars
    axes.bar(places, pieces, width=0.8, color="none", edgecolor=theme.pruned, linewidth=edge, label="all pieces")
    axes.bar(places, left_P, width=0.8, color=theme.kept, label="kept pieces")
    pruned = places[left_P == 0]
    axes.scatter(
        pruned, np.full(len(pruned), pieces * 0.06), marker="x", s=cross, color=theme.control, label="pruned token"
    )
    _label_tokens(axes, count, theme, "pieces")
    axes.set_ylim(0, pieces * 1.04)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    legend_below(figure, axes, theme)
    return figure


def _label_tokens(axes: Axes, count: int, theme: Theme, y_label: str) -> None:
    ticks = sparse(count)
    axes.set_xticks(ticks, [f"T{place}" for place in ticks], fontsize=SMALL)
    axes.set_xlim(-0.7, count - 0.3)
    dress(axes, theme, "prompt token", y_label)


def histogram(values: Floats, bins: int, things: str, colour: str, theme: Theme) -> Figure:
    """How many shares of the largest lie in each part of 0 to 1, or of -1 to 1 where some are negative."""
    signed = is_signed(values)
    parts, low = (10, -1.0) if signed else (bins, 0.0)
    counts, _ = np.histogram(scale_to_largest(values).ravel(), bins=parts, range=(low, 1.0))
    figure = new_figure(theme, height=2.9)
    axes = figure.subplots()
    bars = axes.bar(range(parts), counts, width=0.86, color=getattr(theme, colour))
    axes.bar_label(bars, labels=[str(count) for count in counts], color=theme.ink, padding=2)
    axes.set_ylim(0, max(int(counts.max()), 1) * 1.14)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    edges = [round(low + i * (1.0 - low) / parts, 1) + 0.0 for i in range(parts + 1)]  # + 0.0: no "-0.0"
    between = "\nto " if signed else "–"  # two signs beside a dash would be hard to read
    names = [f"{start:.1f}{between}{end:.1f}" for start, end in pairwise(edges)]
    axes.set_xticks(range(parts), names, fontsize=SMALL)
    dress(axes, theme, "importance (1 = largest)", f"number of {things}")
    return figure


def importance_map(token_P: Floats | None, piece_PS: Floats, ticket: TicketMask | None, theme: Theme) -> Figure:
    """Tokens in a column, if their importance is known, and their pieces beside them: the paper's Figures 9 and 10.

    What a ticket pruned is gray, and shares are of its largest survivor.
    """
    count, pieces = piece_PS.shape
    colours = ScalarMappable(Normalize(0, 1), theme.scale)
    if is_signed(token_P, piece_PS):
        colours = ScalarMappable(Normalize(-1, 1), theme.signed_scale)
    figure = new_figure(theme, height=1.6 + min(max(count * 0.23, 1.6), 8.4))  # a row is 0.23 inches high
    if token_P is None:
        right = figure.subplots()
    else:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1, max(pieces, 4)])
        _draw_cells(left, token_P[:, None], ticket.token_P[:, None] if ticket else None, colours, theme)
        dress(left, theme, "token", "prompt token", grid=None)
        left.set_xticks([])
    _draw_cells(right, piece_PS, ticket.piece_PS if ticket else None, colours, theme)
    dress(right, theme, "piece of the token", "prompt token" if token_P is None else "", grid=None)
    rows, columns = sparse(count, 24), sparse(pieces, 20)
    right.set_yticks(rows, [f"T{row}" for row in rows], fontsize=SMALL)
    right.set_xticks(columns, [f"P{column}" for column in columns], fontsize=SMALL)
    if token_P is not None:
        right.tick_params(axis="y", labelleft=False, length=0)
    bar = figure.colorbar(colours, ax=figure.axes, fraction=0.03, pad=0.015, aspect=30)
    bar.set_label("importance (1 = largest shown)", color=theme.ink)
    bar.ax.tick_params(colors=theme.ink, length=3)
    bar.outline.set_edgecolor(theme.ink)
    if ticket is not None:
        pruned = [Patch(facecolor=theme.pruned, label="pruned")]
        figure.legend(handles=pruned, loc="outside lower center", frameon=False, labelcolor=theme.ink)
    return figure


def _draw_cells(axes: Axes, values: Floats, kept: Bools | None, colours: ScalarMappable, theme: Theme) -> None:
    hidden = np.zeros(values.shape, dtype=bool) if kept is None else ~kept
    shown = np.ma.masked_array(scale_to_largest(np.where(hidden, 0.0, values)), mask=hidden)
    rows, columns = values.shape
    low, high = colours.get_clim()
    axes.pcolormesh(
        np.arange(columns + 1) - 0.5,
        np.arange(rows + 1) - 0.5,
        shown,
        cmap=colours.get_cmap().with_extremes(bad=theme.pruned),
        vmin=low,
        vmax=high,
        edgecolors=theme.paper,
        linewidth=0.8 if rows <= 40 else 0.25,
    )
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)  # the first token on top
