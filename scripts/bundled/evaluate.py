"""How well a soft prompt steers a model: TREC, AG News and sentence polarity, several sizes and seeds.

    python scripts/bundled/evaluate.py MODEL --data DATA --out FOLDER [--twin] [key=value ...]

Each cell is a `softprune tune` of 20 prompt tokens on so many training examples; 200 more choose the epoch, and the
whole test set reports. `--twin` measures the same architecture with random weights instead. A run that
is there already isn't made again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from softprune.config import resolve
from softprune.models.description import describe
from softprune.pipelines.xprompt import execute

TASKS = ("trec", "ag_news", "sentence_polarity")
SETTINGS = (
    "kind=tune",
    "prompt.tokens=20",
    "prompt.init=labels",
    "tuning.lr={relative: 0.3}",
    "tuning.patience=3",
)
CHOOSING = 200  # labelled examples beside the training ones, which choose the epoch
FEW, EPOCHS_OF_FEW, EPOCHS = 1_000, 12, 6
TWIN_SEED = 7


def random_twin(model: str, folder: Path) -> Path:
    """The model's configuration and tokenizer with weights as transformers draws them."""
    if folder.exists():
        return folder
    described = describe(model)
    partial = folder.with_suffix(".part")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(described.source, partial)
    import transformers

    torch.manual_seed(TWIN_SEED)
    kind = getattr(transformers, described.config.architectures[0])
    kind(described.config).save_pretrained(partial)
    dense = partial / "2_Dense" / "model.safetensors"
    if dense.exists():
        shapes = {name: weight.shape for name, weight in load_file(dense).items()}
        fan_in = shapes["linear.weight"][1]
        save_file({name: torch.randn(shape) * fan_in**-0.5 for name, shape in shapes.items()}, dense, {"format": "pt"})
    partial.rename(folder)
    return folder


def measure(model: str, out: Path, task: str, data: Path, examples: int, seed: int, extra: list[str]) -> dict[str, Any]:
    """Tune once; the cell's figures."""
    place = out / f"{task}-{examples}-{seed}"
    named = [f"backbone.name={model}", f"task.id={task}", f"task.data={data / task}", f"seed={seed}"]
    shots = examples + CHOOSING
    epochs = EPOCHS_OF_FEW if examples < FEW else EPOCHS
    sizes = [f"task.shots={shots}", f"selection.fraction={CHOOSING / shots}", f"tuning.epochs={epochs}"]
    recipe = resolve([*SETTINGS, *named, *sizes, *extra])
    execute(recipe, place, f"scripts/bundled/evaluate.py {task} {examples} {seed}", recipe.dump())
    results = json.loads((place / "run.json").read_text())["results"]
    evaluated = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    return {
        "task": task,
        "examples": examples,
        "seed": seed,
        "tuned": results["tuned"]["value"],
        "select": max(line["select"] for line in evaluated),
        "zero_shot": results["zero_shot"]["value"],
        "constant": results["constant"]["value"],
        "seconds": results["tuned"]["seconds"],
    }


def table(cells: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over the seeds, as Markdown."""
    lines = ["| task | examples | constant | zero-shot | tuned, mean ± sd | seeds |", "|---|---|---|---|---|---|"]
    for task, examples in sorted({(cell["task"], cell["examples"]) for cell in cells}):
        found = [cell for cell in cells if (cell["task"], cell["examples"]) == (task, examples)]
        scores = [100 * cell["tuned"] for cell in found]
        spread = statistics.stdev(scores) if len(scores) > 1 else float("nan")
        constant, zero = (100 * statistics.mean(cell[name] for cell in found) for name in ("constant", "zero_shot"))
        mean = f"{statistics.mean(scores):.1f} ± {spread:.1f}"
        lines.append(f"| {task} | {examples} | {constant:.1f} | {zero:.1f} | {mean} | {len(scores)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure every cell that was asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="bundled name, folder or hub name")
    parser.add_argument("--data", type=Path, required=True, help="folder with trec, ag_news and sentence_polarity")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs and results.json")
    parser.add_argument("--twin", action="store_true", help="random weights instead of the model's")
    parser.add_argument("--tasks", default=",".join(TASKS), help="names, with commas between them")
    parser.add_argument("--examples", default="500,2000", help="training examples, with commas between them")
    parser.add_argument("--seeds", default="0,1,2", help="with commas between them")
    parser.add_argument("overrides", nargs="*", help="recipe keys, key=value")
    asked = parser.parse_intermixed_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    model = str(random_twin(asked.model, asked.out / "twin")) if asked.twin else asked.model
    cells = []
    for examples in map(int, asked.examples.split(",")):
        for seed in map(int, asked.seeds.split(",")):
            for task in asked.tasks.split(","):
                cells.append(measure(model, asked.out, task, asked.data, examples, seed, asked.overrides))
                print(json.dumps(cells[-1]), flush=True)
                (asked.out / "results.json").write_text(json.dumps(cells, indent=1) + "\n")
    print(table(cells))


if __name__ == "__main__":
    main()
