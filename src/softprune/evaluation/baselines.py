"""The honest comparison: what the winner is compared with, and the one time that `report` is read.

The winner is compared with the best constant answer, the zero-shot model, the task's instruction in words, the tuned
prompt, the *control* (the unpruned prompt retrained exactly as the tickets were) and a random mask of the
winner's size, retrained. Winner, control and random mask are retrained on fresh seeds too (another order of the
training examples, another random mask), since the winner was chosen for how it did on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace

import torch

from softprune.config import Recipe
from softprune.evaluation.conclusions import Reported, conclude
from softprune.evaluation.result_rows import bar, group_ids, interval, predictions, row
from softprune.prompts.initialization import instruction_prompt
from softprune.prompts.soft_prompts import full_mask, masked_state
from softprune.pruning.gradual import Chain, run_chains
from softprune.pruning.masks import random_mask
from softprune.pruning.search import in_groups
from softprune.pruning.xprompt import Pruned, settle_strategy
from softprune.runs.record_parts import Headline, ResultRow, VerdictRecord
from softprune.training.distribute import finish_on_workers
from softprune.training.jobs import Fitted, Group, fit, fit_groups
from softprune.training.loop import FROM_THE_MODEL, check_finite
from softprune.training.scoring import ScoredSet, Scoring, score_each
from softprune.training.session import Workspace, encode_examples, room_for, truncation
from softprune.types import Candidate, PromptState, Scores

# A run has at most this many fresh seeds, so that runs with neighbouring seeds share none.
FRESH = 1_000
COMPARED = ("winner", "control", "random")


@dataclass(frozen=True, slots=True)
class Rivals:
    """What is compared with the winner, retrained."""

    control: Fitted  # the unpruned prompt, with the run's seed
    random: Fitted  # a random mask of the winner's size, likewise
    fresh: dict[str, Fitted]  # all three (random masks drawn again) on fresh seeds: `winner@0` and so on


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the table before it is scored: a prompt, and the seconds spent on training it.

    Where nothing was trained `state` is None; `words_QH` are embeddings of words in place of a prompt, none for the
    zero-shot model.
    """

    state: PromptState | None = None
    seconds: float = 0.0
    words_QH: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A document that was read before every input: how long it is, and what the model says behind all of it.

    `score` gives None where the document doesn't fit beside the texts.
    """

    tokens: int
    score: Callable[[ScoredSet, Scoring], Scores | None]


def train_rivals(workspace: Workspace, pruned: Pruned) -> Rivals:
    """Retrain control and random mask with the run's seed, then all three on the first fresh seeds."""
    seeds = range(workspace.recipe.selection.first_seeds)
    first = rival_groups(workspace, pruned, [("control", None), ("random", None)])
    fresh = rival_groups(workspace, pruned, fresh_pairs(workspace.recipe, seeds))
    finish_on_workers(workspace, fit, [*first, *fresh], "fresh")  # at once: none of them waits for another
    fitted, seed = fit_groups(workspace, first, "control"), workspace.recipe.seed
    return Rivals(fitted[f"control-{seed}"], fitted[f"random-{seed}"], retrain_fresh(workspace, pruned, seeds))


def report_xprompt(workspace: Workspace, pruned: Pruned, rivals: Rivals) -> dict[str, ResultRow]:
    """Fix the choices, read `report` once, write every result; returns the rows of the table by name."""
    winner, seconds = pruned.winner, pruned.whole.seconds
    entries = {
        "tuned": Entry(pruned.tuned.state, pruned.tuned.seconds),
        "control": Entry(rivals.control.state, seconds + rivals.control.seconds),
        "winner": Entry(winner.fitted.state, seconds + winner.fitted.seconds),
        "random": Entry(rivals.random.state, seconds + rivals.random.seconds),
    }
    extra = {name: fitted.state for name, fitted in rivals.fresh.items()}
    for trial in pruned.trials:
        if trial.candidate.pareto:
            extra[f"front@{trial.candidate.id}"] = trial.fitted.state
    with workspace.run.phase("report"):
        data, entries = _open_report(workspace, winner.candidate.id, entries)
        scored = _score(workspace, data, entries, extra)
        results = _results(workspace, data, entries, scored)
        candidates = _report_front(workspace, data, pruned, scored)
    reported = Reported(workspace.metric, group_ids(data), scored, results, len(pruned.trials))
    reported, conclusions = _until_decided(workspace, pruned, data, reported)
    with workspace.run.phase("report"):
        for name in COMPARED:
            fresh = [reported.scored[f"{name}@{i}"] for i in range(reported.seeds(name))]
            results[name].seeds = [workspace.metric.value(scores) for scores in fresh]
            # The verdict can be tested again from what every retraining answered.
            for i, scores in enumerate(fresh):
                workspace.run.write_jsonl(
                    f"predictions/fresh/{name}-{i}.jsonl", predictions(data, scores, workspace.metric, alone=True)
                )
        workspace.run.write_jsonl("candidates.jsonl", [asdict(candidate) for candidate in candidates])
        _write(workspace, data, results, reported.scored, conclusions)
    return results


