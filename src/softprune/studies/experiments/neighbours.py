"""Which words prompts lie near before and after training, and which they share (the Bloomz study's first part).

"It never moved" here says: the vocabulary item nearest to a token is still the one it was nearest to at the start.
Prompts of tasks whose instructions share words share neighbours from the start; and some items are near many vectors.
So what is shared at the end stands beside what was shared at the start, and beside random prompts of the same lengths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean
from typing import Any, Final, TypeAlias

from softprune.interpret.neighbours import MEASURES
from softprune.interpret.vocabulary import key
from softprune.studies.findings import Cell, Entry, Figure, Findings, Table
from softprune.studies.lexicon import Lexicon, flat, mean_shared, shared
from softprune.studies.prompt_scoring import open_set
from softprune.studies.run_result import FinishedRun
from softprune.studies.score_rows import Runs, chances, collect_row, difference_cell, difference_table, score_table
from softprune.studies.study_context import StudyContext
from softprune.studies.verdicts import corrected, interval_note, only_cells, tally

Near: TypeAlias = "Mapping[tuple[str, int], dict[str, Any]]"
"""By task and seed, a document of `Lexicon.of_run`."""
Words: TypeAlias = "dict[str, list[str]]"
"""By task, the words near one prompt."""

HARD, TUNED, NOTHING = "the instruction, in English", "tuned prompt", "no prompt"
_ACCURATE: Final = "accurate"
"""The word that the study tells of."""
_ROWS: Final = 15
"""Shared words that are listed."""


def conduct(study: StudyContext) -> Findings:
    """The runs, what each token lies near, what is shared, and what the instruction alone scores."""
    runs = study.grid()
    work = _Work(study, runs)
    near = {at: study.once(f"near-{made.path.name}", partial(work.of_run, made)) for at, made in runs.items()}
    random = study.once("random", work.random)
    facts = study.once("vocabulary", lambda: work.lexicon.told())
    starred = chances(study, runs)
    rows = {
        label: collect_row(study, runs, name)
        for label, name in ((HARD, "instruction"), (NOTHING, "zero_shot"), (TUNED, "tuned"))
    }
    tables = (
        _moved(study, near, facts),
        score_table(study, "scores", "The instruction in words, and what became of it", rows, starred),
        difference_table(study, "differences", f"Above {HARD}", rows, HARD, starred),
        _counts(study, near, random),
        _words(study, near),
        *(_tokens(study, near, task) for task in study.tasks),
    )
    gains = [difference_cell(study, task, rows[TUNED][task], rows[HARD][task]) for task in study.tasks]
    gains = only_cells(corrected(gains))
    return Findings(tables, (_figure(study, near),), tuple(_sentences(study, near, random, gains)))


class _Work:
    """What needs the backbone, which is loaded when something isn't known from before."""

    def __init__(self, study: StudyContext, runs: Runs) -> None:
        self.study, self.runs = study, runs

    @cached_property
    def lexicon(self) -> Lexicon:
        recipe = self.study.spec(self.study.tasks[0], self.study.config.seed).recipe
        return Lexicon(open_set(recipe, "select").backbone, _k(self.study))

    def of_run(self, made: FinishedRun) -> dict[str, Any]:
        return self.lexicon.of_run(made.prompt("initial"), made.prompt("tuned"))

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


def _moved(study: StudyContext, near: Near, facts: Mapping[str, Any]) -> Table:
    def row(label: str, unit: str, value: Any) -> tuple[Entry, ...]:
        cells = (_over_seeds([value(near[task, seed]) for seed in study.seeds], unit) for task in study.tasks)
        return (label, *cells)

    rows = [
        row("moved, in lengths of a typical embedding", "number", lambda each: fmean(each["moved"])),
        row("cosine of start and end", "number", lambda each: fmean(each["cosine"])),
        *(
            row(
                f"nearest word still that of the start, by {name} (%)",
                "percent",
                lambda d, n=name: _share(stayed(d, n)),
            )
            for name in MEASURES
        ),
    ]
    note = (
        "Mean over tokens and seeds; in brackets, the smallest and the largest of the seeds. Random pairs of this "
        f"vocabulary's {facts['items']:,} items have a cosine of {facts['raw']:.2f}, and of {facts['centred']:.2f} "
        "without the mean of all (centred)."
    )
    return Table("moved", "What training did to the tokens", ("", *map(_named, study.tasks)), tuple(rows), note)


def _named(task: str) -> str:
    return Path(task).stem


def _counts(study: StudyContext, near: Near, random: Sequence[Words]) -> Table:
    levels = range(2, len(study.tasks) + 1)
    sources = {
        "tuned prompts": _sets(study, near, "end"),
        "the same at the start": _sets(study, near, "start"),
        f"random prompts as long, {len(random)} draws": random,
    }
    rows: list[tuple[Entry, ...]] = [
        (label, *(Cell(mean_shared(sets, least), unit="number") for least in levels)) for label, sets in sources.items()
    ]
    new = [[len(_new(study, near, seed, least)) for seed in study.seeds] for least in levels]
    rows.append(
        ("tuned prompts, words that were near none of them at the start", *(Cell(fmean(n), unit="number") for n in new))
    )
    note = (
        f"Words among the {_k(study)} nearest (centred cosine) of any token, one prompt a task; mean over seeds. "
        "Capitals don't matter; pieces of words count as words."
    )
    columns = ("words shared by", *(f"{least} tasks or more" for least in levels))
    return Table("shared", "How many words prompts of several tasks share", columns, tuple(rows), note)


