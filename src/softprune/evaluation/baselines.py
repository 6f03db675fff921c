"""The honest comparison: what the winner is held against, and the one time that `report` is read.

Beside the winner stand the best constant answer, the zero-shot model, the task's instruction in words (a hard prompt),
the tuned prompt, the *control* (the unpruned prompt retrained exactly as the tickets were) and a random mask of the
winner's size, retrained. Winner, control and random mask are retrained on fresh seeds too, since the winner was chosen
for how it did on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace

import torch

from softprune.evaluation.conclusions import Reported, conclude
from softprune.evaluation.fresh_seeds import COMPARED, fresh_pairs, retrain_fresh, rival_groups
from softprune.evaluation.result_rows import answers_alone, bar, groups_of, interval, predictions, row
from softprune.prompts.soft_prompts import read_one
from softprune.pruning.xprompt import Pruned, decided
from softprune.runs.record_parts import Headline, ResultRow, VerdictRecord
from softprune.training.distribute import finish_on_workers
from softprune.training.initial_prompt import instruction_prompt
from softprune.training.jobs import Fitted, fit, fit_groups
from softprune.training.nan_checks import FROM_THE_MODEL, check_finite
from softprune.training.scoring import ScoredSet, Scoring, score_each
from softprune.training.session import Workspace, room_for, together, truncation
from softprune.types import Candidate, PromptState, Scores


@dataclass(frozen=True, slots=True)
class Rivals:
    """What stands beside the winner.

    Attributes:
        control: the unpruned prompt, retrained with the run's seed.
        random: a random mask of the winner's size, retrained likewise.
        fresh: per fresh seed, the retrained winner, control and random mask (drawn again).
    """

    control: Fitted
    random: Fitted
    fresh: tuple[dict[str, Fitted], ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the table before it is scored.

    Attributes:
        state: the prompt; None for one that nothing was trained for.
        seconds: spent on training it.
        words_QH: then, embeddings of words that stand in its place; none for the zero-shot model.
    """

    state: PromptState | None
    seconds: float
    words_QH: torch.Tensor | None = None


def train_rivals(workspace: Workspace, pruned: Pruned) -> Rivals:
    """Retrain control and random mask with the run's seed, then all three on the first fresh seeds."""
    seeds = range(workspace.recipe.selection.first_seeds)
    first = rival_groups(workspace, pruned, [("control", None), ("random", None)])
    fresh = rival_groups(workspace, pruned, fresh_pairs(workspace.recipe, seeds))
    finish_on_workers(workspace, fit, [*first, *fresh], "fresh")  # at once: none of them waits for another
    found, seed = fit_groups(workspace, first, "control"), workspace.recipe.seed
    return Rivals(found[f"control-{seed}"], found[f"random-{seed}"], retrain_fresh(workspace, pruned, seeds))


def report_xprompt(workspace: Workspace, pruned: Pruned, rivals: Rivals) -> dict[str, ResultRow]:
    """Fix the choices, read `report` once, write every result; returns the rows of the table by name."""
    winner = pruned.winner
    tuned_seconds = pruned.tuned.seconds
    entries = {
        "tuned": Entry(pruned.tuned.state, tuned_seconds),
        "control": Entry(rivals.control.state, tuned_seconds + rivals.control.seconds),
        "winner": Entry(winner.fitted.state, tuned_seconds + winner.fitted.seconds),
        "random": Entry(rivals.random.state, tuned_seconds + rivals.random.seconds),
    }
    extra = _fresh_states(rivals.fresh)
    extra |= {f"front@{t.candidate.id}": t.fitted.state for t in pruned.trials if t.candidate.pareto}
    with workspace.run.phase("report"):
        workspace.report.fix(winner.candidate.id)
        data = workspace.encode(workspace.report.open())
        entries = _untrained(workspace, data) | entries
        scored = _score(workspace, data, entries, extra)
        results = _results(workspace, data, entries, scored)
        _add_losses(workspace, entries, results)
        candidates = _report_front(workspace, data, pruned, scored)
    reported = Reported(workspace.metric, groups_of(data), scored, results, len(pruned.trials))
    reported, conclusions = _until_decided(workspace, pruned, data, reported)
    with workspace.run.phase("report"):
        _add_seeds(workspace, reported)
        _write(workspace, data, results, reported.scored, conclusions, candidates)
        _write_fresh(workspace, data, reported)
    return results


