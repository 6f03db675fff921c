"""What makes a half-size ticket as good as the whole prompt: teachers, rows without labels, criteria, gradual pruning.

    SOFTPRUNE_DATA=DATA python benchmarks/half_size.py [--backbones tiny,tiny-seq2seq] [--tasks trec] [key=value ...]

For every model and task, from one tuned prompt: whole prompts and tickets of each share of the numbers are trained as
long by labels, by labels and a teacher, and by both and a teacher's answers to rows without labels, on the same fresh
seeds. The bars of a ticket are the whole prompt that was trained as it was, and the one that was trained by labels.
Intervals are those of a run's verdict, over seeds and examples. Nothing is chosen on `report`: every cell is shown.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from timing import ROOT, flags, listed, markdown, write

from softprune.config import Recipe, resolve
from softprune.evaluation.baselines import fresh_seed
from softprune.prompts.soft_prompts import full_mask, masked_state
from softprune.pruning.gradual import Chain, piece_ratio_of, ratios_of, run_chains
from softprune.pruning.importance import measure
from softprune.pruning.masks import piece_mask, token_mask, whole_tokens
from softprune.pruning.search import in_groups
from softprune.pruning.xprompt import choose_whole
from softprune.report import formatting
from softprune.runs.executors import Executor
from softprune.runs.run_folder import RunFolder
from softprune.statistics.seeds import compare_rows
from softprune.training.jobs import Fitted, Group, fit_groups, tune
from softprune.training.loop import Watch
from softprune.training.scoring import score_each
from softprune.training.session import Workspace, encode_examples, prepare
from softprune.types import Mask, PromptState

SETTINGS = (
    *("task.shots=500", "task.limit_report=1000", "pruning.teacher=control"),
    *("task.unlabelled=rest", "task.limit_unlabelled=1600"),
)
QUICK = (
    *("task.shots=40", "task.limit_report=20", "task.limit_unlabelled=20", "prompt.tokens=4", "tuning.epochs=2"),
    *("backbone.threads=1", "selection.resamples=100"),
)
"""What makes it a toy."""
DEMO = ("task.shots=200",)  # of its 320 rows; the others are read without labels
CRITERIA = ("paper", "norm")


@dataclass(frozen=True)
class Regime:
    """How whole prompts and tickets are trained."""

    name: str
    workspace: Workspace
    teacher: PromptState | None


def regimes(workspace: Workspace, teacher: PromptState | None) -> Iterator[Regime]:
    """By labels, with a teacher, and with a teacher and more rows."""
    yield Regime("labels", workspace, None)
    yield Regime("teacher", replace(workspace, lessons=workspace.train), teacher)
    yield Regime("teacher+rows", workspace, teacher)


def train_all(
    workspace: Workspace, seeds: Sequence[int], shares: Sequence[float], wanted: Sequence[str]
) -> dict[str, list[Fitted]]:
    """Every prompt of the wanted regimes by `regime method share`, one a seed."""
    whole, teacher = choose_whole(workspace, tune(workspace))
    starts = dict(begin(workspace, whole, shares))
    cells: dict[str, list[Fitted]] = {}
    for regime in (each for each in regimes(workspace, teacher) if each.name in wanted):
        fitted = fit_groups(regime.workspace, list(group(regime, starts, seeds)), "fresh")
        for method in starts:
            cells[f"{regime.name} {method}"] = [fitted[f"{regime.name}-{method}-{seed}"] for seed in seeds]
        for share in shares:
            chains = [Chain(f"{regime.name}-k{share:g}-{seed}", share, seed) for seed in seeds]
            ended = run_chains(regime.workspace, whole, regime.teacher, chains, "fresh")
            cells[f"{regime.name} gradual {share:g}"] = [ended[chain.name] for chain in chains]
    return cells


def begin(workspace: Workspace, whole: Fitted, shares: Sequence[float]) -> Iterator[tuple[str, PromptState]]:
    """The whole prompt, and what every criterion leaves of it."""
    vectors_PH, settings = whole.state.vectors_PH, workspace.recipe.prompt
    yield "control", PromptState(vectors_PH, full_mask(settings.tokens, settings.pieces))
    for criterion in CRITERIA:
        for share in shares:
            yield f"{criterion} {share:g}", masked_state(vectors_PH, mask_by(criterion, workspace, vectors_PH, share))


def mask_by(criterion: str, workspace: Workspace, vectors_PH: Any, share: float) -> Mask:
    """Sections 4.2.1 and 4.2.2 of the paper for a share of the numbers; pieces by what the token-pruned prompt says."""
    pieces = workspace.recipe.prompt.pieces

    def importance(mask: Mask) -> Any:
        prompt_QH = workspace.prompt(masked_state(vectors_PH, mask))
        return measure(workspace.backbone, prompt_QH, workspace.train, workspace.scoring, pieces, criterion)

    kept_P = token_mask(importance(full_mask(len(vectors_PH), pieces)).token_P, ratios_of("both", share)[0])
    piece_PS = importance(whole_tokens(kept_P, pieces)).piece_PS
    wide_PS = piece_PS.new_zeros(len(kept_P), pieces).masked_scatter(kept_P[:, None], piece_PS)
    return Mask(kept_P, piece_mask(wide_PS, kept_P, piece_ratio_of("both", share, kept_P)))


def group(regime: Regime, starts: dict[str, PromptState], seeds: Sequence[int]) -> Iterator[Group]:
    """Prompts of one length side by side, each with the data order of its seed."""
    names = [(method, seed) for method in starts for seed in seeds]
    lengths = [starts[method].mask.tokens for method, _ in names]
    for places in in_groups(lengths, regime.workspace.group, "drop"):
        part = [names[place] for place in places]
        prompts = tuple(f"{regime.name}-{method}-{seed}" for method, seed in part)
        yield Group(
            work=f"{prompts[0]}-{len(prompts)}",
            names=prompts,
            starts=tuple(starts[method] for method, _ in part),
            phase="fresh",
            title=prompts[0],
            seeds=tuple(seed for _, seed in part),
            teacher=regime.teacher,
        )


def measure_task(recipe: Recipe, out: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """All cells of one model and task: scores by seed, and differences to both bars."""
    resolved, text = recipe.resolved(), recipe.dump()
    run = RunFolder.open(out, recipe_text=text, resolved=resolved, kind="xprompt", command="benchmarks/half_size.py")
    try:
        workspace = prepare(recipe, run, Watch(), Executor())
        seeds = [fresh_seed(recipe.seed, number) for number in range(asked.rounds)]
        cells = train_all(workspace, seeds, [float(share) for share in listed(asked.shares)], listed(asked.regimes))
        workspace.report.fix("nothing is chosen")
        data = encode_examples(recipe, workspace.backbone, workspace.report.open())
        counts, metric = {}, workspace.metric
        for name, fitted in cells.items():
            prompts = [workspace.prompt(each.state) for each in fitted]
            found = score_each(workspace.backbone, prompts, data, workspace.reporting)
            counts[name] = [metric.counts(scores) for scores in found]
    finally:
        run.close()
    rows = []
    for name, found in counts.items():
        own = f"{name.split()[0]} control"
        row = {
            "cell": name,
            "parameters": [each.state.mask.parameters(workspace.backbone.info.hidden) for each in cells[name]],
        }
        row["seconds"] = sum(each.seconds for each in cells[name]) / len(seeds)
        row["score"] = asdict(compare_rows(found, None, metric.score, seed=0))
        for bar in ({own, "labels control"} - {name}) & set(counts):
            row[bar] = asdict(compare_rows(found, counts[bar], metric.score, seed=0))
        rows.append(row)
    return {"backbone": recipe.backbone.name, "task": recipe.task.id, "seeds": seeds, "rows": rows}


def show(result: dict[str, Any]) -> str:
    """One table; percent and points."""

    def interval(found: dict[str, float] | None, write: Any) -> str:
        if found is None:
            return ""
        return f"{write(found['value'])} ({write(found['low'])} to {write(found['high'])})"

    rows = []
    for row in result["rows"]:
        own = f"{row['cell'].split()[0]} control"
        bars = [interval(row.get(bar), formatting.points) for bar in (own, "labels control")]
        rows.append([row["cell"], str(max(row["parameters"])), interval(row["score"], formatting.percent), *bars])
    title = f"{result['task']} on {Path(result['backbone']).name}, {len(result['seeds'])} seeds"
    return markdown(
        title, ("trained by, mask, share", "numbers", "score", "minus its control", "minus labels control"), rows
    )


def main(words: Sequence[str] | None = None) -> None:
    """Measure every model and task, print the tables and write the results."""
    parser = flags(__doc__, 5)
    parser.add_argument("--backbones", default="tiny", help="with commas between them")
    parser.add_argument("--tasks", default="demo", help="with commas between them; all but demo need SOFTPRUNE_DATA")
    parser.add_argument("--shares", default="0.5,0.25,0.1", help="of the numbers that tickets keep")
    parser.add_argument("--regimes", default="labels,teacher,teacher+rows", help="how they are trained; commas")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "half-size", help="where run folders go")
    parser.add_argument("overrides", nargs="*", help="recipe keys, key=value")
    asked = parser.parse_args(words)
    if asked.quick:
        asked.backbones, asked.tasks, asked.rounds, asked.shares = "tiny", "demo", 1, "0.5"
    results = []
    for backbone in listed(asked.backbones):
        for task in listed(asked.tasks):
            more = QUICK if asked.quick else DEMO
            if task != "demo":
                more = (f"task.data={os.environ['SOFTPRUNE_DATA']}/{task}",)
            recipe = resolve([*SETTINGS, *more, f"backbone.name={backbone}", f"task.id={task}", *asked.overrides])
            results.append(measure_task(recipe, asked.runs / f"{Path(backbone).name}-{task}", asked))
            print(show(results[-1]), flush=True)
    write("half_size", asked, results)


if __name__ == "__main__":
    main()
