"""What the page's controls choose from: every cell's importance, every candidate's mask and what was measured of it.

Nothing here is computed from neighbouring values: a pair of ratios that wasn't tried has no candidate, and says so.

Axes: C candidates, P prompt tokens, S pieces.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from softprune.report import formatting
from softprune.report.heatmaps import is_signed
from softprune.report.run_reader import Bools, Floats, Run, TicketMask
from softprune.types import Candidate


@dataclass(frozen=True, slots=True)
class Explored:
    """What the heat map and the sliders of a run need.

    Attributes:
        tokens, pieces: P and S.
        token_P, piece_PS: importance of the unpruned prompt; None where not measured.
        winner_PS: of the pieces of the winner's token-pruned prompt.
        chosen: one entry a candidate, the smallest first, as the script reads it.
        select_name: what `select` of an entry is.
        by_size: one slider over tickets by size, since no ratios were tried.
    """

    tokens: int
    pieces: int
    token_P: Floats | None
    piece_PS: Floats | None
    winner_PS: Floats | None
    chosen: tuple[Mapping[str, Any], ...]
    select_name: str
    by_size: bool

    def data(self) -> dict[str, Any]:
        """As the page's script takes it; ratios are percentages in words."""
        return {
            "tokens": self.tokens,
            "pieces": self.pieces,
            "token": self.token_P,
            "piece": self.piece_PS,
            "winnerPiece": self.winner_PS,
            "signed": is_signed(self.token_P, self.piece_PS, self.winner_PS),
            "candidates": self.chosen,
            "selectName": self.select_name,
            "sliders": [] if self.by_size else [self._tried("tokenRatio"), self._tried("pieceRatio")],
        }

    def _tried(self, name: str) -> list[str]:
        return sorted({str(entry[name]) for entry in self.chosen}, key=float)


def explored(run: Run) -> Explored | None:
    """What can be explored of a run; None where neither importance nor a mask says how large the prompt is."""
    shape = _shape(run)
    if not run.prunes or shape is None:
        return None
    scores = run.importance
    token_P, piece_PS, winner_PS = (
        (scores.token_P, scores.piece_PS, scores.winner_piece_PS) if scores else (None, None, None)
    )
    listed = sorted(enumerate(run.candidates), key=lambda pair: (pair[1].parameters, pair[1].id))
    return Explored(
        *shape,
        token_P=token_P if token_P is not None and token_P.shape == shape[:1] else None,
        piece_PS=piece_PS if piece_PS is not None and piece_PS.shape == shape else None,
        winner_PS=winner_PS if winner_PS is not None and winner_PS.shape == shape else None,
        chosen=tuple(_entry(run, at, candidate, shape) for at, candidate in listed),
        select_name="loss on select" if run.is_generation else "select (%)",
        by_size=run.record.search.strategy == "learned",
    )


def _shape(run: Run) -> tuple[int, int] | None:
    """P and S, from the first file that has them."""
    if run.importance is not None and run.importance.piece_PS is not None and run.importance.piece_PS.ndim == 2:
        return (run.importance.piece_PS.shape[0], run.importance.piece_PS.shape[1])
    if run.ticket is not None:
        return (run.ticket.piece_PS.shape[0], run.ticket.piece_PS.shape[1])
    return None


def _entry(run: Run, at: int, candidate: Candidate, shape: tuple[int, int]) -> dict[str, Any]:
    """One candidate with its measurements as the tables write them."""
    select = formatting.number(candidate.select_loss) if run.is_generation else formatting.percent(candidate.select)
    return {
        "id": formatting.printable(candidate.id),
        "tokenRatio": formatting.number(100 * candidate.token_ratio),
        "pieceRatio": formatting.number(100 * candidate.piece_ratio),
        "tokens": formatting.number(candidate.tokens_kept),
        "pieces": formatting.number(candidate.pieces_kept),
        "parameters": formatting.number(candidate.parameters),
        "rankLoss": formatting.number(candidate.rank_loss),
        "select": select,
        "report": formatting.percent(candidate.report),
        "interval": formatting.interval(candidate.interval),
        "winner": candidate.status == "winner",
        "mask": _packed(_mask(run, at, candidate, shape)),
    }


def _mask(run: Run, at: int, candidate: Candidate, shape: tuple[int, int]) -> TicketMask | None:
    """What a candidate keeps; the winner's is in the ticket, even where the run kept no other."""
    if run.masks is not None and run.masks.piece_CPS.shape[1:] == shape:
        return TicketMask(run.masks.token_CP[at], run.masks.piece_CPS[at])
    if candidate.status == "winner" and run.ticket is not None and run.ticket.piece_PS.shape == shape:
        return run.ticket
    return None


def _packed(mask: TicketMask | None) -> dict[str, str] | None:
    return None if mask is None else {"token": _bits(mask.token_P), "piece": _bits(mask.piece_PS)}


def _bits(mask: Bools) -> str:
    """Bits in order, eight a byte from the highest, as base64."""
    return base64.b64encode(np.packbits(mask.ravel()).tobytes()).decode("ascii")


def neighbours(run: Run) -> dict[str, Any] | None:
    """neighbours.json as the page's script takes it; None where the run has none.

    Its format is told in `softprune.interpret.run_neighbours`. What an entry lacks is not measured.
    """
    found = (run.neighbours or {}).get("prompts")
    prompts = {
        formatting.printable(name): [_token(entry) for entry in tokens] for name, tokens in (found or {}).items()
    }
    if not any(prompts.values()):
        return None
    measures = dict.fromkeys(name for tokens in prompts.values() for token in tokens for name in token["end"])
    return {"prompts": prompts, "measures": list(measures)}


def _token(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "token": entry.get("token"),
        "word": formatting.printable(entry.get("word") or ""),
        **{name: formatting.number(entry.get(name)) for name in ("moved", "distance", "cosine")},
        "kept": {
            formatting.printable(name): formatting.NOT_MEASURED if kept is None else "yes" if kept else "no"
            for name, kept in (entry.get("kept") or {}).items()
        },
        **{
            end: {formatting.printable(name): _near(found) for name, found in (entry.get(end) or {}).items()}
            for end in ("start", "end")
        },
    }


def _near(found: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [[formatting.printable(item.get("word")), formatting.number(item.get("value"))] for item in found]
