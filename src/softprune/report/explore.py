"""What the page's controls choose from: every cell's importance, every candidate's mask and what was measured of it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from softprune.report import formatting
from softprune.report.figures import is_signed
from softprune.report.run_reader import Bools, Run
from softprune.report.table import candidate_cells
from softprune.statistics.bootstrap import Floats
from softprune.types import Candidate


def collect_controls(run: Run) -> dict[str, Any] | None:
    """What the heat map and the sliders of a run need, as template and script take it.

    None where nothing is pruned, or neither importance nor a mask says how large the prompt is.
    """
    scores = run.importance
    if scores.piece_PS is not None and scores.piece_PS.ndim == 2:
        tokens, pieces = scores.piece_PS.shape
    elif run.ticket is not None:
        tokens, pieces = run.ticket.piece_PS.shape
    else:
        return None
    if not run.prunes:
        return None

    def check(values: Floats | None, *shape: int) -> Floats | None:
        return values if values is not None and values.shape == shape else None

    token_P, piece_PS = check(scores.token_P, tokens), check(scores.piece_PS, tokens, pieces)
    winner_PS = check(scores.winner_piece_PS, tokens, pieces)
    entries = [_describe_candidate(run, candidate, (tokens, pieces)) for candidate in run.smallest_first]
    by_gates = run.record.search.strategy == "learned"  # no ratios were tried: one slider goes through tickets by size
    sliders = []
    for name in () if by_gates else ("tokenRatio", "pieceRatio"):
        sliders.append(sorted({str(entry[name]) for entry in entries}, key=float))
    return {
        "tokens": tokens,
        "pieces": pieces,
        "token": token_P,
        "piece": piece_PS,
        "winnerPiece": winner_PS,
        "signed": is_signed(token_P, piece_PS, winner_PS),
        "candidates": entries,
        "selectName": run.select_name,
        "sliders": sliders,
    }


def _describe_candidate(run: Run, candidate: Candidate, shape: tuple[int, int]) -> dict[str, Any]:
    """A candidate as the tables write it, with its mask where the run kept it."""
    mask = None
    own = None if run.masks is None else run.masks[run.candidates.index(candidate)]
    if own is not None and own.piece_PS.shape == shape:
        mask = own
    elif candidate.status == "winner" and run.ticket is not None and run.ticket.piece_PS.shape == shape:
        mask = run.ticket
    return {
        **candidate_cells(run, candidate),
        "tokenRatio": formatting.number(100 * candidate.token_ratio),
        "pieceRatio": formatting.number(100 * candidate.piece_ratio),
        "winner": candidate.status == "winner",
        "mask": None if mask is None else {"token": _pack_bits(mask.token_P), "piece": _pack_bits(mask.piece_PS)},
    }


def _pack_bits(mask: Bools) -> str:
    """Bits in order, eight a byte from the highest, as base64."""
    return base64.b64encode(np.packbits(mask.ravel()).tobytes()).decode("ascii")


def collect_neighbours(run: Run) -> dict[str, Any] | None:
    """neighbours.json as the page's script takes it; None where the run has none.

    Its format is described in `softprune.interpret.run_neighbours`. What an entry lacks is not measured.
    """
    prompts: dict[str, list[dict[str, Any]]] = {}
    for name, entries in ((run.neighbours or {}).get("prompts") or {}).items():
        prompts[formatting.printable(name)] = [_describe_token(entry) for entry in entries]
    if not any(prompts.values()):
        return None
    measures: dict[str, None] = {}  # in the order in which they come
    for tokens in prompts.values():
        for token in tokens:
            measures.update(dict.fromkeys(token["end"]))
    return {"prompts": prompts, "measures": list(measures)}


def _describe_token(entry: Mapping[str, Any]) -> dict[str, Any]:
    token: dict[str, Any] = {"token": entry.get("token"), "word": formatting.printable(entry.get("word") or "")}
    for name in ("moved", "distance", "cosine"):
        token[name] = formatting.number(entry.get(name))
    texts = {None: formatting.NOT_MEASURED, True: "yes", False: "no"}
    token["kept"] = {formatting.printable(name): texts[kept] for name, kept in (entry.get("kept") or {}).items()}
    for end in ("start", "end"):
        token[end] = {}
        for name, words in (entry.get(end) or {}).items():
            near = [[formatting.printable(each.get("word")), formatting.number(each.get("value"))] for each in words]
            token[end][formatting.printable(name)] = near
    return token
