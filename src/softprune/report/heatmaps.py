"""Importance as a map of tokens by pieces: the paper's Figures 9 and 10."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from softprune.report.mpl_style import SMALL, Theme, dress, new_figure, sparse
from softprune.report.run_reader import Bools, Floats, TicketMask


def relative(values: Floats) -> Floats:
    """Values as shares of the one furthest from zero; all zero where that is zero."""
    top = float(np.abs(values).max(initial=0.0))
    return values / top if top > 0 else np.zeros_like(values)


def is_signed(*values: Floats | None) -> bool:
    """Whether some importance is below zero, as leave-one-out's can be."""
    return any(found is not None and bool((found < 0).any()) for found in values)


def importance_map(token_P: Floats | None, piece_PS: Floats, ticket: TicketMask | None, theme: Theme) -> Figure:
    """Tokens in a column, their pieces beside them.

    Args:
        token_P: importance of the tokens; None draws the pieces alone.
        piece_PS: of the pieces.
        ticket: where given, what it pruned is gray and shares are of the largest survivor.
        theme: colours.
    """
    count, pieces = piece_PS.shape
    signed = is_signed(token_P, piece_PS)
    figure = new_figure(theme, height=1.6 + min(max(count * 0.23, 1.6), 8.4))
    if token_P is None:
        (right,) = [figure.subplots()]
    else:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1, max(pieces, 4)])
        _cells(left, token_P[:, None], ticket.token_P[:, None] if ticket else None, theme, signed)
        dress(left, theme, "token", "prompt token", grid=None)
        left.set_xticks([])
    _cells(right, piece_PS, ticket.piece_PS if ticket else None, theme, signed)
    dress(right, theme, "piece of the token", "prompt token" if token_P is None else "", grid=None)
    _ticks(right, count, pieces)
    if token_P is not None:
        right.tick_params(axis="y", labelleft=False, length=0)
    _key(figure, theme, ticket is not None, signed)
    return figure


def _cells(axes: Axes, values: Floats, kept: Bools | None, theme: Theme, signed: bool) -> None:
    shown = np.where(kept, values, 0.0) if kept is not None else values
    masked = np.ma.masked_array(relative(shown), mask=False if kept is None else ~kept)
    colours = (theme.signed_scale if signed else theme.scale).with_extremes(bad=theme.pruned)
    rows, columns = values.shape
    axes.pcolormesh(
        np.arange(columns + 1) - 0.5,
        np.arange(rows + 1) - 0.5,
        masked,
        cmap=colours,
        vmin=-1 if signed else 0,
        vmax=1,
        edgecolors=theme.paper,
        linewidth=0.8 if rows <= 40 else 0.25,
    )
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)


def _ticks(axes: Axes, count: int, pieces: int) -> None:
    rows, columns = sparse(count, 24), sparse(pieces, 20)
    axes.set_yticks(rows, [f"T{row}" for row in rows], fontsize=SMALL)
    axes.set_xticks(columns, [f"P{column}" for column in columns], fontsize=SMALL)


def _key(figure: Figure, theme: Theme, pruned: bool, signed: bool) -> None:
    scale = ScalarMappable(Normalize(-1 if signed else 0, 1), theme.signed_scale if signed else theme.scale)
    bar = figure.colorbar(scale, ax=figure.axes, fraction=0.03, pad=0.015, aspect=30)
    bar.set_label("importance (1 = largest shown)", color=theme.ink)
    bar.ax.tick_params(colors=theme.ink, length=3)
    bar.outline.set_edgecolor(theme.ink)
    if pruned:
        figure.legend(
            handles=[Patch(facecolor=theme.pruned, label="pruned")],
            loc="outside lower center",
            frameon=False,
            labelcolor=theme.ink,
        )
