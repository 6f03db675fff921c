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
from softprune.studies.run_result import Made
from softprune.studies.score_rows import Runs, chances, difference_cell, difference_table, row_of, score_table
from softprune.studies.study_context import Bench
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


def conduct(bench: Bench) -> Findings:
    """The runs, what each token lies near, what is shared, and what the instruction alone scores."""
    runs = bench.grid()
    work = _Work(bench, runs)
    near = {at: bench.once(f"near-{made.path.name}", partial(work.of_run, made)) for at, made in runs.items()}
    random = bench.once("random", work.random)
    facts = bench.once("vocabulary", lambda: work.lexicon.told())
    starred = chances(bench, runs)
    rows = {
        label: row_of(bench, runs, name)
        for label, name in ((HARD, "instruction"), (NOTHING, "zero_shot"), (TUNED, "tuned"))
    }
    tables = (
        _moved(bench, near, facts),
        score_table(bench, "scores", "The instruction in words, and what became of it", rows, starred),
        difference_table(bench, "differences", f"Above {HARD}", rows, HARD, starred),
        _counts(bench, near, random),
        _words(bench, near),
        *(_tokens(bench, near, task) for task in bench.tasks),
    )
    gains = [difference_cell(bench, task, rows[TUNED][task], rows[HARD][task]) for task in bench.tasks]
    gains = only_cells(corrected(gains))
    return Findings(tables, (_figure(bench, near),), tuple(_sentences(bench, near, random, gains)))


class _Work:
    """What needs the backbone, which is loaded when something isn't known from before."""

    def __init__(self, bench: Bench, runs: Runs) -> None:
        self.bench, self.runs = bench, runs

    @cached_property
    def lexicon(self) -> Lexicon:
        recipe = self.bench.spec(self.bench.tasks[0], self.bench.study.seed).recipe
        return Lexicon(open_set(recipe, "select").backbone, _k(self.bench))

    def of_run(self, made: Made) -> dict[str, Any]:
        return self.lexicon.of_run(made.prompt("initial"), made.prompt("tuned"))

    def random(self) -> list[Words]:
        lengths = {
            task: self.runs[task, self.bench.study.seed].prompt("tuned").norm(dim=-1) for task in self.bench.tasks
        }
        return self.lexicon.by_chance(lengths, int(self.bench.options.get("draws", 20)))


def _k(bench: Bench) -> int:
    return int(bench.options.get("k", 3))


def stayed(document: Mapping[str, Any], measure: str) -> list[bool | None]:
    """Whether each token's nearest item is still the one of the start; None where either has none."""
    pairs = zip(document["start"][measure], document["end"][measure], strict=True)
    return [before[0] == after[0] if before and after else None for before, after in pairs]


def _share(flags: Sequence[bool | None]) -> float | None:
    known = [flag for flag in flags if flag is not None]
    return fmean(map(float, known)) if known else None


def _sets(bench: Bench, near: Near, side: str) -> list[Words]:
    """By seed and task, the words near a prompt at its start or end."""
    return [{task: flat(near[task, seed][side]["centred"]) for task in bench.tasks} for seed in bench.seeds]


def _over_seeds(values: Sequence[float | None], unit: str) -> Cell:
    """The mean of the seeds' values, and how far they spread."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return Cell(None, unit=unit)
    factor, digits = (100, 0) if unit == "percent" else (1, 2)
    spread = f"[{factor * min(known):.{digits}f} to {factor * max(known):.{digits}f}]" if len(known) > 1 else ""
    return Cell(fmean(known), unit=unit, note=spread)


def _moved(bench: Bench, near: Near, facts: Mapping[str, Any]) -> Table:
    def row(label: str, unit: str, value: Any) -> tuple[Entry, ...]:
        cells = (_over_seeds([value(near[task, seed]) for seed in bench.seeds], unit) for task in bench.tasks)
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
    return Table("moved", "What training did to the tokens", ("", *map(_named, bench.tasks)), tuple(rows), note)


def _named(task: str) -> str:
    return Path(task).stem


def _counts(bench: Bench, near: Near, random: Sequence[Words]) -> Table:
    levels = range(2, len(bench.tasks) + 1)
    sources = {
        "tuned prompts": _sets(bench, near, "end"),
        "the same at the start": _sets(bench, near, "start"),
        f"random prompts as long, {len(random)} draws": random,
    }
    rows: list[tuple[Entry, ...]] = [
        (label, *(Cell(mean_shared(sets, least), unit="number") for least in levels)) for label, sets in sources.items()
    ]
    new = [[len(_new(bench, near, seed, least)) for seed in bench.seeds] for least in levels]
    rows.append(
        ("tuned prompts, words that were near none of them at the start", *(Cell(fmean(n), unit="number") for n in new))
    )
    note = (
        f"Words among the {_k(bench)} nearest (centred cosine) of any token, one prompt a task; mean over seeds. "
        "Capitals don't matter; pieces of words count as words."
    )
    columns = ("words shared by", *(f"{least} tasks or more" for least in levels))
    return Table("shared", "How many words prompts of several tasks share", columns, tuple(rows), note)


def _new(bench: Bench, near: Near, seed: int, least: int) -> list[str]:
    """Words that a seed's tuned prompts share and none of its prompts was near at the start."""
    before = {key(word) for task in bench.tasks for word in flat(near[task, seed]["start"]["centred"])}
    after = {task: flat(near[task, seed]["end"]["centred"]) for task in bench.tasks}
    return [word for word in shared(after, least) if word not in before]


