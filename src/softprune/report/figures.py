"""The figures of a run: what was important, what was kept, what it cost. Every one is drawn from measured numbers only.

`figures_of(run)` tells which figures a run has numbers for; the others come back with the reason instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from softprune.config.criteria import CRITERIA
from softprune.report import curves, heatmaps
from softprune.report.mpl_style import DARK, LIGHT, Draw, as_png, as_svg
from softprune.report.run_reader import Run


@dataclass(frozen=True, slots=True)
class Plan:
    """A figure before it is drawn.

    Attributes:
        name: of its files.
        title: above it.
        caption: what one sees, in a sentence or two.
        draw: None where the numbers weren't measured.
        missing: then, what is missing.
    """

    name: str
    title: str
    caption: str
    draw: Draw | None
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure's bytes: files for papers and slides in light, and both themes for the page."""

    light_png: bytes
    dark_png: bytes
    svg: bytes


def figures_of(run: Run) -> list[Plan]:
    """All figures that a run of this kind could have, in the page's order."""
    if not run.prunes:
        return [_training(run)]
    return [
        _token_importance(run),
        _token_retention(run),
        _piece_importance(run),
        _piece_retention(run),
        _token_histogram(run),
        _piece_histogram(run),
        _compression(run),
        _training(run),
    ]


def render(draw: Draw) -> Drawn:
    """Draw a figure in every form."""
    return Drawn(as_png(draw, LIGHT), as_png(draw, DARK), as_svg(draw, LIGHT))


def _plan(name: str, title: str, caption: str, draw: Draw | None, missing: str) -> Plan:
    return Plan(name, title, caption, draw, "" if draw else missing)


def _token_importance(run: Run) -> Plan:
    scores, ticket = run.importance, run.ticket
    token_P = scores.token_P if scores else None
    kept_P = ticket.token_P if ticket and token_P is not None and len(ticket.token_P) == len(token_P) else None
    method = run.record.importance.method if run.record.importance else "paper"
    meaning = CRITERIA.get(method, CRITERIA["paper"]).meaning
    fate = (
        "Blue tokens are in the winning ticket, hatched ones on a gray band were pruned."
        if kept_P is not None
        else "Which of them were kept is not measured."
    )
    caption = f"Each bar is one prompt token: {meaning}. {fate}"
    draw: Draw | None = None
    if token_P is not None:
        draw = partial(curves.token_bars, token_P, kept_P)
    return _plan("token_importance", "Token importance", caption, draw, "the tokens' importance")


def _token_retention(run: Run) -> Plan:
    ticket = run.ticket
    draw: Draw | None = partial(curves.retention_bars, ticket.piece_PS) if ticket else None
    caption = (
        "How much of each prompt token is left: the bar counts its surviving pieces, its outline all of its pieces. "
        "A cross marks a token that was pruned whole."
    )
    return _plan("token_retention", "Token retention", caption, draw, "the winning ticket")


def _piece_importance(run: Run) -> Plan:
    scores = run.importance
    draw: Draw | None = None
    if scores and scores.piece_PS is not None:
        draw = partial(heatmaps.importance_map, scores.token_P, scores.piece_PS, None)
    caption = (
        "Importance of every token (left column) and piece of the tuned, unpruned prompt, as a share of the largest "
        "in its panel: the further along the colour bar, the more important (the paper's Figure 9)."
    )
    return _plan("piece_importance", "Piece importance before pruning", caption, draw, "the pieces' importance")


def _piece_retention(run: Run) -> Plan:
    scores, ticket = run.importance, run.ticket
    draw: Draw | None = None
    again = scores is not None and scores.winner_piece_PS is not None
    if scores and ticket:
        piece_PS = scores.winner_piece_PS if scores.winner_piece_PS is not None else scores.piece_PS
        if piece_PS is not None and piece_PS.shape == ticket.piece_PS.shape:
            draw = partial(heatmaps.importance_map, scores.token_P, piece_PS, ticket)
    source = "measured again on the token-pruned prompt" if again else "as measured on the unpruned prompt"
    caption = (
        f"What the winning ticket keeps: pruned tokens and pieces are gray, survivors show their importance, {source} "
        "(the paper's Figure 10)."
    )
    return _plan("piece_retention", "Piece retention", caption, draw, "the winning ticket or its importance")


def _token_histogram(run: Run) -> Plan:
    scores = run.importance
    draw: Draw | None = None
    if scores and scores.token_P is not None:
        draw = partial(curves.histogram, scores.token_P, 5, "prompt tokens", "kept")
    caption = "How many tokens are how important, as a share of the most important one (the paper's Figure 6)."
    return _plan("token_histogram", "Distribution of token importance", caption, draw, "the tokens' importance")


def _piece_histogram(run: Run) -> Plan:
    scores = run.importance
    draw: Draw | None = None
    if scores and scores.piece_PS is not None:
        draw = partial(curves.histogram, scores.piece_PS.ravel(), 10, "pieces", "control")
    caption = (
        "How many pieces of the unpruned prompt are how important, as a share of the most important one "
        "(the paper's Figure 7)."
    )
    return _plan("piece_histogram", "Distribution of piece importance", caption, draw, "the pieces' importance")


def _compression(run: Run) -> Plan:
    frontier = curves.frontier_of(run)
    measured = len(frontier.pruned) if frontier else 0
    left = len(run.candidates) - measured
    caption = (
        "Every trained candidate: how much of the prompt it prunes against its score on select, the set that choices "
        "look at. The stepped line is the Pareto front; horizontal lines are the unpruned prompts' levels where known."
    )
    if left:
        caption += (
            f" {left} of {len(run.candidates)} candidates were not trained to the end: not measured, so not shown."
        )
    draw: Draw | None = partial(curves.compression, frontier) if frontier and measured else None
    return _plan("compression", "Score against compression", caption, draw, "candidates with a select score")


def _training(run: Run) -> Plan:
    shown = curves.curves_of(run)
    caption = (
        "Loss and select score at each evaluation, by training step. Retrained prompts start again from the tuned "
        "prompt at step 0."
    )
    if not run.prunes:
        caption = "Loss and select score at each evaluation, by training step."
    draw: Callable[..., object] | None = partial(curves.training, shown) if shown.series else None
    return _plan("training", "Training curves", caption, draw, "the training curves")  # type: ignore[arg-type]
