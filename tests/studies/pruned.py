"""One small XPrompt run that the studies of masks and importance share, and their recipes on it."""

from __future__ import annotations

from pathlib import Path

from softprune.config import Study, load_study
from softprune.studies.study_context import StudyContext

YAML = """
kind: study
title: Small
experiment: {experiment}
keys:
  kind: xprompt
  backbone: {{dtype: float32, device: cpu, threads: 1}}
  task: {{shots: 40, limit_report: 24}}
  prompt: {{tokens: 4, pieces: 4}}
  tuning.epochs: 2
  search: {{strategy: grid, token_ratios: [0.25, 0.5], piece_ratios: [0.5], epochs: 2, group: 1}}
  selection: {{seeds: 0, resamples: 200}}
options: {{draws: 2, removals: [zero, drop], retrained: 0.5}}
scales:
  smoke: {{backbone: "{model}", tasks: [demo], hardware: any, hours: seconds}}
"""


def pruned_study(experiment: str, model: Path, folder: Path, *overrides: str) -> Study:
    file = folder / f"{experiment}.yaml"
    file.write_text(YAML.format(experiment=experiment, model=model))
    return load_study(file, overrides)


def bench_of(study: Study, root: Path) -> StudyContext:
    return StudyContext(study, root, root / study.experiment)