def _until_decided(
    workspace: Workspace, pruned: Pruned, data: ScoredSet, reported: Reported
) -> tuple[Reported, tuple[VerdictRecord, Headline]]:
    """Conclude; retrain on more fresh seeds if the first ones leave the verdict open and more of them may decide it.

    Nothing else is chosen here, so `report` may be read again: only how often the same prompts are retrained depends on
    it. That costs some of the test's level, which docs/statistics.md measures.
    """
    recipe = settle_strategy(workspace).recipe
    known, most = reported.seeds(), recipe.selection.most_seeds
    with workspace.run.phase("report"):
        conclusions = conclude(recipe, reported)
    if known == most or conclusions[0].more_seeds is None:
        return reported, conclusions
    more = retrain_fresh(workspace, pruned, range(known, most))
    with workspace.run.phase("report"):
        scored = _score(workspace, data, {}, {name: fitted.state for name, fitted in more.items()})
        reported = replace(reported, scored={**reported.scored, **scored})
        return reported, conclude(recipe, reported)


def report_tuned(workspace: Workspace, tuned: Fitted) -> dict[str, ResultRow]:
    """The same for a run that only tunes."""
    with workspace.run.phase("report"):
        data, entries = _open_report(workspace, "tuned", {"tuned": Entry(tuned.state, tuned.seconds)})
        scored = _score(workspace, data, entries, {})
        results = _results(workspace, data, entries, scored)
        _write(workspace, data, results, scored, None)
    return results


def report_adapted(
    workspace: Workspace,
    adapted: Callable[[ScoredSet, Scoring], Scores],
    off: Callable[[], AbstractContextManager[None]],
    *,
    seconds: float,
    parameters: int,
    tokens: int | None,
    document: Document | None = None,
) -> None:
    """The same for a model that was adapted in another way: the workspace's backbone reads with the adapter.

    `adapted` scores the adapted model on a set, and within the block of `off` the model is as it was. `seconds` are of
    its training, `parameters` those that were trained, and `tokens` those of its prompt where it has one. With a
    `document`, the model behind it has a row too.
    """
    with workspace.run.phase("report"):
        data, entries = _open_report(workspace, "adapted", {})
        with off():
            scored = _score(workspace, data, entries, {})
        scored["adapted"] = adapted(data, workspace.reporting)
        check_finite([scored["adapted"].loss], ["adapted"], "report loss", "after training", FROM_THE_MODEL)
        beside = None if document is None else document.score(data, workspace.reporting)
        if beside is not None:
            scored["document"], entries = beside, entries | {"document": Entry()}
        results = _results(workspace, data, entries | {"adapted": Entry(seconds=seconds)}, scored)
        if document is not None and "document" in results:
            results["document"].tokens = document.tokens
        result = results["adapted"]
        result.parameters = parameters
        if tokens is not None:
            result.tokens = tokens
        if data.is_generation:
            train, select = (adapted(part, workspace.scoring) for part in (workspace.train, workspace.select))
            result.losses = {"train": train.loss, "select": select.loss, "report": result.loss}
        _write(workspace, data, results, scored, None)


