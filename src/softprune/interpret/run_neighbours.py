"""What the tokens of a run's prompts are near to: `neighbours.json` of its folder.

schema        1
k             neighbours of each token
vocabulary    how many items count; special tokens and placeholders don't
scale         root mean square of their embeddings' norms: the unit of `moved`
anisotropy    mean cosine of random pairs of them: `raw`, `centred`, `pairs`
prompts       `tuned`, and of XPrompt `winner`: per surviving token
                  token      its place in the unpruned prompt, from 0
                  word       what it started as, "" where that was nothing readable
                  distance   Euclidean, from start to end
                  moved      the same in units of `scale`
                  cosine     of start and end
                  kept       by measure, whether its nearest item is still that of its start; null without one
                  start, end by measure, its neighbours: `id`, `word`, `value` (a cosine or a distance)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from softprune.errors import SoftpruneError
from softprune.interpret.displacement import movement, norm_rms
from softprune.interpret.neighbours import MEASURES, Measure, anisotropy, nearest, table_mean
from softprune.interpret.vocabulary import Vocabulary
from softprune.models.base import ROWS_AT_ONCE, Backbone
from softprune.prompts.prompt_io import load_vectors
from softprune.runs.worker_store import Store
from softprune.types import PromptState

NAME = "neighbours.json"
INITIAL = "prompts/initial.safetensors"
SCHEMA = 1
K = 8


_Near = dict[Measure, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Way:
    """Where a prompt started and where it ended.

    Attributes:
        start_PH, end_PH: `[P, H]`.
        words: what each token started as, as the vocabulary writes it; none where nobody knows.
        places: of the tokens in the unpruned prompt; None for the whole of it.
    """

    start_PH: torch.Tensor
    end_PH: torch.Tensor
    words: Sequence[str] = ()
    places: Sequence[int] | None = None


class Surroundings:
    """A backbone's vocabulary, read once for all the prompts that are held against it.

    Args:
        backbone: the frozen model.

    Attributes:
        table_VH: its input embeddings as it reads them, in its dtype, on the CPU.
        vocabulary: its items.
        scale: root mean square of the norms of those that count.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.table_VH = embedding_table(backbone)
        self.vocabulary = Vocabulary(backbone.tokenizer, backbone.vocabulary)
        self.mean_H = table_mean(self.table_VH, self.vocabulary.pool)
        self.scale = norm_rms(self.table_VH[list(self.vocabulary.pool)])

    def document(self, ways: Mapping[str, Way], k: int = K) -> dict[str, Any]:
        """What neighbours.json holds of some prompts by name, as this file's text has it.

        Args:
            ways: each prompt's.
            k: neighbours of each token.

        Raises:
            SoftpruneError: for a start and an end of different shapes, or numbers that are none.
        """
        # All at once: the table is read once a measure.
        every_PH = torch.cat([vectors for way in ways.values() for vectors in (way.start_PH, way.end_PH)])
        near = {measure: self._near(every_PH, k, measure) for measure in MEASURES}
        rows = iter([{measure: near[measure][p] for measure in MEASURES} for p in range(len(every_PH))])
        prompts = {}
        for name, way in ways.items():
            start, end = (list(islice(rows, len(vectors))) for vectors in (way.start_PH, way.end_PH))
            prompts[name] = self._tokens(way, start, end)
        spread = asdict(anisotropy(self.table_VH, self.vocabulary.pool, mean_H=self.mean_H))
        return {
            "schema": SCHEMA,
            "k": k,
            "vocabulary": len(self.vocabulary.pool),
            "scale": _short(self.scale),
            "anisotropy": {key: _short(value) for key, value in spread.items()},
            "prompts": prompts,
        }

    def _tokens(self, way: Way, start: Sequence[_Near], end: Sequence[_Near]) -> list[dict[str, Any]]:
        moved = movement(way.start_PH, way.end_PH, self.scale)
        places = range(len(way.start_PH)) if way.places is None else way.places
        return [
            {
                "token": int(place),
                "word": self.vocabulary.shown_token(way.words[p]) if way.words else "",
                "distance": _short(moved.distance_P[p]),
                "moved": _short(moved.relative_P[p]),
                "cosine": _short(moved.cosine_P[p]),
                "kept": {measure: _kept(start[p][measure], end[p][measure]) for measure in MEASURES},
                "start": start[p],
                "end": end[p],
            }
            for p, place in enumerate(places)
        ]

    def _near(self, prompt_PH: torch.Tensor, k: int, measure: str) -> list[list[dict[str, Any]]]:
        found = nearest(prompt_PH, self.table_VH, k, measure, self.vocabulary.pool, mean_H=self.mean_H)
        return [
            [
                {"id": i, "word": self.vocabulary.shown(i), "value": _short(value)}
                for i, value in zip(ids, values, strict=True)
                if i >= 0
            ]
            for ids, values in zip(found.ids_PK.tolist(), found.values_PK.tolist(), strict=True)
        ]


