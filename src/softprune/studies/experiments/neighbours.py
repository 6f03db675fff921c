"""Which words prompts lie near before and after training, and which they share (the Bloomz study's first part).

"It never moved" here says: the vocabulary item nearest to a token is still the one it was nearest to at the start.
Prompts of tasks whose instructions share words share neighbours from the start; and some items are near many vectors.
So what is shared at the end is shown beside what was shared at the start, and beside random prompts as long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from statistics import fmean
from typing import Any, Final, TypeAlias

from softprune.interpret.neighbours import MEASURES
from softprune.interpret.vocabulary import key
from softprune.studies.figures import axes
from softprune.studies.findings import Cell, Entry, Figure, Findings, Table
from softprune.studies.lexicon import Lexicon, flat, mean_shared, shared
from softprune.studies.prompt_scoring import open_set
from softprune.studies.run_result import FinishedRun
from softprune.studies.score_rows import Runs, chances, collect_row, difference_cell, difference_table, score_table
from softprune.studies.study_context import StudyContext, task_label
from softprune.studies.verdicts import correct_cells, interval_note, tally

Near: TypeAlias = "Mapping[tuple[str, int], dict[str, Any]]"
"""By task and seed, a document of `Lexicon.describe_run`."""
Words: TypeAlias = "dict[str, list[str]]"
"""By task, the words near one prompt."""

HARD, TUNED, NOTHING = "the instruction, in English", "tuned prompt", "no prompt"
_ACCURATE: Final = "accurate"
"""The word that the study names."""
_ROWS: Final = 15
"""Shared words that are listed."""


def conduct(study: StudyContext) -> Findings:
    """The runs, what each token lies near, what is shared, and what the instruction alone scores."""
    runs = study.grid()
    work = _Work(study, runs)
    near = {at: study.once(f"near-{run.path.name}", partial(work.describe_run, run)) for at, run in runs.items()}
    random = study.once("random", work.random)
    facts = study.once("vocabulary", lambda: work.lexicon.describe())
    at_chance = chances(study, runs)
    rows = {}
    for label, result in ((HARD, "instruction"), (NOTHING, "zero_shot"), (TUNED, "tuned")):
        rows[label] = collect_row(study, runs, result, at_chance)
    tables = [
        _movement_table(study, near, facts),
        score_table(study, "scores", "The instruction in words, and what became of it", rows),
        difference_table(study, "differences", f"Above {HARD}", rows, HARD),
        _shared_table(study, near, random),
        _word_table(study, near),
        *(_token_table(study, near, task) for task in study.tasks),
    ]
    gains = {}
    for task in study.tasks:
        gains[task] = difference_cell(study, task, rows[TUNED].outcomes[task], rows[HARD].outcomes[task])
    sentences = _sentences(study, near, random, list(correct_cells(gains).values()))
    return Findings(tables, [_movement_figure(study, near)], sentences)


class _Work:
    """What needs the backbone, which is loaded when something isn't known from before."""

    def __init__(self, study: StudyContext, runs: Runs) -> None:
        self.study, self.runs = study, runs

    @cached_property
    def lexicon(self) -> Lexicon:
        recipe = self.study.spec(self.study.tasks[0], self.study.config.seed).recipe
        return Lexicon(open_set(recipe, "select").backbone, _k(self.study))

    def describe_run(self, run: FinishedRun) -> dict[str, Any]:
        return self.lexicon.describe_run(run.prompt("initial"), run.prompt("tuned"))

    def random(self) -> list[Words]:
        lengths = {
            task: self.runs[task, self.study.config.seed].prompt("tuned").norm(dim=-1) for task in self.study.tasks
        }
        return self.lexicon.by_chance(lengths, int(self.study.options.get("draws", 20)))


def _k(study: StudyContext) -> int:
    return int(study.options.get("k", 3))


