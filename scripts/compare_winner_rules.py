"""Compare the rules that choose a run's winner, over several run seeds.

    python scripts/compare_winner_rules.py runs/rules demo                                # run seeds 100 to 105
    python scripts/compare_winner_rules.py runs/rules my.yaml --first 0 --runs 3 task.data=DIR

Each run trains its candidates once. Each rule then chooses among them by `select`, and its choice is scored on
`report`, beside the control. Every run leaves a JSON file; the table of all is printed and written to rules.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from softprune.config import Recipe, load_config
from softprune.pipelines.xprompt import execute
from softprune.prompts.soft_prompts import read_one
from softprune.pruning import xprompt
from softprune.pruning.search import Trial, choose
from softprune.statistics.bootstrap import resampled_sums, sampled_units
from softprune.training.scoring import score_each
from softprune.training.session import Workspace, encode_examples

RULES = {
    "one_se, single": "smallest within the standard error of the best candidate's own score",
    "one_se, paired": "smallest within the standard error of the difference to the best",
    "best": "highest score",
}


def choices(workspace: Workspace, trials: Sequence[Trial]) -> dict[str, Any]:
    """What each rule chooses, and every candidate's size and scores on `select` and `report`."""
    candidates = [trial.candidate for trial in trials]
    backbone, removal, metric = workspace.backbone, workspace.recipe.pruning.removal, workspace.task.choice
    prompts = [read_one(trial.fitted.state, removal).to(backbone.device, backbone.prompt_dtype) for trial in trials]
    on_select = score_each(backbone, prompts, workspace.select, workspace.scoring)
    # The choices above are made by then; the run's own seal stays closed, as it scores `report` itself afterwards.
    report = encode_examples(workspace.recipe, workspace.backbone, workspace.report._examples)
    on_report = score_each(backbone, prompts, report, workspace.scoring)
    best = choose(candidates, "best")
    counts = metric.counts(on_select[[c.id for c in candidates].index(best.id)])
    groups = [example.group for example in workspace.select.examples]
    resampled = metric.score(resampled_sums(counts, groups, seed=workspace.recipe.seed))
    single = max(float(np.std(resampled, ddof=1)), metric.grain / len(sampled_units(groups)))
    return {
        "chosen": {
            "one_se, single": choose(candidates, "one_se", single).id,
            "one_se, paired": choose(candidates, "one_se", xprompt.standard_errors(workspace, trials)).id,
            "best": best.id,
        },
        "report": {
            c.id: float(metric.score(metric.counts(found).sum(0)))
            for c, found in zip(candidates, on_report, strict=True)
        },
        "select": {c.id: c.select for c in candidates},
        "parameters": {c.id: c.parameters for c in candidates},
    }


def run(recipe: str, seed: int, settings: Sequence[str], out: Path) -> None:
    """Run one recipe without fresh seeds; what the rules choose goes to `out`.json."""
    marked, found = xprompt.mark_winner, {}

    def mark(workspace: Workspace, trials: Sequence[Trial]) -> list[Trial]:
        found.update(choices(workspace, trials))
        return marked(workspace, trials)

    xprompt.mark_winner = mark
    try:
        resolved = load_config(Recipe, recipe, [*settings, f"seed={seed}", "selection.seeds=0"])
        execute(resolved, out, "scripts/compare_winner_rules.py", "")
    finally:
        xprompt.mark_winner = marked
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    control = record["results"]["control"]["value"]
    out.with_suffix(".json").write_text(json.dumps({"seed": seed, "control": control, **found}, indent=1))


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a row a run seed, a column a rule, the mean and the mean share kept at the end."""
    lines = [f"| seed | candidates | {' | '.join(RULES)} |", "|---|---|" + "---|" * len(RULES)]
    differences: dict[str, list[float]] = {rule: [] for rule in RULES}
    sizes: dict[str, list[float]] = {rule: [] for rule in RULES}
    for found in runs:
        cells = []
        for rule in RULES:
            name = found["chosen"][rule]
            differences[rule].append(100 * (found["report"][name] - found["control"]))
            sizes[rule].append(found["parameters"][name])
            cells.append(f"{name}: {differences[rule][-1]:+.1f}")
        lines.append(f"| {found['seed']} | {len(found['report'])} | {' | '.join(cells)} |")
    means = []
    for rule in RULES:
        error = statistics.stdev(differences[rule]) / len(runs) ** 0.5 if len(runs) > 1 else float("nan")
        means.append(f"{statistics.mean(differences[rule]):+.1f} (± {error:.1f})")
    lines.append(f"| mean (standard error) | | {' | '.join(means)} |")
    lines.append(f"| mean parameters | | {' | '.join(f'{statistics.mean(sizes[rule]):.0f}' for rule in RULES)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what isn't there yet, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="folder of the runs")
    parser.add_argument("recipe", help="a recipe's name or file")
    parser.add_argument("settings", nargs="*", help="KEY=VALUE")
    parser.add_argument("--first", type=int, default=100, help="the first run seed")
    parser.add_argument("--runs", type=int, default=6)
    asked = parser.parse_intermixed_args()
    for seed in range(asked.first, asked.first + asked.runs):
        out = asked.root / f"seed{seed}"
        if not out.with_suffix(".json").exists():
            run(asked.recipe, seed, asked.settings, out)
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(asked.root.glob("seed*.json"))]
    text = table(runs)
    (asked.root / "rules.md").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