def _until_decided(
    workspace: Workspace, pruned: Pruned, data: ScoredSet, reported: Reported
) -> tuple[Reported, tuple[VerdictRecord, Headline]]:
    """Conclude; retrain on more fresh seeds if the first ones leave the verdict open and more of them may decide it.

    Nothing else is chosen here, so `report` may be read again: only how often the same prompts are retrained depends on
    it. That costs some of the test's level, which docs/statistics.md measures.
    """
    recipe = decided(workspace).recipe
    known, most = reported.seeds, recipe.selection.most_seeds
    with workspace.run.phase("report"):
        conclusions = conclude(recipe, reported)
    if known == most or conclusions[0].more_seeds is None:
        return reported, conclusions
    more = retrain_fresh(workspace, pruned, range(known, most))
    with workspace.run.phase("report"):
        scored = _score(workspace, data, {}, _fresh_states(more, known))
        reported = replace(reported, scored={**reported.scored, **scored})
        return reported, conclude(recipe, reported)


def _fresh_states(fresh: Sequence[dict[str, Fitted]], first: int = 0) -> dict[str, PromptState]:
    """Prompts of fresh seeds, by `winner@0` and so on."""
    return {f"{name}@{i}": fitted.state for i, trio in enumerate(fresh, start=first) for name, fitted in trio.items()}


def _write_fresh(workspace: Workspace, data: ScoredSet, reported: Reported) -> None:
    """What every retraining answered, in predictions/fresh: the verdict can be tested again from it."""
    for name in COMPARED:
        for i in range(reported.seeds_of(name)):
            lines = answers_alone(data, reported.scored[f"{name}@{i}"])
            workspace.run.write_jsonl(f"predictions/fresh/{name}-{i}.jsonl", lines)


def report_tuned(workspace: Workspace, tuned: Fitted) -> dict[str, ResultRow]:
    """The same for a run that only tunes."""
    entries = {"tuned": Entry(tuned.state, tuned.seconds)}
    with workspace.run.phase("report"):
        workspace.report.fix("tuned")
        data = workspace.encode(workspace.report.open())
        entries = _untrained(workspace, data) | entries
        scored = _score(workspace, data, entries, {})
        results = _results(workspace, data, entries, scored)
        _add_losses(workspace, entries, results)
        _write(workspace, data, results, scored, None, None)
    return results


@dataclass(frozen=True, slots=True)
class AdapterSize:
    """What the row of an adapted model holds beside its scores.

    Attributes:
        seconds: spent on training it.
        parameters: that were trained.
        tokens: of its prompt; None where it has none.
    """

    seconds: float
    parameters: int
    tokens: int | None


def report_adapted(
    workspace: Workspace,
    size: AdapterSize,
    adapted: Callable[[ScoredSet, Scoring], Scores],
    off: Callable[[], AbstractContextManager[None]],
) -> None:
    """The same for a model that was adapted in another way.

    Args:
        workspace: whose backbone reads with the adapter.
        size: what its row of the table holds beside the scores.
        adapted: what the adapted model says of a set, scored so.
        off: the model as it was, within the block.
    """
    with workspace.run.phase("report"):
        workspace.report.fix("adapted")
        data = workspace.encode(workspace.report.open())
        entries = _untrained(workspace, data)
        with off():
            scored = _score(workspace, data, entries, {})
        scored["adapted"] = adapted(data, workspace.reporting)
        entries["adapted"] = Entry(None, 0.0)
        check_finite([scored["adapted"].loss], ["adapted"], "report loss", "after training", FROM_THE_MODEL)
        results = _results(workspace, data, entries, scored)
        found = results["adapted"]
        found.seconds, found.parameters = size.seconds, size.parameters
        if size.tokens is not None:
            found.tokens = size.tokens
        if workspace.train.is_generation:
            sets = {"train": workspace.train, "select": workspace.select}
            losses = {part: adapted(examples, workspace.scoring).loss for part, examples in sets.items()}
            found.losses = {**losses, "report": found.loss}
        _write(workspace, data, results, scored, None, None)


def _untrained(workspace: Workspace, data: ScoredSet) -> dict[str, Entry]:
    """The model alone, and behind the task's instruction where the task has one and the model's positions allow it."""
    entries = {"zero_shot": Entry(None, 0.0)}
    words_QH = instruction_prompt(workspace.backbone, workspace.task)
    if words_QH is None:
        return entries
    longest, scoring = max(data.lengths), workspace.reporting
    generated = scoring.max_answer_length if scoring.match == "generate" else 0
    if room_for(workspace.backbone, data.examples, words_QH.shape[0], longest, generated) == longest:
        entries["instruction"] = Entry(None, 0.0, words_QH)
    return entries


