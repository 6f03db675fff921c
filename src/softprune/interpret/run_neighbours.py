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
                  made_of    of a tuned prompt of `prompt.form: superpos`: the words of the largest weights, signed
                             ones by their size: `id`, `word`, `value` (the weight)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from softprune.config import Recipe, load_config
from softprune.errors import SoftpruneError
from softprune.interpret.displacement import movement, norm_rms
from softprune.interpret.neighbours import MEASURES, anisotropy, nearest, table_mean
from softprune.interpret.vocabulary import Vocabulary
from softprune.models import load_backbone
from softprune.models.base import ROWS_AT_ONCE, Backbone
from softprune.prompts.forms.base import FORM_FILE
from softprune.prompts.prompt_io import load_vectors
from softprune.prompts.ticket import Ticket
from softprune.runs.record import RunRecord, read_record
from softprune.runs.run_folder import RunFolder
from softprune.runs.tensor_files import read_tensors
from softprune.types import PromptState

NAME = "neighbours.json"
SCHEMA = 1
K = 8
_INITIAL = "prompts/initial.safetensors"

_Near = dict[str, list[dict[str, Any]]]  # by measure, the neighbours of a token


@dataclass(frozen=True, slots=True)
class Way:
    """Where a prompt `[P, H]` started and where it ended."""

    start_PH: torch.Tensor
    end_PH: torch.Tensor
    words: Sequence[str] = ()  # what each token started as, as the vocabulary writes it; none where that isn't known
    places: Sequence[int] | None = None  # of the tokens in the unpruned prompt; None for the whole of it


@torch.no_grad()
def read_table(backbone: Backbone) -> torch.Tensor:
    """The input embeddings as the model reads them, `[V, H]` in its own dtype."""
    parts = torch.arange(backbone.vocabulary, device=backbone.device).split(ROWS_AT_ONCE)
    return torch.cat([backbone.lookup(ids).cpu() for ids in parts])


def describe_ways(backbone: Backbone, ways: Mapping[str, Way], k: int = K) -> dict[str, Any]:
    """What neighbours.json holds of some prompts by name, with k neighbours of each token.

    Raises:
        SoftpruneError: for a start and an end of different shapes, or numbers that are none.
    """
    table_VH = read_table(backbone)
    vocabulary = Vocabulary(backbone.tokenizer, backbone.vocabulary)
    pool, mean_H = vocabulary.pool, table_mean(table_VH, vocabulary.pool)
    # Of the items that count: a table may be longer than its vocabulary, and nobody trained the other rows.
    scale = norm_rms(table_VH[list(pool)])
    # All prompts at once: the table is read once a measure.
    vectors_NH = torch.cat([vectors for way in ways.values() for vectors in (way.start_PH, way.end_PH)])
    near: list[_Near] = [{} for _ in vectors_NH]
    for measure in MEASURES:
        found = nearest(vectors_NH, table_VH, k, measure, pool, mean_H=mean_H)
        for token, ids, values in zip(near, found.ids_PK.tolist(), found.values_PK.tolist(), strict=True):
            token[measure] = []
            for i, value in zip(ids, values, strict=True):
                if i >= 0:
                    token[measure].append({"id": i, "word": vocabulary.shown(i), "value": _round(value)})
    prompts, rest = {}, iter(near)
    for name, way in ways.items():
        start, end = (list(islice(rest, len(vectors))) for vectors in (way.start_PH, way.end_PH))
        prompts[name] = _describe_tokens(way, start, end, vocabulary, scale)
    spread = anisotropy(table_VH, pool, mean_H=mean_H)
    return {
        "schema": SCHEMA,
        "k": k,
        "vocabulary": len(pool),
        "scale": _round(scale),
        "anisotropy": {name: _round(value) for name, value in asdict(spread).items()},
        "prompts": prompts,
    }


def _describe_tokens(
    way: Way, start: Sequence[_Near], end: Sequence[_Near], vocabulary: Vocabulary, scale: float
) -> list[dict[str, Any]]:
    moved = movement(way.start_PH, way.end_PH, scale)
    tokens = []
    for p, place in enumerate(way.places or range(len(start))):
        kept: dict[str, bool | None] = {}
        for measure in MEASURES:
            first, last = start[p][measure], end[p][measure]
            kept[measure] = first[0]["id"] == last[0]["id"] if first and last else None
        tokens.append(
            {
                "token": int(place),
                "word": vocabulary.shown_token(way.words[p]) if way.words else "",
                "distance": _round(moved.distance_P[p]),
                "moved": _round(moved.relative_P[p]),
                "cosine": _round(moved.cosine_P[p]),
                "kept": kept,
                "start": start[p],
                "end": end[p],
            }
        )
    return tokens