def stayed(document: Mapping[str, Any], measure: str) -> list[bool | None]:
    """Whether each token's nearest item is still the one of the start; None where either has none."""
    pairs = zip(document["start"][measure], document["end"][measure], strict=True)
    return [before[0] == after[0] if before and after else None for before, after in pairs]


def _share(flags: Sequence[bool | None]) -> float | None:
    known = [flag for flag in flags if flag is not None]
    return fmean(map(float, known)) if known else None


def _sets(study: StudyContext, near: Near, side: str) -> list[Words]:
    """By seed and task, the words near a prompt at its start or end."""
    return [{task: flat(near[task, seed][side]["centred"]) for task in study.tasks} for seed in study.seeds]


def _over_seeds(values: Sequence[float | None], unit: str) -> Cell:
    """The mean of the seeds' values, and how far they spread."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return Cell(None, unit=unit)
    factor, digits = (100, 0) if unit == "percent" else (1, 2)
    spread = f"[{factor * min(known):.{digits}f} to {factor * max(known):.{digits}f}]" if len(known) > 1 else ""
    return Cell(fmean(known), unit=unit, note=spread)


def _movement_table(study: StudyContext, near: Near, facts: Mapping[str, Any]) -> Table:
    def row(label: str, unit: str, read: Callable[[Mapping[str, Any]], float | None]) -> list[Entry]:
        by_task = [[read(near[task, seed]) for seed in study.seeds] for task in study.tasks]
        return [label, *(_over_seeds(values, unit) for values in by_task)]

    rows = [
        row("moved, in lengths of a typical embedding", "number", lambda each: fmean(each["moved"])),
        row("cosine of start and end", "number", lambda each: fmean(each["cosine"])),
    ]
    for measure in MEASURES:
        label = f"nearest word still that of the start, by {measure} (%)"
        rows.append(row(label, "percent", partial(_share_stayed, measure=measure)))
    note = (
        "Mean over tokens and seeds; in brackets, the smallest and the largest of the seeds. Random pairs of this "
        f"vocabulary's {facts['items']:,} items have a cosine of {facts['raw']:.2f}, and of {facts['centred']:.2f} "
        "without the mean of all (centred)."
    )
    return Table("moved", "What training did to the tokens", ("", *map(task_label, study.tasks)), tuple(rows), note)


def _share_stayed(document: Mapping[str, Any], measure: str) -> float | None:
    return _share(stayed(document, measure))


def _shared_table(study: StudyContext, near: Near, random: Sequence[Words]) -> Table:
    levels = range(2, len(study.tasks) + 1)
    sources = {
        "tuned prompts": _sets(study, near, "end"),
        "the same at the start": _sets(study, near, "start"),
        f"random prompts as long, {len(random)} draws": random,
    }
    rows: list[list[Entry]] = []
    for label, sets in sources.items():
        rows.append([label, *(Cell(mean_shared(sets, least), unit="number") for least in levels)])
    new = [_mean_new(study, near, least) for least in levels]
    label = "tuned prompts, words that were near none of them at the start"
    rows.append([label, *(Cell(count, unit="number") for count in new)])
    note = (
        f"Words among the {_k(study)} nearest (centred cosine) of any token, one prompt a task; mean over seeds. "
        "Capitals don't matter; pieces of words count as words."
    )
    columns = ("words shared by", *(f"{least} tasks or more" for least in levels))
    return Table("shared", "How many words prompts of several tasks share", columns, rows, note)


def _mean_new(study: StudyContext, near: Near, least: int) -> float:
    """How many words a seed's tuned prompts share and none of its prompts was near at the start; mean over seeds."""
    return fmean(len(_new_words(study, near, seed, least)) for seed in study.seeds)


def _new_words(study: StudyContext, near: Near, seed: int, least: int) -> list[str]:
    before = {key(word) for task in study.tasks for word in flat(near[task, seed]["start"]["centred"])}
    after = {task: flat(near[task, seed]["end"]["centred"]) for task in study.tasks}
    return [word for word in shared(after, least) if word not in before]


