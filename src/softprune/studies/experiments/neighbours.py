"""Which words prompts lie near before and after training, and which they share (the Bloomz study's first part).

"It never moved" here says: the vocabulary item nearest to a token is still the one it was nearest to at the start.
Prompts of tasks whose instructions share words share neighbours from the start; and some items are near many vectors.
So what is shared at the end is shown beside what was shared at the start, and beside random prompts as long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from statistics import fmean
from typing import Any, Final, TypeAlias

import torch

from softprune.interpret.displacement import movement, norm_rms, persisting
from softprune.interpret.neighbours import MEASURES, anisotropy, nearest, table_mean
from softprune.interpret.vocabulary import Vocabulary, key
from softprune.models.base import Backbone
from softprune.studies.findings import Cell, Entry, Figure, Findings, Table, axes
from softprune.studies.prompt_scoring import draw_random_prompt, open_set
from softprune.studies.run_result import FinishedRun
from softprune.studies.score_rows import collect_row, difference_cell, difference_table, score_table
from softprune.studies.study_context import StudyContext, task_label
from softprune.studies.verdicts import correct_family, interval_note, tally

Near: TypeAlias = "Mapping[tuple[str, int], dict[str, Any]]"  # by task and seed, a document of `Lexicon.describe_run`
Words: TypeAlias = "dict[str, list[str]]"  # by task, the words near one prompt

HARD, TUNED, NOTHING = "the instruction, in English", "tuned prompt", "no prompt"
_ACCURATE: Final = "accurate"  # the word that the study names
_ROWS: Final = 15  # shared words that are listed at most
_WIDE: Final = 1_000_003  # between the seeds of draws for different tasks


class Lexicon:
    """A backbone's vocabulary as prompts are compared with it; `k` neighbours of a token count."""

    def __init__(self, backbone: Backbone, k: int) -> None:
        self.table_VH = backbone.embeddings_VH().cpu()  # as the model reads them
        self.vocabulary = Vocabulary(backbone.tokenizer, backbone.vocabulary)
        self._mean_H = table_mean(self.table_VH, self.vocabulary.pool)
        self._k = k

    def near(self, prompt_PH: torch.Tensor, measure: str = "centred") -> list[list[str]]:
        """The k nearest words of each token, nearest first; fewer where a token has none."""
        near = nearest(prompt_PH, self.table_VH, self._k, measure, self.vocabulary.pool, mean_H=self._mean_H)
        return [[self.vocabulary.shown(i) for i in row if i >= 0] for row in near.ids_PK.tolist()]

    def describe(self) -> dict[str, Any]:
        """Facts of the table, as JSON holds them."""
        likeness = anisotropy(self.table_VH, self.vocabulary.pool, mean_H=self._mean_H)
        return {"raw": likeness.raw, "centred": likeness.centred, "items": len(self.vocabulary.pool)}

    def describe_run(self, start_PH: torch.Tensor, end_PH: torch.Tensor) -> dict[str, Any]:
        """What became of a prompt: neighbours by measure, and movement in lengths of a typical embedding."""
        moved = movement(start_PH, end_PH, norm_rms(self.table_VH))
        return {
            "start": {name: self.near(start_PH, name) for name in MEASURES},
            "end": {name: self.near(end_PH, name) for name in MEASURES},
            "moved": moved.relative_P.tolist(),
            "cosine": moved.cosine_P.tolist(),
        }

    def by_chance(self, lengths: Mapping[str, torch.Tensor], draws: int) -> list[dict[str, list[str]]]:
        """Words near random prompts, by draw and task; `lengths` are by task the norms `[P]` of its prompt's tokens."""
        words_by_draw = []
        for draw in range(draws):
            words = {}
            for place, (task, norms_P) in enumerate(lengths.items()):
                prompt_PH = draw_random_prompt(norms_P, self.table_VH.shape[1], draw + _WIDE * place)
                words[task] = flat(self.near(prompt_PH))
            words_by_draw.append(words)
        return words_by_draw


def flat(rows: Sequence[Sequence[str]]) -> list[str]:
    """All words of a prompt's tokens, each once, in their order."""
    return list(dict.fromkeys(word for row in rows for word in row))


def mean_shared(several: Sequence[Mapping[str, Sequence[str]]], least: int) -> float:
    """How many words the prompts of `least` tasks share, in the mean over several sets of a prompt a task."""
    return fmean(len(persisting(words, least)) for words in several)


