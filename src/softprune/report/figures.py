"""The figures of a run: what was important, what was kept, what it cost; all of measured numbers only."""

from __future__ import annotations

from functools import partial

from softprune.config.criteria import CRITERIA
from softprune.report import importance_figures
from softprune.report.charts import draw_chart
from softprune.report.mpl_style import Draw
from softprune.report.pictures import Plan
from softprune.report.run_reader import Run
from softprune.report.training_charts import compression_chart, training_chart


def plan_figures(run: Run) -> list[Plan]:
    """All figures that a run of this kind could have, in the page's order; `draw` is None where numbers are missing."""
    if not run.prunes:
        return [_plan_training(run)]
    return [*_plan_tokens(run), *_plan_maps(run), *_plan_histograms(run), _plan_compression(run), _plan_training(run)]


def _plan_tokens(run: Run) -> list[Plan]:
    scores, ticket = run.importance, run.ticket
    token_P = scores.token_P if scores else None
    kept_P = ticket.token_P if ticket and token_P is not None and len(ticket.token_P) == len(token_P) else None
    method = run.record.importance.method if run.record.importance else "paper"
    meaning = CRITERIA.get(method, CRITERIA["paper"]).meaning
    fate = "Which of them were kept is not measured."
    if kept_P is not None:
        fate = "Blue tokens are in the winning ticket, hatched ones on a gray band were pruned."
    draw: Draw | None = None
    if token_P is not None:
        draw = partial(importance_figures.token_bars, token_P, kept_P)
    caption = f"Each bar is one prompt token: {meaning}. {fate}"
    importance = Plan("token_importance", "Token importance", caption, draw, "the tokens' importance")
    caption = (
        "How much of each prompt token is left: the bar counts its surviving pieces, its outline all of its pieces. "
        "A cross marks a token that was pruned whole."
    )
    draw = partial(importance_figures.retention_bars, ticket.piece_PS) if ticket else None
    return [importance, Plan("token_retention", "Token retention", caption, draw, "the winning ticket")]


def _plan_maps(run: Run) -> list[Plan]:
    scores, ticket = run.importance, run.ticket
    before: Draw | None = None
    after: Draw | None = None
    source = "as measured on the unpruned prompt"
    if scores and scores.piece_PS is not None:
        before = partial(importance_figures.importance_map, scores.token_P, scores.piece_PS, None)
    piece_PS = scores.piece_PS if scores else None
    if scores and scores.winner_piece_PS is not None:
        piece_PS = scores.winner_piece_PS
        source = "measured again on the token-pruned prompt"
    if scores and ticket and piece_PS is not None and piece_PS.shape == ticket.piece_PS.shape:
        after = partial(importance_figures.importance_map, scores.token_P, piece_PS, ticket)
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
    scores = run.importance
    tokens: Draw | None = None
    pieces: Draw | None = None
    if scores and scores.token_P is not None:
        tokens = partial(importance_figures.histogram, scores.token_P, 5, "prompt tokens", "kept")
    if scores and scores.piece_PS is not None:
        pieces = partial(importance_figures.histogram, scores.piece_PS.ravel(), 10, "pieces", "control")
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
    trained = sum(candidate.select is not None for candidate in run.candidates) if run.record.prompt else 0
    missing = len(run.candidates) - trained
    caption = (
        "Every trained candidate: how much of the prompt it prunes against its score on select, the set that choices "
        "look at. The stepped line is the Pareto front; horizontal lines are the unpruned prompts' levels where known."
    )
    if missing:
        caption += f" {missing} of {len(run.candidates)} candidates were not trained to the end: not measured, so not "
        caption += "shown."
    draw = partial(draw_chart, chart) if chart else None
    title = "Score against compression"
    return Plan("compression", title, caption, draw, "candidates with a select score", chart)


def _plan_training(run: Run) -> Plan:
    chart = training_chart(run)
    caption = "Loss and select score at each evaluation, by training step."
    if run.prunes:
        caption += " Retrained prompts start again from the tuned prompt at step 0."
    draw = partial(draw_chart, chart) if chart else None
    return Plan("training", "Training curves", caption, draw, "the training curves", chart)