def _holders(near: Near, side: str, word: str) -> list[tuple[str, int]]:
    """The prompts that are near a word."""
    return [at for at, each in near.items() if word in {key(other) for other in flat(each[side]["centred"])}]


def _asked(study: StudyContext) -> list[str]:
    return [key(str(word)) for word in study.options.get("words", ())]


def _word_table(study: StudyContext, near: Near) -> Table:
    words = {key(word) for each in near.values() for word in flat(each["end"]["centred"])}
    holders = {word: _holders(near, "end", word) for word in words}
    tasks = {word: {task for task, _ in at} for word, at in holders.items()}
    several = [word for word in holders if len(tasks[word]) > 1]
    several.sort(key=lambda word: (-len(tasks[word]), -len(holders[word]), word))
    rows: list[list[Entry]] = []
    for word in dict.fromkeys([*_asked(study), *several[:_ROWS]]):
        at, before = holders.get(word, []), _holders(near, "start", word)
        names = ", ".join(task_label(task) for task in study.tasks if task in tasks.get(word, ())) or "none"
        rows.append([word, names, Cell(len(at), unit="count"), Cell(len(before), unit="count")])
    note = (
        f"Of {len(near)} prompts. The words that were asked for, then those near prompts of most tasks, {_ROWS} at "
        f"most. A word counts for a task that is near any of its {len(study.seeds)} prompts."
    )
    columns = ("word", "tasks at the end", "prompts at the end", "prompts at the start")
    return Table("words", "Words near prompts of several tasks", columns, rows, note)


def _token_table(study: StudyContext, near: Near, task: str) -> Table:
    each = near[task, study.config.seed]
    rows: list[list[Entry]] = []
    for p, moved in enumerate(each["moved"]):
        start, end = each["start"]["centred"][p], each["end"]["centred"][p]
        still = {True: "yes", False: "no", None: "no neighbour"}[stayed(each, "centred")[p]]
        rows.append([f"{p}", start[0] if start else "-", Cell(moved, unit="number"), "  ".join(end) or "-", still])
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


def _sentences(study: StudyContext, near: Near, random: Sequence[Words], gains: Sequence[Cell]) -> list[str]:
    most = max(2, len(study.tasks) - 1)
    end, start = (mean_shared(_sets(study, near, side), most) for side in ("end", "start"))
    chance, new = mean_shared(random, most), _mean_new(study, near, most)
    moved = fmean(fmean(each["moved"]) for each in near.values())
    shares = []
    for measure in MEASURES:
        share = _share([flag for each in near.values() for flag in stayed(each, measure)])
        shares.append(f"{measure} {'not measured' if share is None else f'{share:.0%}'}")
    # No test: words hang together.
    whence = "Those are no more than random prompts share: nothing shows that training brought any."
    if new > chance:
        whence = "Those are more than random prompts share, in the mean; no interval, so nothing is shown by it."
    sentences = [
        f"Tokens went {moved:.2f} lengths of a typical embedding in the mean. Those whose nearest word is still the "
        f"one of the start: {', '.join(shares)}. The study: key words persist. That words "
        "which stay are the important ones isn't measured here.",
        f"Words near the prompts of {most} tasks or more: {end:.1f} a seed after training, {start:.1f} before, "
        f"{chance:.1f} near random prompts as long; {new:.1f} of those after training are new. {whence}",
        f"Tuned prompts less the instruction in words: {tally(gains)} of {len(gains)} tasks. "
        f"{interval_note(len(study.seeds))}",
    ]
    for word in _asked(study):
        after, before = (len({task for task, _ in _holders(near, side, word)}) for side in ("end", "start"))
        published = "; the study found it in 3 of 4" if word == _ACCURATE else ""
        sentences.append(
            f'"{word}" is among the {_k(study)} nearest words of prompts of {after} of {len(study.tasks)} tasks, '
            f"before training of {before}{published}."
        )
    return sentences