def _new(study: StudyContext, near: Near, seed: int, least: int) -> list[str]:
    """Words that a seed's tuned prompts share and none of its prompts was near at the start."""
    before = {key(word) for task in study.tasks for word in flat(near[task, seed]["start"]["centred"])}
    after = {task: flat(near[task, seed]["end"]["centred"]) for task in study.tasks}
    return [word for word in shared(after, least) if word not in before]


def _holders(near: Near, side: str, word: str) -> list[tuple[str, int]]:
    """The prompts that are near a word."""
    return [at for at, each in near.items() if word in {key(other) for other in flat(each[side]["centred"])}]


def _asked(study: StudyContext) -> list[str]:
    return [key(str(word)) for word in study.options.get("words", ())]


def _words(study: StudyContext, near: Near) -> Table:
    found = {
        word: _holders(near, "end", word)
        for word in {key(word) for each in near.values() for word in flat(each["end"]["centred"])}
    }
    several = [word for word, at in found.items() if len({task for task, _ in at}) > 1]
    several.sort(key=lambda word: (-len({task for task, _ in found[word]}), -len(found[word]), word))
    rows: list[tuple[Entry, ...]] = []
    for word in dict.fromkeys([*_asked(study), *several[:_ROWS]]):
        at, before = found.get(word, []), _holders(near, "start", word)
        tasks = ", ".join(_named(task) for task in study.tasks if any(task == t for t, _ in at)) or "none"
        rows.append((word, tasks, Cell(len(at), unit="count"), Cell(len(before), unit="count")))
    note = (
        f"Of {len(near)} prompts. The words that were asked for, then those near prompts of most tasks, {_ROWS} at "
        f"most. A word counts for a task that is near any of its {len(study.seeds)} prompts."
    )
    columns = ("word", "tasks at the end", "prompts at the end", "prompts at the start")
    return Table("words", "Words near prompts of several tasks", columns, tuple(rows), note)


def _tokens(study: StudyContext, near: Near, task: str) -> Table:
    each = near[task, study.config.seed]
    rows: list[tuple[Entry, ...]] = []
    for p, moved in enumerate(each["moved"]):
        start, end = each["start"]["centred"][p], each["end"]["centred"][p]
        still = {True: "yes", False: "no", None: "no neighbour"}[stayed(each, "centred")[p]]
        rows.append((f"{p}", start[0] if start else "-", Cell(moved, unit="number"), "  ".join(end) or "-", still))
    columns = ("token", "nearest at the start", "moved", f"{_k(study)} nearest at the end", "still nearest")
    note = f"Seed {study.config.seed}; centred cosine; moved in lengths of a typical embedding."
    return Table(f"tokens-{_named(task)}", f"The prompt of {_named(task)}", columns, tuple(rows), note)


def _figure(study: StudyContext, near: Near) -> Figure:
    values = [
        [
            fmean(near[task, seed]["moved"][p] for seed in study.seeds)
            for p in range(len(near[task, study.config.seed]["moved"]))
        ]
        for task in study.tasks
    ]
    trace: dict[str, Any] = {"type": "heatmap", "y": [_named(task) for task in study.tasks], "z": values}
    trace |= {"colorbar": {"title": {"text": "moved"}}}
    caption = (
        "A row for each task, a square for each token of its prompt: how far it went from its start, in lengths of a "
        "typical embedding, mean over seeds. First come the instruction's words, then sampled vocabulary."
    )
    return Figure("moved", "How far tokens went", caption, (trace,), {"xaxis": {"title": {"text": "token"}}})


def _sentences(study: StudyContext, near: Near, random: Sequence[Words], gains: Sequence[Cell]) -> list[str]:
    most = max(2, len(study.tasks) - 1)
    end, start = (mean_shared(_sets(study, near, side), most) for side in ("end", "start"))
    chance = mean_shared(random, most)
    new = fmean(len(_new(study, near, seed, most)) for seed in study.seeds)
    went = fmean(fmean(each["moved"]) for each in near.values())
    stay = {name: _share([flag for each in near.values() for flag in stayed(each, name)]) for name in MEASURES}
    told = ", ".join(f"{name} {'not measured' if s is None else f'{s:.0%}'}" for name, s in stay.items())
    lines = [
        f"Tokens went {went:.2f} lengths of a typical embedding in the mean. Those whose nearest word is still the one "
        f"of the start: {told}. The study: key words persist. That words "
        "which stay are the important ones isn't measured here.",
        f"Words near the prompts of {most} tasks or more: {end:.1f} a seed after training, {start:.1f} before, "
        f"{chance:.1f} near random prompts as long; {new:.1f} of those after training are new. {_whence(new, chance)}",
        f"Tuned prompts less the instruction in words: {tally(gains)} of {len(gains)} tasks. "
        f"{interval_note(len(study.seeds))}",
    ]
    for word in _asked(study):
        after, before = (len({task for task, _ in _holders(near, side, word)}) for side in ("end", "start"))
        published = "; the study found it in 3 of 4" if word == _ACCURATE else ""
        lines.append(
            f'"{word}" is among the {_k(study)} nearest words of prompts of {after} of {len(study.tasks)} tasks, '
            f"before training of {before}{published}."
        )
    return lines


def _whence(new: float, chance: float) -> str:
    """New shared words beside those of random prompts; no test, for words hang together."""
    if new > chance:
        return "Those are more than random prompts share, in the mean; no interval, so nothing is shown by it."
    return "Those are no more than random prompts share: nothing shows that training brought any."