def embedding_table(backbone: Backbone) -> torch.Tensor:
    """Input embeddings as the model reads them, `[V, H]`, in its own dtype on the CPU; see `Backbone.lookup`."""
    parts = []
    with torch.no_grad():
        for start in range(0, backbone.vocabulary, ROWS_AT_ONCE):
            ids = torch.arange(start, min(start + ROWS_AT_ONCE, backbone.vocabulary), device=backbone.device)
            parts.append(backbone.lookup(ids).cpu())
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def prompt_neighbours(
    start_PH: torch.Tensor, end_PH: torch.Tensor, backbone: Backbone, k: int = K, words: Sequence[str] = ()
) -> dict[str, Any]:
    """The document of one prompt alone, named `tuned`; see `Way` and `Surroundings.document`."""
    return Surroundings(backbone).document({"tuned": Way(start_PH, end_PH, words)}, k)


def write_neighbours(
    run: Store, backbone: Backbone, tuned: PromptState, winner: PromptState | None, k: int = K
) -> None:
    """Writes neighbours.json; of several processes, the first one does.

    Args:
        run: the folder, which holds what the prompt started as.
        backbone: the run's.
        tuned: the prompt.
        winner: the ticket, where the run has one.
        k: neighbours of each token.
    """
    if run.processes.rank:
        return
    words, start_PH = run.record.initial_words, load_vectors(run.path / INITIAL)
    run.write_json(NAME, run_document(Surroundings(backbone), words, start_PH, tuned.vectors_PH, winner, k))


def read_neighbours(run: Path) -> dict[str, Any] | None:
    """What a run's neighbours.json holds; None where the run has none, as one from before there were any.

    Raises:
        SoftpruneError: when it can't be read.
    """
    path = run / NAME
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = isinstance(found, dict) and found.get("schema") == SCHEMA and isinstance(found.get("prompts"), dict)
    except (OSError, ValueError, RecursionError) as error:
        raise SoftpruneError(f"a {NAME} as softprune writes it", f"{path}: {error}", "delete it") from error
    if not known:
        raise SoftpruneError(f"a {NAME} as softprune writes it", f"{path}: another file", "delete it")
    return dict(found)


def run_document(
    around: Surroundings,
    words: Sequence[str],
    start_PH: torch.Tensor,
    tuned_PH: torch.Tensor,
    winner: PromptState | None,
    k: int,
) -> dict[str, Any]:
    """What neighbours.json of a run holds.

    Args:
        around: its backbone's vocabulary.
        words: what each token started as; see run.json.
        start_PH, tuned_PH: its prompt before and after tuning, `[P, H]`.
        winner: the ticket, where the run has one.
        k: neighbours of each token.
    """
    ways = {"tuned": Way(start_PH, tuned_PH, words)}
    if winner is not None:
        kept = winner.mask.token_P.nonzero()[:, 0].tolist()
        left = [words[p] for p in kept] if words else ()
        ways["winner"] = Way(start_PH[kept], winner.vectors_PH[kept], left, kept)
    return around.document(ways, k)


def _short(value: float | torch.Tensor) -> float:
    """Six digits: more say nothing, and files of many runs add up."""
    return float(f"{float(value):.6g}")


def _kept(start: Sequence[dict[str, Any]], end: Sequence[dict[str, Any]]) -> bool | None:
    return bool(start[0]["id"] == end[0]["id"]) if start and end else None
