"""Importance of a prompt's tokens and pieces, by the criterion that a recipe names (paper, section 4.2, and rivals)."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import torch

from softprune.config import Recipe
from softprune.models.base import Backbone
from softprune.pruning.criteria.base import Importance, Measure
from softprune.runs.run_folder import Saved
from softprune.training.loop import FROM_THE_MODEL, check_finite
from softprune.training.scoring import ScoredSet, Scoring
from softprune.training.session import Workspace
from softprune.types import PromptState


def name_criterion(recipe: Recipe) -> str:
    """The criterion that a recipe means: under `gradual`, `auto` is the length of vectors.

    That takes no example; another one would make a stage cost twice as much.
    """
    asked = recipe.pruning.importance
    return "norm" if asked == "auto" and recipe.search.strategy == "gradual" else asked


def measure(
    backbone: Backbone, prompt_QH: torch.Tensor, data: ScoredSet, scoring: Scoring, pieces: int, method: str
) -> Importance:
    """Importance over all of `train`, by a key of `CRITERIA`, or by `auto`: the paper's, unless it vanishes."""
    importance = find_measure("paper" if method == "auto" else method)(backbone, prompt_QH, data, scoring, pieces)
    if method != "auto" or not importance.vanishes:
        return importance
    instead = find_measure("leave_one_out")(backbone, prompt_QH, data, scoring, pieces)
    return replace(instead, sensitivity_ratio=importance.token_over_piece)


def measure_once(workspace: Workspace, state: PromptState, work: str, method: str) -> Importance:
    """Importance of what the backbone reads of a prompt, kept under a name; NotFinite where it is no number."""

    def compute() -> Saved:
        pieces = workspace.recipe.prompt.pieces
        prompt_QH = workspace.prompt(state)
        found = measure(workspace.backbone, prompt_QH, workspace.train, workspace.scoring, pieces, method)
        check_finite([float(found.token_P.sum())], ["a token"], "importance", "of the tuned prompt", FROM_THE_MODEL)
        meta = {name: getattr(found, name) for name in ("method", "examples", "sensitivity_ratio")}
        return Saved({"token_P": found.token_P, "piece_PS": found.piece_PS}, meta)

    saved = workspace.run.once(work, compute)
    return Importance(saved.tensors["token_P"], saved.tensors["piece_PS"], **saved.meta)


def find_measure(name: str) -> Measure:
    """What measures a criterion: the `measure` of its module, which has the name of its entry in `CRITERIA`."""
    found: Measure = import_module(f"softprune.pruning.criteria.{name}").measure
    return found
