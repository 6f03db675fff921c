"""The page of a run: one HTML file that needs nothing else, for a reader who didn't run it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from softprune.config.criteria import CRITERIA
from softprune.errors import SoftpruneError
from softprune.report import formatting, table
from softprune.report.run_reader import Bools, Prediction, Run, read_run
from softprune.runs import atomic_io
from softprune.runs.record_parts import Part
from softprune.statistics.bootstrap import Floats
from softprune.types import Candidate

try:
    from softprune.report import interactive, templating
    from softprune.report.figures import is_signed, plan_figures
    from softprune.report.mpl_style import Picture, draw_pictures
    from softprune.report.plotting import plot_chart
    from softprune.report.run_comparison import compare_runs
except ImportError as error:
    missing = "matplotlib, jinja2 and plotly for reports"
    raise SoftpruneError(missing, str(error), "pip install 'softprune[report]'") from error

Item = TypeVar("Item")

MOST = 12
LONGEST = 700

# Settings explained to a reader who didn't make the run, each where the page first names it.
_REMOVAL = {
    "drop": "pruned tokens are taken out of the sequence (removal: drop)",
    "zero": "pruned tokens and pieces are multiplied by zero and keep their place in the sequence (removal: zero)",
}
_OBJECTIVE = {
    "one_se": "the smallest ticket within one standard error of the best on select",
    "best": "the best on select",
    "smallest_within": "the smallest ticket within a fixed distance of the best on select",
}
_START = {
    "vocabulary": "embeddings of common words",
    "uniform": "random numbers",
    "text": "embeddings of a text's words",
    "labels": "embeddings of the answers",
    "file": "a saved prompt",
}
_SETTINGS = {
    "loss": "loss",
    "score": "score of an answer",
    "match": "answers found by",
    "lr": "step size",
    "max_length": "inputs are cut at, tokens",
    "max_answer_length": "longest text written, tokens",
}
_DIRECTIONS = {
    "gained": "▲ only the winner is right",
    "lost": "▼ only the control is right",
    "neither": "both are wrong",
}
_WRITTEN_DIRECTIONS = {
    "gained": "▲ the winner shares more",
    "lost": "▼ the control shares more",
    "neither": "both share as much",
}
_EXACT_DIRECTIONS = {**_DIRECTIONS, "neither": "both are right, or both are wrong"}
_VALUES = {
    ("loss", "rank"): "cross-entropy over the answers' scores",
    ("loss", "likelihood"): "negative log-likelihood of the right answer",
    ("match", "score"): "the answer that scores highest",
    ("match", "generate"): "what the model writes",
}
"""By setting and value."""
_WRITTEN_VALUES = {("loss", "likelihood"): "negative log-likelihood per token of the text to be written"}
"""The same where texts are written."""


def write(folder: Path, others: Sequence[Path] = ()) -> Path:
    """Write the figures, then the page, which shows the results of other runs beside its own."""
    run = read_run(folder)
    compared = [compare_runs(run, read_run(other)) for other in others]
    pictures = draw_pictures(plan_figures(run), folder / "report" / "figures")
    page = folder / "report" / "index.html"
    atomic_io.write_bytes(page, html(run, pictures, compared).encode("utf-8", errors="replace"))
    return page


def html(run: Run, pictures: list[Picture], compared: Sequence[Mapping[str, Any]] = ()) -> str:
    """The page's text; plotly is in it where there are charts that it draws."""
    environment = templating.environment()
    environment.filters["known"] = _known
    plots = {p.plan.name: plot_chart(p.plan, p.plan.chart) for p in pictures if p.plan.chart is not None}
    controls, near = collect_controls(run), collect_neighbours(run)
    data = {"explore": controls, "neighbours": near}
    assets = interactive.assets(list(plots.values()), data, [interactive.read_script("run.js")])
    return environment.get_template("page.html.j2").render(
        _context(run),
        pictures=pictures,
        plots=plots,
        assets=assets,
        compared=compared,
        explored=controls,
        neighbours=near,
        masks_kept=run.masks is not None,
    )


