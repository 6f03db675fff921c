"""Small studies, and what of a finished one must not depend on interruptions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from softprune.recipe import Study, load_study
from softprune.study.bench import Bench
from softprune.study.findings import Cell, Findings, Table

YAML = """
kind: study
title: Small
source: a test
question: Which is better?
keys:
  backbone: {{dtype: float32, device: cpu, threads: 1}}
  task: {{shots: 40, limit_report: 24}}
  prompt: {{tokens: 4, pieces: 4}}
  tuning.epochs: 2
  search: {{strategy: grid, token_ratios: [0.5], piece_ratios: [0.5], group: 2}}
  selection: {{seeds: 0, resamples: 200}}
variants:
  - {{name: tuned, label: tuned, row: tuned}}
  - {{name: pruned, label: pruned, keys: {{pruning.levels: token}}}}
published:
  - {{title: "Table 1", columns: [model, demo], rows: [[theirs, "76.0"]], note: no intervals}}
scales:
  smoke: {{backbone: "{model}", tasks: [demo], hardware: any, hours: seconds}}
  full: {{backbone: "{model}", tasks: [demo], seeds: 3}}
"""


def study_of(model: Path, file: Path, *overrides: str) -> Study:
    file.write_text(YAML.format(model=model))
    return load_study(file, overrides)


def outcome(folder: Path) -> dict[str, Any]:
    """What a finished study found, its runs' bits and its own work, without times."""
    info = json.loads((folder / "study.json").read_text())
    assert info["status"] == "complete"
    runs = folder.parent / "runs"
    files = [path for run in info["runs"] for path in sorted((runs / run["folder"]).rglob("*.safetensors"))]
    assert files
    work = {path.name: json.loads(path.read_text())["found"] for path in sorted((folder / "work").glob("*.json"))}
    bits = {str(path.relative_to(runs)): path.read_bytes() for path in files}
    return {"findings": info["findings"], "bits": bits, "work": work}


def measured(bench: Bench) -> Findings:
    """An experiment with runs that begin with what others left, and with work of its own."""
    first = bench.grid({"kind": "tune"})
    mask = {key: bench.keep(f"mask-{made.path.name}.safetensors", half_mask()) for key, made in first.items()}
    again = {
        key: {
            "kind": "tune",
            "prompt": {"init": "file", "file": str(made.prompt_file("tuned")), "mask": str(mask[key])},
        }
        for key, made in first.items()
    }
    second = bench.make([bench.spec(*key, keys) for key, keys in again.items()])
    norms = bench.once("norms", lambda: [made.prompt("tuned").norm().item() for made in second])
    rows = tuple(
        (made.path.name, Cell(made.value("tuned")), Cell(norm)) for made, norm in zip(second, norms, strict=True)
    )
    return Findings((Table("norms", "Norms", ("run", "score", "norm"), rows),), (), ("Said.",))


def half_mask() -> bytes:
    """The mask of 4 tokens of 4 pieces that leaves half of each of the first two tokens."""
    import torch

    from softprune.prompt.exchange import mask_bytes
    from softprune.types import Mask

    piece_PS = torch.zeros(4, 4, dtype=torch.bool)
    piece_PS[:2, :2] = True
    return mask_bytes(Mask(piece_PS.any(1), piece_PS))