def _round(value: float | torch.Tensor) -> float:
    """Six digits: more say nothing, and files of many runs add up."""
    return float(f"{float(value):.6g}")


def prompt_neighbours(
    start_PH: torch.Tensor, end_PH: torch.Tensor, backbone: Backbone, k: int = K, words: Sequence[str] = ()
) -> dict[str, Any]:
    """The document of one prompt alone, named `tuned`; see `Way` and `describe_ways`."""
    return describe_ways(backbone, {"tuned": Way(start_PH, end_PH, words)}, k)


def write_neighbours(run: RunFolder, backbone: Backbone, tuned: PromptState, winner: PromptState | None) -> None:
    """Write neighbours.json of a run, whose folder holds what the prompt started as; one of several processes does."""
    if run.processes.rank:
        return
    words, start_PH = run.record.initial_words, load_vectors(run.path / _INITIAL)
    document = _run_document(backbone, words, start_PH, tuned.vectors_PH, winner, K)
    _add_weights(document, run.path, backbone)
    run.write_json(NAME, document)


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
    except (OSError, ValueError, RecursionError) as error:
        raise SoftpruneError(f"a {NAME} as softprune writes it", f"{path}: {error}", "delete it") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or not isinstance(found.get("prompts"), dict):
        raise SoftpruneError(f"a {NAME} as softprune writes it", f"{path}: another file", "delete it")
    return found


def neighbours_of(run: Path, k: int = K) -> dict[str, Any]:
    """What `neighbours.json` holds of a run; found with its backbone where there is none, or fewer than `k` neighbours.

    Code that comes with a model is not run for that.

    Raises:
        SoftpruneError: for a folder without a finished prompt, or a backbone that isn't there or is another one now.
    """
    record = read_record(run, RunRecord)
    if record.kind not in ("tune", "xprompt"):
        raise SoftpruneError(
            "a run that tuned a prompt", f"one of kind {record.kind} in {run}", "give a run of tune or xprompt"
        )
    found = read_neighbours(run)
    if found is not None and found["k"] >= k:
        return found
    ticket = Ticket.load(run)
    start_PH, tuned_PH = load_vectors(run / _INITIAL), load_vectors(run / "prompts/tuned.safetensors")
    settings = load_config(Recipe, run / "resolved.yaml").backbone
    backbone = load_backbone(settings.name, family=settings.family, dtype=settings.dtype, revision=settings.revision)
    ticket.check(backbone)
    winner = ticket.state if record.kind == "xprompt" else None
    document = _run_document(backbone, record.initial_words, start_PH, tuned_PH, winner, max(k, K))
    _add_weights(document, run, backbone)
    return document


def _add_weights(document: dict[str, Any], run: Path, backbone: Backbone) -> None:
    """Where the run trained weights of words, the largest ones of each token of its tuned prompt: `made_of`."""
    path = run / FORM_FILE
    if not path.is_file():
        return
    held = read_tensors(path)
    if "words_M" not in held:
        return
    vocabulary = Vocabulary(backbone.tokenizer, backbone.vocabulary)
    for token, weights_M in zip(document["prompts"]["tuned"], held["weights_PM"], strict=True):
        largest = weights_M.abs().argsort(descending=True, stable=True)[: document["k"]].tolist()
        token["made_of"] = []
        for m in largest:
            word = int(held["words_M"][m])
            token["made_of"].append({"id": word, "word": vocabulary.shown(word), "value": _round(weights_M[m])})


def _run_document(
    backbone: Backbone,
    words: Sequence[str],
    start_PH: torch.Tensor,
    tuned_PH: torch.Tensor,
    winner: PromptState | None,
    k: int,
) -> dict[str, Any]:
    ways = {"tuned": Way(start_PH, tuned_PH, words)}
    if winner is not None:
        kept = winner.mask.token_P.nonzero()[:, 0].tolist()
        left = [words[p] for p in kept] if words else ()
        ways["winner"] = Way(start_PH[kept], winner.vectors_PH[kept], left, kept)
    return describe_ways(backbone, ways, k)
