"""Small studies, and what of a finished one must not depend on interruptions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from records import run_document
from softprune.config import Study, load_study
from softprune.config.registry import Registry
from softprune.runs.comparison_record import StudyRecord
from softprune.studies.findings import Cell, Figure, Findings, Table
from softprune.studies.run_result import FinishedRun
from softprune.studies.study_context import StudyContext

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


EXPERIMENTS = Registry(
    "experiment",
    {"variants": "softprune.studies.experiments.variants:conduct", "measured": "small_studies:measured"},
)


def study_of(model: Path, file: Path, *overrides: str) -> Study:
    file.write_text(YAML.format(model=model))
    return load_study(file, overrides)


def outcome(folder: Path) -> dict[str, Any]:
    """What a finished study found, its runs' bits and its own work, without times."""
    info = json.loads((folder / "study.json").read_text())
    assert info["status"] == "complete"
    work = {path.name: json.loads(path.read_text())["found"] for path in sorted((folder / "work").glob("*.json"))}
    bits = _bits(folder.parent / "runs", [run["folder"] for run in info["runs"]])
    return {"findings": info["findings"], "bits": bits, "work": work}


def outcome_of_runs(study: StudyContext) -> dict[str, bytes]:
    """The bits of all runs that were asked for."""
    return _bits(study.root / "runs", list(study.used))


def _bits(runs: Path, names: list[str]) -> dict[str, bytes]:
    files = [path for name in names for path in sorted((runs / name).rglob("*.safetensors"))]
    assert len(files) > len(names)
    return {str(path.relative_to(runs)): path.read_bytes() for path in files}


def measured(study: StudyContext) -> Findings:
    """An experiment with runs that begin with what others left, and with work of its own."""
    first = study.grid({"kind": "tune"})
    again = {at: study.spec(*at, _again(study, made)) for at, made in first.items()}
    second = list(study.make(again).values())
    norms = study.once("norms", lambda: [made.prompt("tuned").norm().item() for made in second])
    found = zip(second, norms, strict=True)
    rows = tuple((made.path.name, Cell(made.value("tuned")), Cell(norm, unit="number")) for made, norm in found)
    return Findings((Table("norms", "Norms", ("run", "score", "norm"), rows),), (), ("Said.",))


def _again(study: StudyContext, made: FinishedRun) -> dict[str, Any]:
    """Keys of a run that begins with a run's prompt, under a mask."""
    mask = study.keep(f"mask-{made.path.name}.safetensors", half_mask())
    return {"kind": "tune", "prompt": {"init": "file", "file": str(made.prompt_file("tuned")), "mask": str(mask)}}


def half_mask() -> bytes:
    """The mask of 4 tokens of 4 pieces that leaves half of each of the first two tokens."""
    import torch

    from softprune.prompts.prompt_io import mask_bytes
    from softprune.types import Mask

    piece_PS = torch.zeros(4, 4, dtype=torch.bool)
    piece_PS[:2, :2] = True
    return mask_bytes(Mask(piece_PS.any(1), piece_PS))


ATTACK = (
    "<script>document.title='taken'; fetch('http://evil.test/')</script>"
    "<img src=http://evil.test/x.png>|*[x](http://evil.test)"
)


def made_up(attack: str = ATTACK) -> tuple[Study, StudyRecord]:
    """A study and its study.json with every sort of cell and figure, and with texts that attack."""
    cells = (Cell(0.762, 0.72, 0.804), Cell(0.5, chance=True), Cell(None, note="no mask"), Cell(-0.02, unit="points"))
    heads, rows = ("%", "trec", attack, "wsc", "diff"), ((attack, *cells), ("b", *cells))
    ours = Table("scores", f"Ours {attack}", heads, rows, f"Note {attack}")
    bars = {"type": "bar", "name": attack, "x": ["a", attack], "y": [0.1, None]}
    figures = (
        Figure("bars", f"Bars {attack}", attack, (bars | {"error_y": {"array": [0.01, 0.02]}},), {}),
        Figure("map", "Map", "A map.", ({"type": "heatmap", "z": [[0.1, -0.2], [None, 1.0]], "zmid": 0},), {}),
        Figure("points", "Points", "Points.", ({"type": "scatter", "mode": "markers", "x": [1, 2], "y": [3, 4]},), {}),
        Figure("many", "Many", "A histogram.", ({"type": "histogram", "x": [1, 2, 2, 3]},), {}),
    )
    study = Study.model_validate(
        {
            "title": f"Title {attack}",
            "source": attack,
            "question": attack,
            "published": [{"title": attack, "columns": ["model", "a"], "rows": [[attack, "76.0"]], "note": attack}],
            "scales": {"smoke": {"tasks": ["demo", attack]}},
        }
    )
    run = {"folder": "demo-tiny-tune-0-0123456789", "task": attack, "seed": 0, "kind": "tune", "seconds": 12.34}
    fields = {
        "command": f"softprune study run {attack}",
        "findings": Findings(
            (ours, Table("more", "More", ("x",), (("further",),))), figures, (f"Said {attack}",)
        ).document(),
        "runs": [run, run | {"folder": "other", "seconds": None}],
        "work": {"norms": 1.26},
        "versions": {"torch": "1"},
        "hardware": {"cpu": None, "cores": 2, "memory_bytes": 2**34, "gpu": None},
    }
    document = run_document("study", **fields)
    return study, StudyRecord.model_validate_json(json.dumps(document), context={"reading": True})