class _Fields(dict[str, Any]):
    """A mapping for the template: a field that a run doesn't have reads as None, which shows as not measured."""

    def __missing__(self, key: str) -> None:
        return None


def _fields(part: Part | None) -> _Fields:
    return _Fields({} if part is None else part.document())


def _known(value: object) -> str:
    """A value as text; nothing is "not measured"."""
    return formatting.NOT_MEASURED if value is None or value == "" else formatting.printable(value)


def _context(run: Run) -> dict[str, Any]:
    rows, record, headline = table.comparison_rows(run), run.record, run.record.headline
    names = ("backbone", "task", "prompt", "adapter", "importance", "selection", "ticket", "cost", "hardware")
    parts = {name: _fields(getattr(record, name)) for name in names}
    objective = parts["selection"]["objective"]
    criterion = CRITERIA.get(parts["importance"]["method"])
    control, winner = run.predictions.get("control"), run.predictions.get("winner")
    # Those in the description of the sets have been read there.
    description = parts["selection"]["description"] or ""
    notes = [note for note in (*record.task.notes, *record.notes) if note not in description]
    losses = []  # of written texts: each trained prompt's loss on the three sets
    for name, label in table.labels(run).items():
        row = run.results[name]
        if row is not None and row.losses:
            losses.append((label, _Fields(row.losses)))
    return {
        **parts,
        "run": run,
        "record": record,
        "xprompt": run.prunes,
        "title": formatting.printable(run.title),
        "sizes": _fields(record.task.sizes),
        "truncated": _fields(record.task.truncated),
        "by_gates": record.search.strategy == "learned",
        "gradual": record.search.strategy == "gradual",
        "pruning": {"rewind": None, "teacher": None, **run.recipe_part("pruning")},  # older recipes have neither
        "settings": _describe_settings(run),
        "sample": shorten_text(formatting.printable(record.task.sample)) if record.task.sample else None,
        "notes": list(dict.fromkeys(map(formatting.printable, notes))),
        "start": _START.get(parts["prompt"]["init"]),
        "method": criterion.gloss if criterion else None,
        "removal": _REMOVAL.get(str(record.removal)),
        "objective": _OBJECTIVE.get(str(objective), _known(objective)),
        "columns": table.columns(run),
        "rows": rows,
        "cell": table.shown,
        "mark_meaning": table.mark_meaning(run) if any(row.at_chance for row in rows) else None,
        "losses": losses,
        "written": written_samples(run),
        "headline": headline,
        "mcnemar": _fields(headline.mcnemar if headline else None),
        "kept": [f"T{i}" for i, kept in enumerate(run.ticket.token_P) if kept] if run.ticket else [],
        "candidates": [(candidate, table.candidate_cells(run, candidate)) for candidate in run.smallest_first],
        "changes": changed_answers(control, winner) if control and winner else None,
        "directions": _choose_directions(run),
    }


def _choose_directions(run: Run) -> dict[str, str]:
    if run.is_exact:
        return _EXACT_DIRECTIONS
    return _WRITTEN_DIRECTIONS if run.is_generation else _DIRECTIONS


def _describe_settings(run: Run) -> dict[str, str]:
    """Each setting's name and value, in words where there are any."""
    known = _VALUES | (_WRITTEN_VALUES if run.is_generation else {})
    settings = {}
    for name, value in _fields(run.record.settings).items():
        if run.is_generation and name == "score":
            continue  # no answers are scored
        shown = formatting.number(value) if isinstance(value, int | float) else _known(value)
        gloss = known.get((name, str(value)))
        settings[_SETTINGS.get(name, name)] = f"{shown} ({gloss})" if gloss else shown
    return settings


# --- what the page's controls choose from ---


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
    tries_ratios = run.record.search.strategy not in ("learned", "gradual")  # else one slider goes through all sizes
    sliders = []
    for name in ("tokenRatio", "pieceRatio") if tries_ratios else ():
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
        **table.candidate_cells(run, candidate),
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


