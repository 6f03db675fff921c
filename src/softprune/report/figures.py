"""The figures of a run: what was important, what was kept, what it cost; all of measured numbers only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from matplotlib.figure import Figure

from softprune.config.criteria import CRITERIA
from softprune.report.charts import draw_chart
from softprune.report.importance_figures import histogram, importance_map, retention_bars, token_bars
from softprune.report.mpl_style import Draw
from softprune.report.pictures import Plan
from softprune.report.run_reader import Run
from softprune.report.training_charts import compression_chart, training_chart


def plan_figures(run: Run) -> list[Plan]:
    """All figures that a run of this kind could have, in the page's order; `draw` is None where numbers are missing."""
    if not run.prunes:
        return [_plan_training(run)]
    return [*_plan_tokens(run), *_plan_maps(run), *_plan_histograms(run), _plan_compression(run), _plan_training(run)]


def _draw_known(draw: Callable[..., Figure], numbers: object, *more: object) -> Draw | None:
    """A drawing of these numbers; None where they weren't measured."""
    return None if numbers is None else partial(draw, numbers, *more)


def _plan_tokens(run: Run) -> list[Plan]:
    token_P, ticket, measured = run.importance.token_P, run.ticket, run.record.importance
    kept_P = None
    fate = "Which of them were kept is not measured."
    if ticket is not None and token_P is not None and len(ticket.token_P) == len(token_P):
        kept_P = ticket.token_P
        fate = "Blue tokens are in the winning ticket, hatched ones on a gray band were pruned."
    meaning = CRITERIA.get(measured.method if measured else "paper", CRITERIA["paper"]).meaning
    importance_caption = f"Each bar is one prompt token: {meaning}. {fate}"
    importance = _draw_known(token_bars, token_P, kept_P)
    retention_caption = (
        "How much of each prompt token is left: the bar counts its surviving pieces, its outline all of its pieces. "
        "A cross marks a token that was pruned whole."
    )
    retention = _draw_known(retention_bars, ticket.piece_PS if ticket else None)
    return [
        Plan("token_importance", "Token importance", importance_caption, importance, "the tokens' importance"),
        Plan("token_retention", "Token retention", retention_caption, retention, "the winning ticket"),
    ]


def _plan_maps(run: Run) -> list[Plan]:
    token_P, piece_PS, ticket = run.importance.token_P, run.importance.piece_PS, run.ticket
    before = None if piece_PS is None else partial(importance_map, token_P, piece_PS, None)
    source = "as measured on the unpruned prompt"
    if run.importance.winner_piece_PS is not None:
        piece_PS = run.importance.winner_piece_PS
        source = "measured again on the token-pruned prompt"
    after = None
    if ticket is not None and piece_PS is not None and piece_PS.shape == ticket.piece_PS.shape:
        after = partial(importance_map, token_P, piece_PS, ticket)
    before_caption = (
        "Importance of every token (left column) and piece of the tuned, unpruned prompt, as a share of the largest "
        "in its panel: the further along the colour bar, the more important (the paper's Figure 9)."
    )
    after_caption = (
        f"What the winning ticket keeps: pruned tokens and pieces are gray, survivors show their importance, {source} "
        "(the paper's Figure 10)."
    )
    title = "Piece importance before pruning"
    return [
        Plan("piece_importance", title, before_caption, before, "the pieces' importance"),
        Plan("piece_retention", "Piece retention", after_caption, after, "the winning ticket or its importance"),
    ]


def _plan_histograms(run: Run) -> list[Plan]:
    token_P, piece_PS = run.importance.token_P, run.importance.piece_PS
    tokens = _draw_known(histogram, token_P, 5, "prompt tokens", "kept")
    pieces = _draw_known(histogram, piece_PS, 10, "pieces", "control")
    token_caption = "How many tokens are how important, as a share of the most important one (the paper's Figure 6)."
    piece_caption = (
        "How many pieces of the unpruned prompt are how important, as a share of the most important one "
        "(the paper's Figure 7)."
    )
    title = "Distribution of {} importance"
    return [
        Plan("token_histogram", title.format("token"), token_caption, tokens, "the tokens' importance"),
        Plan("piece_histogram", title.format("piece"), piece_caption, pieces, "the pieces' importance"),
    ]


def _plan_compression(run: Run) -> Plan:
    chart = compression_chart(run)
    count, trained = len(run.candidates), 0
    if run.record.prompt is not None:  # else nobody knows how much a candidate prunes
        trained = sum(candidate.select is not None for candidate in run.candidates)
    caption = (
        "Every trained candidate: how much of the prompt it prunes against its score on select, the set that choices "
        "look at. The stepped line is the Pareto front; horizontal lines are the unpruned prompts' levels where known."
    )
    if trained < count:
        caption += f" {count - trained} of {count} candidates were not trained to the end: not measured, so not shown."
    title, missing = "Score against compression", "candidates with a select score"
    return Plan("compression", title, caption, _draw_known(draw_chart, chart), missing, chart)


def _plan_training(run: Run) -> Plan:
    chart = training_chart(run)
    caption = "Loss and select score at each evaluation, by training step."
    if run.prunes:
        caption += " Retrained prompts start again from the tuned prompt at step 0."
    return Plan("training", "Training curves", caption, _draw_known(draw_chart, chart), "the training curves", chart)