def _open_report(workspace: Workspace, choice: str, trained: dict[str, Entry]) -> tuple[ScoredSet, dict[str, Entry]]:
    """The `report` examples, now that all is chosen, and what is scored on them: what was trained, and the model alone.

    And the model behind the task's instruction where the task has one and the model's positions allow it.
    """
    workspace.report.fix(choice)
    data = encode_examples(workspace.recipe, workspace.backbone, workspace.report.open())
    entries = {"zero_shot": Entry()}
    words_QH = instruction_prompt(workspace.backbone, workspace.task)
    if words_QH is not None:
        longest, scoring = max(data.lengths), workspace.reporting
        generated = scoring.max_answer_length if scoring.match == "generate" else 0
        if room_for(workspace.backbone, data.examples, words_QH.shape[0], longest, generated) == longest:
            entries["instruction"] = Entry(words_QH=words_QH)
    return data, entries | trained


def _score(
    workspace: Workspace, data: ScoredSet, entries: dict[str, Entry], extra: dict[str, PromptState]
) -> dict[str, Scores]:
    """Every reported prompt on `report`, those of equal length together."""
    backbone = workspace.backbone
    prompts = {}
    for name, entry in entries.items():
        if entry.state is not None:
            prompts[name] = workspace.prompt(entry.state)
        elif entry.words_QH is not None:
            prompts[name] = entry.words_QH.to(backbone.device, backbone.prompt_dtype)
        else:
            prompts[name] = torch.zeros(0, backbone.info.hidden, device=backbone.device, dtype=backbone.prompt_dtype)
    prompts |= {name: workspace.prompt(state) for name, state in extra.items()}
    scored = score_each(backbone, list(prompts.values()), data, workspace.reporting)
    check_finite([scores.loss for scores in scored], list(prompts), "report loss", "after training", FROM_THE_MODEL)
    return dict(zip(prompts, scored, strict=True))


def _results(
    workspace: Workspace, data: ScoredSet, entries: dict[str, Entry], scored: dict[str, Scores]
) -> dict[str, ResultRow]:
    """The rows of the table by name; of texts, whose loss is a result by itself, with the loss on all three sets."""
    results = {"constant": bar(workspace, data)}
    trained = {}
    for name, entry in entries.items():
        result = results[name] = row(workspace, data, scored[name])
        result.seconds = entry.seconds
        if entry.state is not None:
            mask = entry.state.mask
            result.tokens, result.pieces = mask.tokens, mask.pieces
            result.parameters = mask.parameters(workspace.backbone.info.hidden)
            trained[name] = workspace.prompt(entry.state)
        elif entry.words_QH is not None:
            result.tokens = entry.words_QH.shape[0]
    if data.is_generation:
        prompts, scoring = list(trained.values()), workspace.scoring
        train = score_each(workspace.backbone, prompts, workspace.train, scoring)
        select = score_each(workspace.backbone, prompts, workspace.select, scoring)
        for name, on_train, on_select in zip(trained, train, select, strict=True):
            results[name].losses = {"train": on_train.loss, "select": on_select.loss, "report": results[name].loss}
    return results


def _report_front(workspace: Workspace, data: ScoredSet, pruned: Pruned, scored: dict[str, Scores]) -> list[Candidate]:
    """Candidates with `report` filled in on the Pareto front and for the winner; the others stay not measured."""
    candidates = []
    for trial in pruned.trials:
        candidate, scores = trial.candidate, scored.get(f"front@{trial.candidate.id}")
        if candidate.id == pruned.winner.candidate.id:
            scores = scored["winner"]
        if scores is not None:
            value = workspace.metric.value(scores)
            candidate = replace(candidate, report=value, interval=interval(workspace, data, scores))
        candidates.append(candidate)
    return candidates


def _write(
    workspace: Workspace,
    data: ScoredSet,
    results: dict[str, ResultRow],
    scored: Mapping[str, Scores],
    conclusions: tuple[VerdictRecord, Headline] | None,
) -> None:
    """Results, verdict and headline into run.json, predictions into their files."""
    with workspace.run.editing() as record:
        record.results = {**record.results, **results}
        record.task.truncated = truncation(workspace.train, workspace.select, data)
        record.headline = None
        if conclusions is not None:
            record.verdict, record.headline = conclusions
    for name in results:
        if name in scored:  # the constant answer isn't
            workspace.run.write_jsonl(f"predictions/{name}.jsonl", predictions(data, scored[name], workspace.metric))