# --- examples that control and winner answer differently; texts differ by what they share with the reference ---


def changed_answers(control: Sequence[Prediction], winner: Sequence[Prediction]) -> dict[str, Any]:
    """Two prompts' answers compared example by example (matched by id), as the page's template takes them.

    compared          examples that both answered
    changed           how many answers differ
    gained, lost,     of these, how many only the winner has right (or its text shares more), only the control,
    neither           neither of them
    samples           some of them from both directions, spread evenly over the set: `id`, `text`, `direction`, and as
                      texts the answers `gold`, `control` and `winner`
    """
    before = {prediction.id: prediction for prediction in control}
    pairs = [(before[after.id], after) for after in winner if after.id in before]
    changes: dict[str, list[dict[str, str]]] = {"gained": [], "lost": [], "neither": []}
    for a, b in pairs:
        if (a.predicted, a.written) == (b.predicted, b.written):
            continue
        gain = _merit(b) - _merit(a)
        direction = "neither"
        if gain:
            direction = "gained" if gain > 0 else "lost"
        change = {
            "id": formatting.printable(b.id),
            "text": shorten_text(formatting.printable(b.text)),
            "gold": _answer_text(b, b.gold, b.reference),
            "control": _given_text(a),
            "winner": _given_text(b),
            "direction": direction,
        }
        changes[direction].append(change)
    gained, lost, neither = changes.values()
    # Half from each direction; what one lacks the other fills, then changes between two wrong answers.
    samples = _spread(gained, max(MOST // 2, MOST - len(lost)))
    samples += _spread(lost, MOST - len(samples))
    samples += _spread(neither, MOST - len(samples))
    counts = {direction: len(those) for direction, those in changes.items()}
    return {"compared": len(pairs), "changed": sum(counts.values()), **counts, "samples": samples}


def written_samples(run: Run) -> list[dict[str, Any]]:
    """Some examples of a run whose texts were written, spread evenly over the set; none of other runs.

    Each has its `id`, `text` and `reference`, and in `texts` what the model wrote behind each prompt.
    """
    names = [name for name in ("zero_shot", "tuned", "winner") if run.predictions.get(name)]
    if not run.is_generation or not names:
        return []
    columns = {name: {p.id: p for p in run.predictions[name]} for name in names}
    ids = [key for key in columns[names[0]] if all(key in column for column in columns.values())]
    samples = []
    for key in _spread(ids, 3):
        example = columns[names[0]][key]
        texts = [(name, _given_text(column[key])) for name, column in columns.items()]
        text, reference = shorten_text(formatting.printable(example.text)), formatting.printable(example.reference)
        samples.append({"id": formatting.printable(key), "text": text, "reference": reference, "texts": texts})
    return samples


def _spread(items: list[Item], most: int) -> list[Item]:
    """At most so many, evenly over the list: sets are often ordered, and its first examples of one kind."""
    count = min(most, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def shorten_text(text: str) -> str:
    """A text of bearable length."""
    return text if len(text) <= LONGEST else text[:LONGEST] + " […]"


def _merit(prediction: Prediction) -> float:
    """ROUGE-L of a written text; else whether the answer is right, also the one in a text."""
    if prediction.rougeL is not None:
        return prediction.rougeL
    return float(prediction.predicted == prediction.gold if prediction.right is None else prediction.right)


def _given_text(prediction: Prediction) -> str:
    """What a prompt answered or wrote, and the answer that was found in its text where that counts."""
    text = _answer_text(prediction, prediction.predicted, prediction.written)
    if prediction.right is None:
        return text
    return f"{text} → {'no answer' if prediction.extracted is None else formatting.printable(prediction.extracted)}"


def _answer_text(prediction: Prediction, place: int, text: str | None) -> str:
    """The written text, or the answer's; a generated text that is none of the answers has place -1."""
    if text is not None:
        return formatting.printable(text) or "nothing"
    return formatting.printable(prediction.answers[place]) if 0 <= place < len(prediction.answers) else "none of them"