def conduct(study: StudyContext) -> Findings:
    """The runs, what each token lies near, what is shared, and what the instruction alone scores."""
    runs = study.grid()

    @cache
    def lexicon() -> Lexicon:  # loads the backbone, so only where something isn't known from before
        return Lexicon(open_set(study.recipe, "select").backbone, _k(study))

    def describe_run(run: FinishedRun) -> dict[str, Any]:
        return lexicon().describe_run(run.prompt("initial"), run.prompt("tuned"))

    def near_random() -> list[Words]:
        lengths = {task: runs[task, study.config.seed].prompt("tuned").norm(dim=-1) for task in study.tasks}
        return lexicon().by_chance(lengths, int(study.options.get("draws", 20)))

    near = {at: study.once(f"near-{run.path.name}", partial(describe_run, run)) for at, run in runs.items()}
    words = words_near(study, near) | {"random": study.once("random", near_random)}
    facts = study.once("vocabulary", lambda: lexicon().describe())
    holders = {side: list_holders(near, side) for side in ("start", "end")}
    rows, gains = {}, {}
    for label, result in ((HARD, "instruction"), (NOTHING, "zero_shot"), (TUNED, "tuned")):
        rows[label] = collect_row(study, runs, result)
    for task in study.tasks:
        gains[task] = difference_cell(study, task, rows[TUNED].outcomes[task], rows[HARD].outcomes[task])
    tables = [
        _movement_table(study, near, facts),
        score_table(study, "scores", "The instruction in words, and what became of it", rows),
        difference_table(study, "differences", f"Above {HARD}", rows, HARD),
        _shared_table(study, words),
        _word_table(study, holders),
        *(_token_table(study, near, task) for task in study.tasks),
    ]
    sentences = _sentences(study, near, words, list(correct_family(gains).values()))
    for word in _asked_words(study):
        after, before = (len({task for task, _ in holders[side].get(word, ())}) for side in ("end", "start"))
        published = "; the study found it in 3 of 4" if word == _ACCURATE else ""
        sentences.append(
            f'"{word}" is among the {_k(study)} nearest words of prompts of {after} of {len(study.tasks)} tasks, '
            f"before training of {before}{published}."
        )
    return Findings(tables, [_movement_figure(study, near)], sentences)


def _k(study: StudyContext) -> int:
    return int(study.options.get("k", 3))


def _asked_words(study: StudyContext) -> list[str]:
    return [key(str(word)) for word in study.options.get("words", ())]


def stayed(document: Mapping[str, Any], measure: str) -> list[bool | None]:
    """Whether each token's nearest item is still the one of the start; None where either has none."""
    pairs = zip(document["start"][measure], document["end"][measure], strict=True)
    return [before[0] == after[0] if before and after else None for before, after in pairs]


def _share_stayed(measure: str, *documents: Mapping[str, Any]) -> float | None:
    known: list[float] = []
    for document in documents:
        known += [float(flag) for flag in stayed(document, measure) if flag is not None]
    return fmean(known) if known else None


def words_near(study: StudyContext, near: Near) -> dict[str, list[Words]]:
    """By seed, the words near the prompts: at their `start`, at their `end`, and `new` ones, near none at the start."""
    words: dict[str, list[Words]] = {"start": [], "end": [], "new": []}
    for seed in study.seeds:
        for side in ("start", "end"):
            words[side].append({task: flat(near[task, seed][side]["centred"]) for task in study.tasks})
        before = {key(word) for each in words["start"][-1].values() for word in each}
        ends = words["end"][-1].items()
        words["new"].append({task: [word for word in each if key(word) not in before] for task, each in ends})
    return words


def list_holders(near: Near, side: str) -> dict[str, list[tuple[str, int]]]:
    """By word, the prompts that it is near at their start or end."""
    holders: dict[str, list[tuple[str, int]]] = {}
    for at, each in near.items():
        for word in set(map(key, flat(each[side]["centred"]))):
            holders.setdefault(word, []).append(at)
    return holders


def _movement_table(study: StudyContext, near: Near, facts: Mapping[str, Any]) -> Table:
    by_task: dict[str, dict[str, Entry]] = {}
    for task in study.tasks:
        own = [near[task, seed] for seed in study.seeds]
        by_task[task] = {
            "moved, in lengths of a typical embedding": _mean_over_seeds(
                [fmean(each["moved"]) for each in own], "number"
            ),
            "cosine of start and end": _mean_over_seeds([fmean(each["cosine"]) for each in own], "number"),
        }
        for measure in MEASURES:
            shares = [_share_stayed(measure, each) for each in own]
            label = f"nearest word still that of the start, by {measure} (%)"
            by_task[task][label] = _mean_over_seeds(shares, "percent")
    note = (
        "Mean over tokens and seeds; in brackets, the smallest and the largest of the seeds. Random pairs of this "
        f"vocabulary's {facts['items']:,} items have a cosine of {facts['raw']:.2f}, and of {facts['centred']:.2f} "
        "without the mean of all (centred)."
    )
    table = Table.from_columns("moved", "What training did to the tokens", "", by_task, note)
    return replace(table, columns=("", *map(task_label, study.tasks)))