def _score(
    workspace: Workspace, data: ScoredSet, entries: dict[str, Entry], extra: dict[str, PromptState]
) -> dict[str, Scores]:
    """Every reported prompt on `report`, those of equal length together."""
    backbone, removal = workspace.backbone, workspace.recipe.pruning.removal
    nothing = torch.zeros(0, backbone.info.hidden)
    states = {name: entry.state for name, entry in entries.items() if entry.state is not None} | extra
    read = {name: entry.words_QH if entry.words_QH is not None else nothing for name, entry in entries.items()}
    read |= {name: read_one(state, removal) for name, state in states.items()}
    prompts = {name: prompt.to(backbone.device, backbone.prompt_dtype) for name, prompt in read.items()}
    found = score_each(backbone, list(prompts.values()), data, workspace.reporting)
    check_finite([scores.loss for scores in found], list(prompts), "report loss", "after training", FROM_THE_MODEL)
    return dict(zip(prompts, found, strict=True))


def _results(
    workspace: Workspace, data: ScoredSet, entries: dict[str, Entry], scored: dict[str, Scores]
) -> dict[str, ResultRow]:
    results = {"constant": bar(workspace, data)}
    for name, entry in entries.items():
        found = results[name] = row(workspace, data, scored[name])
        found.seconds = entry.seconds
        if entry.state is not None:
            mask = entry.state.mask
            found.tokens, found.pieces = mask.tokens, mask.pieces
            found.parameters = mask.parameters(workspace.backbone.info.hidden)
        elif entry.words_QH is not None:
            found.tokens = entry.words_QH.shape[0]
    return results


def _add_losses(workspace: Workspace, entries: dict[str, Entry], results: dict[str, ResultRow]) -> None:
    """Of texts, whose loss is a result by itself: what it is of trained prompts on each of the three sets."""
    trained = {name: entry.state for name, entry in entries.items() if entry.state is not None}
    if not workspace.train.is_generation:
        return
    backbone, removal = workspace.backbone, workspace.recipe.pruning.removal
    prompts = [read_one(s, removal).to(backbone.device, backbone.prompt_dtype) for s in trained.values()]
    train = score_each(backbone, prompts, workspace.train, workspace.scoring)
    select = score_each(backbone, prompts, workspace.select, workspace.scoring)
    for name, on_train, on_select in zip(trained, train, select, strict=True):
        found = results[name]
        found.losses = {"train": on_train.loss, "select": on_select.loss, "report": found.loss}


def _add_seeds(workspace: Workspace, reported: Reported) -> None:
    """The metric of each fresh retraining, beside the row's own."""
    for name in COMPARED:
        fresh = [reported.scored[f"{name}@{i}"] for i in range(reported.seeds_of(name))]
        reported.results[name].seeds = [workspace.metric.value(s) for s in fresh]


def _report_front(workspace: Workspace, data: ScoredSet, pruned: Pruned, scored: dict[str, Scores]) -> list[Candidate]:
    """Candidates with `report` filled in on the Pareto front; the others stay not measured."""
    done = []
    for trial in pruned.trials:
        scores = scored.get(f"front@{trial.candidate.id}")
        if trial.candidate.id == pruned.winner.candidate.id:
            scores = scored["winner"]
        if scores is None:
            done.append(trial.candidate)
            continue
        value = workspace.metric.value(scores)
        done.append(trial.candidate.updated(report=value, interval=interval(workspace, data, scores)))
    return done


def _write(
    workspace: Workspace,
    data: ScoredSet,
    results: dict[str, ResultRow],
    scored: Mapping[str, Scores],
    conclusions: tuple[VerdictRecord, Headline] | None,
    candidates: Sequence[Candidate] | None,
) -> None:
    """Results, verdict and headline into run.json, candidates and predictions into their files."""
    run = workspace.run
    counts = [truncation(part) for part in (workspace.train, workspace.select, data)]
    with run.editing() as record:
        record.results = {**record.results, **results}
        record.task.truncated = together(counts)
        record.headline = None
        if conclusions is not None:
            record.verdict, record.headline = conclusions
    if candidates is not None:
        run.write_jsonl("candidates.jsonl", [asdict(c) for c in candidates])
    for name in ("zero_shot", "instruction", "tuned", "adapted", "control", "winner", "random"):
        if name in results and name in scored:
            run.write_jsonl(f"predictions/{name}.jsonl", predictions(data, scored[name]))