# --- retraining on the run's seed and on fresh ones ---


def fresh_seed(run_seed: int, fresh: int | None) -> int:
    """The seed behind a run's fresh seed number `fresh` (below 1,000), which no two runs share; None: the run's own."""
    return run_seed if fresh is None else FRESH * (run_seed + 1) + fresh


def retrain_fresh(workspace: Workspace, pruned: Pruned, seeds: Sequence[int]) -> dict[str, Fitted]:
    """Retrain winner, control and random mask on fresh seeds (0, 1, ...), by `winner@0` and so on.

    What was pruned while it trained is pruned so again on every seed, which leaves each a mask of its own.
    """
    pairs, own = fresh_pairs(workspace.recipe, seeds), workspace.recipe.seed
    fitted = fit_groups(workspace, rival_groups(workspace, pruned, pairs), "fresh")
    again = {f"{name}@{number}": f"{name}-{fresh_seed(own, number)}" for name, number in pairs}
    if pruned.keep is not None:
        chains = [Chain(again[f"winner@{number}"], pruned.keep, fresh_seed(own, number)) for number in seeds]
        fitted |= run_chains(workspace, pruned.whole, pruned.teacher, chains, "fresh")
    return {name: fitted[prompt] for name, prompt in again.items()}


def fresh_pairs(recipe: Recipe, seeds: Sequence[int]) -> list[tuple[str, int]]:
    """What is retrained on which fresh seed: winner and control on all, the random mask on as many as it gets."""
    last = recipe.selection.random_seeds
    return [(name, number) for number in seeds for name in COMPARED if name != "random" or number < last]


def rival_groups(workspace: Workspace, pruned: Pruned, pairs: Sequence[tuple[str, int | None]]) -> list[Group]:
    """Some of winner, control and random mask in groups to be retrained, each prompt named such as `winner-1000`.

    A pair is one of the three, and the number of its fresh seed; None in all of them for the run's own seed. Prompts of
    equal length train side by side, each with the data order of its own seed, so it ends as it would alone. Winners
    that are pruned while they train aren't among them.
    """
    recipe, vectors_PH = workspace.recipe, pruned.whole.state.vectors_PH
    if pruned.keep is not None:
        pairs = [pair for pair in pairs if pair[0] != "winner"]
    drawn = [fresh_seed(recipe.seed, fresh) for _, fresh in pairs]
    starts = []
    for (name, _), seed in zip(pairs, drawn, strict=True):
        if name == "control":
            starts.append(PromptState(vectors_PH, full_mask(recipe.prompt.tokens, recipe.prompt.pieces)))
            continue
        mask = pruned.winner.mask
        starts.append(masked_state(vectors_PH, random_mask(mask, seed) if name == "random" else mask))
    groups = []
    for places in in_groups([start.mask.tokens for start in starts], workspace.group, recipe.pruning.removal):
        numbers: dict[str, list[int]] = {}
        for place in places:
            name, fresh = pairs[place]
            numbers.setdefault(name, []).extend([] if fresh is None else [fresh])
        seeds = tuple(drawn[place] for place in places)
        phase = "fresh" if any(numbers.values()) else "control"
        plural = "s" * (len(set(seeds)) > 1)
        groups.append(
            Group(
                work="-".join([phase, *(f"{name}{spans(numbers[name], 'to', '+')}" for name in numbers)]),
                names=tuple(f"{pairs[place][0]}-{drawn[place]}" for place in places),
                starts=tuple(starts[place] for place in places),
                phase=phase,
                title=f"retraining {', '.join(numbers)} (seed{plural} {spans(sorted(set(seeds)))})",
                epochs=recipe.search.epochs,
                seeds=seeds,
                teacher=pruned.teacher,
            )
        )
    return groups


def spans(numbers: Sequence[int], to: str = " to ", then: str = ", ") -> str:
    """Ascending whole numbers in short, such as `0 to 4, 7`, however many they are."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    texts = [str(first) if first == last else f"{first}{to}{last}" for first, last in runs]
    return then.join(texts)