def _mean_over_seeds(values: Sequence[float | None], unit: str) -> Cell:
    """The mean of the seeds' values, and how far they spread."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return Cell(None, unit=unit)
    low, high, spread = min(known), max(known), ""
    if len(known) > 1 and unit == "percent":
        spread = f"[{100 * low:.0f} to {100 * high:.0f}]"
    elif len(known) > 1:
        spread = f"[{low:.2f} to {high:.2f}]"
    return Cell(fmean(known), unit=unit, note=spread)


def _shared_table(study: StudyContext, words: Mapping[str, Sequence[Words]]) -> Table:
    levels = range(2, len(study.tasks) + 1)
    labels = {
        "end": "tuned prompts",
        "start": "the same at the start",
        "random": f"random prompts as long, {len(words['random'])} draws",
        "new": "tuned prompts, words that were near none of them at the start",
    }
    rows: list[list[Entry]] = []
    for side, label in labels.items():
        rows.append([label, *(Cell(mean_shared(words[side], least), unit="number") for least in levels)])
    note = (
        f"Words among the {_k(study)} nearest (centred cosine) of any token, one prompt a task; mean over seeds. "
        "Capitals don't matter; pieces of words count as words."
    )
    columns = ("words shared by", *(f"{least} tasks or more" for least in levels))
    return Table("shared", "How many words prompts of several tasks share", columns, rows, note)


def _word_table(study: StudyContext, holders: Mapping[str, Mapping[str, Sequence[tuple[str, int]]]]) -> Table:
    prompts = holders["end"]
    tasks = {word: {task for task, _ in near} for word, near in prompts.items()}
    several = [word for word in tasks if len(tasks[word]) > 1]
    # Of equals by the word, so that no order of sets shows.
    several.sort(key=lambda word: (-len(tasks[word]), -len(prompts[word]), word))
    rows: list[list[Entry]] = []
    for word in dict.fromkeys([*_asked_words(study), *several[:_ROWS]]):
        names = ", ".join(task_label(task) for task in study.tasks if task in tasks.get(word, ())) or "none"
        counts = [len(holders[side].get(word, ())) for side in ("end", "start")]
        rows.append([word, names, *(Cell(count, unit="count") for count in counts)])
    note = (
        f"Of {len(study.tasks_and_seeds)} prompts. The words that were asked for, then those near prompts of most "
        f"tasks, {_ROWS} at most. A word counts for a task that is near any of its {len(study.seeds)} prompts."
    )
    columns = ("word", "tasks at the end", "prompts at the end", "prompts at the start")
    return Table("words", "Words near prompts of several tasks", columns, rows, note)


def _token_table(study: StudyContext, near: Near, task: str) -> Table:
    each = near[task, study.config.seed]
    rows: list[list[Entry]] = []
    for p, flag in enumerate(stayed(each, "centred")):
        start, end = each["start"]["centred"][p], each["end"]["centred"][p]
        still = {True: "yes", False: "no", None: "no neighbour"}[flag]
        moved = Cell(each["moved"][p], unit="number")
        rows.append([f"{p}", start[0] if start else "-", moved, "  ".join(end) or "-", still])
    columns = ("token", "nearest at the start", "moved", f"{_k(study)} nearest at the end", "still nearest")
    note = f"Seed {study.config.seed}; centred cosine; moved in lengths of a typical embedding."
    return Table(f"tokens-{task_label(task)}", f"The prompt of {task_label(task)}", columns, rows, note)


def _movement_figure(study: StudyContext, near: Near) -> Figure:
    values = []
    for task in study.tasks:
        by_seed = [near[task, seed]["moved"] for seed in study.seeds]
        values.append([fmean(token) for token in zip(*by_seed, strict=True)])
    trace: dict[str, Any] = {"type": "heatmap", "y": [task_label(task) for task in study.tasks], "z": values}
    trace |= {"colorbar": {"title": {"text": "moved"}}}
    caption = (
        "A row for each task, a square for each token of its prompt: how far it went from its start, in lengths of a "
        "typical embedding, mean over seeds. First come the instruction's words, then sampled vocabulary."
    )
    return Figure("moved", "How far tokens went", caption, [trace], axes("token"))


def _sentences(
    study: StudyContext, near: Near, words: Mapping[str, Sequence[Words]], gains: Sequence[Cell]
) -> list[str]:
    most = max(2, len(study.tasks) - 1)
    shared = {side: mean_shared(sets, most) for side, sets in words.items()}
    moved = fmean(fmean(each["moved"]) for each in near.values())
    shares = []
    for measure in MEASURES:
        share = _share_stayed(measure, *near.values())
        shares.append(f"{measure} {'not measured' if share is None else f'{share:.0%}'}")
    # No test: words of one prompt, and prompts of one instruction, go together.
    whence = "Those are no more than random prompts share: nothing shows that training brought any."
    if shared["new"] > shared["random"]:
        whence = "Those are more than random prompts share, in the mean; no interval, so nothing is shown by it."
    return [
        f"Tokens went {moved:.2f} lengths of a typical embedding in the mean. Those whose nearest word is still the "
        f"one of the start: {', '.join(shares)}. The study: key words persist. That words "
        "which stay are the important ones isn't measured here.",
        f"Words near the prompts of {most} tasks or more: {shared['end']:.1f} a seed after training, "
        f"{shared['start']:.1f} before, {shared['random']:.1f} near random prompts as long; {shared['new']:.1f} of "
        f"those after training are new. {whence}",
        f"Tuned prompts less the instruction in words: {tally(gains)} of {len(gains)} tasks. "
        f"{interval_note(len(study.seeds))}",
    ]