def _holders(near: Near, side: str, word: str) -> list[tuple[str, int]]:
    """The prompts that are near a word."""
    return [at for at, each in near.items() if word in {key(other) for other in flat(each[side]["centred"])}]


def _asked(bench: Bench) -> list[str]:
    return [key(str(word)) for word in bench.options.get("words", ())]


def _words(bench: Bench, near: Near) -> Table:
    found = {
        word: _holders(near, "end", word)
        for word in {key(word) for each in near.values() for word in flat(each["end"]["centred"])}
    }
    several = [word for word, at in found.items() if len({task for task, _ in at}) > 1]
    several.sort(key=lambda word: (-len({task for task, _ in found[word]}), -len(found[word]), word))
    rows: list[tuple[Entry, ...]] = []
    for word in dict.fromkeys([*_asked(bench), *several[:_ROWS]]):
        at, before = found.get(word, []), _holders(near, "start", word)
        tasks = ", ".join(_named(task) for task in bench.tasks if any(task == t for t, _ in at)) or "none"
        rows.append((word, tasks, Cell(len(at), unit="count"), Cell(len(before), unit="count")))
    note = (
        f"Of {len(near)} prompts. The words that were asked for, then those near prompts of most tasks, {_ROWS} at "
        f"most. A word counts for a task that is near any of its {len(bench.seeds)} prompts."
    )
    columns = ("word", "tasks at the end", "prompts at the end", "prompts at the start")
    return Table("words", "Words near prompts of several tasks", columns, tuple(rows), note)


def _tokens(bench: Bench, near: Near, task: str) -> Table:
    each = near[task, bench.study.seed]
    rows: list[tuple[Entry, ...]] = []
    for p, moved in enumerate(each["moved"]):
        start, end = each["start"]["centred"][p], each["end"]["centred"][p]
        still = {True: "yes", False: "no", None: "no neighbour"}[stayed(each, "centred")[p]]
        rows.append((f"{p}", start[0] if start else "-", Cell(moved, unit="number"), "  ".join(end) or "-", still))
    columns = ("token", "nearest at the start", "moved", f"{_k(bench)} nearest at the end", "still nearest")
    note = f"Seed {bench.study.seed}; centred cosine; moved in lengths of a typical embedding."
    return Table(f"tokens-{_named(task)}", f"The prompt of {_named(task)}", columns, tuple(rows), note)


def _figure(bench: Bench, near: Near) -> Figure:
    values = [
        [
            fmean(near[task, seed]["moved"][p] for seed in bench.seeds)
            for p in range(len(near[task, bench.study.seed]["moved"]))
        ]
        for task in bench.tasks
    ]
    trace: dict[str, Any] = {"type": "heatmap", "y": [_named(task) for task in bench.tasks], "z": values}
    trace |= {"colorbar": {"title": {"text": "moved"}}}
    caption = (
        "A row for each task, a square for each token of its prompt: how far it went from its start, in lengths of a "
        "typical embedding, mean over seeds. First come the instruction's words, then sampled vocabulary."
    )
    return Figure("moved", "How far tokens went", caption, (trace,), {"xaxis": {"title": {"text": "token"}}})


def _sentences(bench: Bench, near: Near, random: Sequence[Words], gains: Sequence[Cell]) -> list[str]:
    most = max(2, len(bench.tasks) - 1)
    end, start = (mean_shared(_sets(bench, near, side), most) for side in ("end", "start"))
    chance = mean_shared(random, most)
    new = fmean(len(_new(bench, near, seed, most)) for seed in bench.seeds)
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
        f"{interval_note(len(bench.seeds))}",
    ]
    for word in _asked(bench):
        after, before = (len({task for task, _ in _holders(near, side, word)}) for side in ("end", "start"))
        study = "; the study found it in 3 of 4" if word == _ACCURATE else ""
        lines.append(
            f'"{word}" is among the {_k(bench)} nearest words of prompts of {after} of {len(bench.tasks)} tasks, '
            f"before training of {before}{study}."
        )
    return lines


def _whence(new: float, chance: float) -> str:
    """New shared words beside those of random prompts; no test, for words hang together."""
    if new > chance:
        return "Those are more than random prompts share, in the mean; no interval, so nothing is shown by it."
    return "Those are no more than random prompts share: nothing shows that training brought any."
