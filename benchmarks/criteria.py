"""Which criterion predicts best what a prompt can do without: each of them on the same tuned prompts.

    SOFTPRUNE_DATA=DATA python benchmarks/criteria.py [--models tiny] [--tasks demo,trec] [--rounds 3] [--runs FOLDER]
        [key=value ...]

A round is a seed: it tunes a prompt, measures every criterion on `train`, keeps 50%, 25% and 10% of the tokens by each,
and retrains what is left as a search does, beside the whole prompt. A criterion that keeps the same tokens as another
has the same results. Nothing is chosen but what `select` says is best, which a note names for each share.

ranks        correlation (Spearman) of the tokens' scores with what masking the single token does to the loss on
             `select`: the mean of the rounds, 95% over rounds and, resampled, over tokens
before       the loss on `select` of the masked prompt before it is retrained, less that of the whole one: mean, least
             and greatest of the rounds
report       the score on `report` after retraining, in percent; 95% over rounds and examples
less random  the same less that of the criterion `random`, paired by round and example

With fewer than three rounds intervals cover the examples (or tokens) alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias

from timing import flags, listed, show, write

from softprune.config import Recipe, resolve
from softprune.config.criteria import CRITERIA
from softprune.pruning.criteria.base import Importance
from softprune.pruning.importance import measure
from softprune.pruning.search import MaskedCandidate
from softprune.pruning.xprompt import plan, retrain
from softprune.runs.executors import Executor
from softprune.runs.run_folder import RunFolder, Saved
from softprune.statistics.bootstrap import Floats, Groups, Score
from softprune.statistics.seeds import compare_rows
from softprune.studies.experiments.importance import interval_cell, mean_correlations
from softprune.training.jobs import Fitted, tune
from softprune.training.loop import Watch
from softprune.training.scoring import ScoredSet, score_each
from softprune.training.session import Workspace, encode_examples, prepare

SHARES = (0.5, 0.25, 0.1)  # of the tokens, kept
Key: TypeAlias = tuple[float, str]  # the share of the tokens that is kept, and the criterion
WHOLE: Key = (1.0, "whole prompt")
SETTINGS = (
    "backbone.threads=1",
    "task.shots=300",
    "task.limit_report=500",
    "task.report_seed=0",
    "selection.fraction=0.3",
    "prompt.init=labels",
    "tuning.lr={relative: 0.1}",
    "tuning.loss=rank",
    "tuning.epochs=10",
    "tuning.best_by=loss",
    "search.epochs=5",
    "pruning.levels=token",
)
QUICK = ("task.shots=20", "task.limit_report=20", "tuning.epochs=1", "prompt.tokens=10")
COLUMNS = ("kept", "criterion", "ranks", "before", "report", "less random")
RESAMPLES = 1_000


@dataclass(frozen=True, slots=True)
class Round:
    """What one seed gives."""

    score: Score
    groups: Groups
    scores: dict[str, Floats]  # of the tokens, by criterion, [P]
    worth: Floats  # what masking the single token does to the loss on `select`, [P]
    before: dict[Key, float]  # loss on `select`, not retrained
    select: dict[Key, float]  # score on `select`, retrained
    counts: dict[Key, Floats]  # of every example of `report`, retrained, [N, C]


def main(words: Sequence[str] | None = None) -> None:
    """Every round of every model and task, and a table each."""
    parser = flags(__doc__, 3)
    parser.add_argument("--models", default="tiny", help="names, with commas between them")
    parser.add_argument("--tasks", default="demo", help="the same; all but demo need SOFTPRUNE_DATA")
    parser.add_argument("--runs", type=Path, help="keeps run folders there; what they hold isn't trained again")
    parser.add_argument("overrides", nargs="*", help="recipe keys, key=value")
    asked = parser.parse_intermixed_args(words)
    data = os.environ.get("SOFTPRUNE_DATA")
    if asked.quick:
        asked.models, asked.tasks, asked.rounds, asked.overrides = "tiny", "demo", 1, [*QUICK, *asked.overrides]
    tasks = listed(asked.tasks)
    results, notes = [], []
    with TemporaryDirectory() as nowhere:
        for model, task in product(listed(asked.models), tasks):
            place = [] if task == "demo" else [f"task.data={data}/{task}"]
            named = [*SETTINGS, f"backbone.name={model}", f"task.id={task}", *place, *asked.overrides]
            rounds = []
            for seed in range(asked.rounds):
                folder = (asked.runs or Path(nowhere)) / f"{model}-{task}-{seed}"
                rounds.append(run_round(resolve([*named, f"seed={seed}"]), folder))
                print(f"{model}, {task}, seed {seed}: done", flush=True)
            found = compare(rounds)
            results += [{"model": model, "task": task, **row} for row in found]
            notes += [f"{model}, {task}: {note}" for note in best_on_select(rounds)]
            show(f"{model}, {task}: {asked.rounds} rounds", COLUMNS, [cells(row) for row in found])
    write("criteria", asked, results, notes)


def run_round(recipe: Recipe, folder: Path) -> Round:
    """Tune, measure, mask, retrain, and open `report` once all of it is fixed."""
    run = RunFolder.open(
        folder,
        recipe_text=recipe.dump(),
        resolved=recipe.resolved(),
        kind=recipe.kind,
        command="benchmarks/criteria.py",
    )
    try:
        return prune_by_each(prepare(recipe, run, Watch(), Executor()))
    finally:
        run.close()


def prune_by_each(workspace: Workspace) -> Round:
    """The round of a workspace."""
    tuned = tune(workspace)
    importances = {name: measure_tokens(workspace, tuned, name, "train") for name in CRITERIA}
    masked = mask_by_each(workspace, tuned, importances)
    # Criteria that keep the same tokens share one retraining.
    by_mask = {tuple(each.mask.token_P.tolist()): each for each in masked.values()}
    names = {key: by_mask[tuple(each.mask.token_P.tolist())].candidate.id for key, each in masked.items()}
    trials = {trial.candidate.id: trial for trial in retrain(workspace, tuned, None, list(by_mask.values()))}
    workspace.report.fix("everything is retrained")
    data = encode_examples(workspace.recipe, workspace.backbone, workspace.report.open())
    prompts = [workspace.prompt(trial.fitted.state) for trial in trials.values()]
    answers = score_each(workspace.backbone, prompts, data, workspace.reporting)
    counts = {name: workspace.metric.counts(each) for name, each in zip(trials, answers, strict=True)}
    return Round(
        score=workspace.metric.score,
        groups=[example.group for example in data.examples],
        scores={name: importance.token_P.numpy() for name, importance in importances.items()},
        worth=measure_tokens(workspace, tuned, "leave_one_out", "select").token_P.numpy(),
        before={key: float(trials[name].candidate.rank_loss or 0.0) for key, name in names.items()},
        select={key: float(trials[name].candidate.select or 0.0) for key, name in names.items()},
        counts={key: counts[name] for key, name in names.items()},
    )


def measure_tokens(workspace: Workspace, tuned: Fitted, name: str, which: Literal["train", "select"]) -> Importance:
    """A criterion on the tuned prompt; in one piece a token, since leave-one-out calls the model for each."""
    data: ScoredSet = getattr(workspace, which)

    def compute() -> Saved:
        found = measure(workspace.backbone, workspace.prompt(tuned.state), data, workspace.scoring, 1, name)
        return Saved({"token_P": found.token_P, "piece_PS": found.piece_PS}, {})

    saved = workspace.run.once(f"{name}-on-{which}", compute)
    return Importance(**saved.tensors, method=name, examples=len(data))


def mask_by_each(
    workspace: Workspace, tuned: Fitted, importances: Mapping[str, Importance]
) -> dict[Key, MaskedCandidate]:
    """The whole prompt, and what each criterion keeps of it at every share."""
    first = next(iter(importances.values()))
    masked = {WHOLE: plan(workspace, tuned, first, 0.0, 0.0)}
    for (name, importance), share in product(importances.items(), SHARES):
        each = plan(workspace, tuned, importance, 1 - share, 0.0)
        masked[share, name] = replace(each, candidate=replace(each.candidate, id=f"{name}-{share:g}"))
    return masked


# --- what the rounds say together ---


def compare(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """A row each for the whole prompt and every criterion at every share; figures are [value, low, high]."""
    ranks = mean_correlations([each.scores for each in rounds], [each.worth for each in rounds], 0, RESAMPLES)
    rows = []
    for key in rounds[0].counts:
        share, name = key
        before = [each.before[key] - each.before[WHOLE] for each in rounds]
        row: dict[str, Any] = {
            "kept": share,
            "criterion": name,
            "ranks": None,
            "before": [fmean(before), min(before), max(before)],
            "select": fmean(each.select[key] for each in rounds),
            "report": scored(rounds, key),
            "less_random": None,
        }
        if key != WHOLE:
            ranked = interval_cell(*ranks[name])
            row["ranks"] = [ranked.value, ranked.low, ranked.high]
        if key != WHOLE and name != "random":
            row["less_random"] = scored(rounds, key, (share, "random"))
        rows.append(row)
    return sorted(rows, key=lambda row: -row["kept"])  # stable: criteria stay in their order


def scored(rounds: Sequence[Round], key: Key, rival: Key | None = None) -> list[float]:
    """The mean score on `report` over the rounds with its interval, or the difference to a rival's."""
    counts = [each.counts[key] for each in rounds]
    others = None if rival is None else [each.counts[rival] for each in rounds]
    found = compare_rows(counts, others, rounds[0].score, rounds[0].groups, seed=0, resamples=RESAMPLES)
    return [found.value, found.low, found.high]


def best_on_select(rounds: Sequence[Round]) -> list[str]:
    """For each share the criterion with the best mean score on `select`, the first of equal ones."""
    notes = []
    for share in SHARES:
        means = {name: fmean(each.select[share, name] for each in rounds) for name in CRITERIA}
        best = max(means, key=lambda name: means[name])
        notes.append(f"{share:.0%} kept: {best} is best on select ({100 * means[best]:.1f}%)")
    return notes


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row as the table shows it."""
    kept = f"{row['kept']:.0%}"
    return [
        kept,
        row["criterion"],
        figure(row["ranks"], "+.2f"),
        figure(row["before"], "+.3f"),
        figure(row["report"], ".1f", 100),
        figure(row["less_random"], "+.1f", 100),
    ]


def figure(found: Sequence[float | None] | None, form: str, times: float = 1) -> str:
    """A value with its interval."""
    if found is None:
        return ""
    value, *ends = ["?" if each is None else format(times * each, form) for each in found]
    return f"{value} ({' to '.join(ends)})"


if __name__ == "__main__":
    main()
