"""The searches against each other on one tuned prompt a task: what each finds, and what it costs.

    SOFTPRUNE_DATA=DATA python benchmarks/searches.py [--tasks trec,ag_news] [--ways hard-concrete,grid] [key=value ...]

Every search starts from the same tuned prompt and is judged on `select` alone; `report` stays sealed. Costs are the
search's own, without tuning and importance: processor seconds (other work beside lengthens wall seconds more), and
examples times candidates trained on.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from softprune.config import Recipe, resolve
from softprune.prompts.soft_prompts import full_mask
from softprune.pruning.xprompt import Pruned, token_importance, xprompt
from softprune.runs.executors import Executor
from softprune.runs.run_folder import RunFolder
from softprune.training.jobs import Group, fit, tune
from softprune.training.loop import Watch
from softprune.training.session import Workspace, prepare
from softprune.types import PromptState

SETTINGS = (
    "backbone.name=tiny",
    "backbone.threads=1",
    "task.shots=300",
    "tuning.epochs=6",
    "task.limit_report=500",
    "prompt.init=labels",
    "tuning.lr={relative: 0.1}",
    "search.token_ratios=0.3,0.6,0.9",
    "search.piece_ratios=0.3,0.6,0.9",
)
WAYS = {
    "hard-concrete": ("search.strategy=learned", "search.gates=hard-concrete"),
    "straight-through": ("search.strategy=learned", "search.gates=straight-through"),
    "grid": ("search.strategy=grid",),
    "sequential": ("search.strategy=sequential",),
    "random": ("search.strategy=random", "search.samples=4"),
}
SHARED = ("tune.safetensors", "importance.safetensors")


def main() -> None:
    """Run every search on every task, and print a table each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a new folder for the runs; none keeps nothing")
    parser.add_argument("--tasks", default="trec,sentence_polarity,ag_news", help="names, with commas between them")
    parser.add_argument("--ways", default="hard-concrete,straight-through,grid,random", help=", ".join(WAYS))
    parser.add_argument("overrides", nargs="*", help="recipe keys, key=value")
    arguments = parser.parse_args()
    data = Path(os.environ["SOFTPRUNE_DATA"])
    with tempfile.TemporaryDirectory() as nowhere:
        for task in arguments.tasks.split(","):
            named = [*SETTINGS, f"task.id={task}", f"task.data={data / task}"]
            out = (arguments.out or Path(nowhere)) / task
            compare(task, named, arguments.ways.split(","), arguments.overrides, out)


def compare(task: str, settings: list[str], ways: list[str], overrides: list[str], out: Path) -> None:
    """All searches on one task."""
    table = Table(
        "search", "winner", "tokens", "pieces", "select", "loss", "candidates", "cpu s", "examples", title=task
    )
    table.add_column("Pareto front: pieces (select)")
    begun = time.process_time()
    base = opened(resolve([*settings, *overrides]), out / "tuned")
    tuned = tune(base)
    token_importance(base, tuned)
    before = time.process_time() - begun
    settings = base.recipe.prompt
    whole = PromptState(tuned.state.vectors_PH, full_mask(settings.tokens, settings.pieces))
    (control,) = fit(base, Group("control", ("control",), (whole,), "control", "control"))
    for name, found in (("tuned", tuned), ("control", control)):
        score, loss = f"{found.evaluation.score:.3f}", f"{found.evaluation.loss:.3f}"
        mask = found.state.mask
        table.add_row(name, "", str(mask.tokens), str(mask.pieces), score, loss, "", "", "", "")
    for way in ways:
        workspace = opened(resolve([*settings, *WAYS[way], *overrides]), out / way)
        for name in SHARED:
            (workspace.run.path / "state").mkdir(exist_ok=True)
            shutil.copy(base.run.path / "state" / name, workspace.run.path / "state" / name)
        begun = time.process_time()
        pruned = xprompt(workspace)
        table.add_row(way, *row(workspace, pruned, time.process_time() - begun))
    table.caption = f"select: {len(base.select)} examples; tuning and importance took {before:.0f} processor seconds"
    Console(width=170).print(table)


def opened(recipe: Recipe, out: Path) -> Workspace:
    """A run folder with data and backbone, before any work."""
    folder = RunFolder.open(
        out, recipe_text=recipe.dump(), resolved=recipe.resolved(), kind=recipe.kind, command="benchmarks/searches.py"
    )
    return prepare(recipe, folder, Watch(), Executor())


def row(workspace: Workspace, pruned: Pruned, seconds: float) -> list[str]:
    """What a search found, as the table shows it."""
    winner = pruned.winner.candidate
    trials = [trial.candidate for trial in pruned.trials if trial.candidate.select is not None]
    front = sorted((c for c in trials if c.pareto), key=lambda c: -c.pieces_kept)
    costs = workspace.run.record.cost.training
    examples = sum(part.examples for work, part in costs.items() if work != "tune")
    score, loss = f"{winner.select:.3f}", f"{winner.select_loss:.3f}"
    shown = ", ".join(f"{c.pieces_kept} ({c.select:.3f})" for c in front)
    sizes = [str(winner.tokens_kept), str(winner.pieces_kept)]
    return [winner.id, *sizes, score, loss, str(len(trials)), f"{seconds:.0f}", f"{examples:,}", shown]


if __name__ == "__main__":
    main()
