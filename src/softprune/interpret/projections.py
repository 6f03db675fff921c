"""Prompts as points on a plane: PCA, and t-SNE beside it.

t-SNE (van der Maaten and Hinton, JMLR 9, 2008) shows who is near whom; distances between groups and their sizes on its
map mean nothing. PCA keeps distances as well as two axes can, and tells how much of the variance they hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from softprune.errors import SoftpruneError

Floats = npt.NDArray[np.float64]

PERPLEXITY = 30.0
FEWEST = 4
"""Points that t-SNE needs: with three, each would have less than one neighbour."""


@dataclass(frozen=True, slots=True)
class Projection:
    """Points on a map.

    Attributes:
        points_ND: `[N, D]`.
        method: pca or tsne.
        explained: of PCA, the share of the variance on each axis.
        perplexity: of t-SNE, as it was fitted to the number of points.
        seed: of t-SNE.
    """

    points_ND: Floats
    method: str
    explained: tuple[float, ...] | None = None
    perplexity: float | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """What a point is: a prompt's name, and which of its tokens (None for the prompt as a whole)."""

    prompt: str
    token: int | None = None


def token_points(prompts: Mapping[str, torch.Tensor]) -> tuple[Floats, list[Label]]:
    """Every token of every prompt `[P, H]` as a point `[N, H]`, and what each is."""
    _check(prompts)
    points = np.concatenate([_array(prompt) for prompt in prompts.values()])
    return points, [Label(name, p) for name, prompt in prompts.items() for p in range(len(prompt))]


def prompt_points(
    prompts: Mapping[str, torch.Tensor], how: Literal["flat", "mean"] = "flat"
) -> tuple[Floats, list[Label]]:
    """Every prompt as one point: its P x H numbers (`flat`; all must be of one length), or the mean of its tokens.

    Raises:
        SoftpruneError: for prompts of other shapes.
    """
    _check(prompts)
    if how == "flat" and len({prompt.shape[0] for prompt in prompts.values()}) > 1:
        lengths = ", ".join(f"{name} {prompt.shape[0]}" for name, prompt in prompts.items())
        raise SoftpruneError("prompts of one length", lengths, "take the mean of their tokens (how='mean')")
    points = [_array(p).ravel() if how == "flat" else _array(p).mean(axis=0) for p in prompts.values()]
    return np.stack(points), [Label(name) for name in prompts]


def pca(points_NH: Floats, axes: int = 2) -> Projection:
    """The points on their main axes; on each, the dimension with the largest weight counts upwards.

    Args:
        points_NH: `[N, H]`.
        axes: D.

    Raises:
        SoftpruneError: for fewer points than axes + 1, or points that are all the same.
    """
    centred_NH = _centred(points_NH, axes + 1, "leave PCA out, or add prompts")
    u_NR, size_R, axes_RH = np.linalg.svd(centred_NH, full_matrices=False)
    axes = min(axes, len(size_R))
    largest_D = np.abs(axes_RH[:axes]).argmax(axis=1)
    sign_D = np.where(axes_RH[np.arange(axes), largest_D] < 0, -1.0, 1.0)
    share_R = size_R**2 / (size_R**2).sum()
    return Projection(u_NR[:, :axes] * size_R[:axes] * sign_D, "pca", explained=tuple(map(float, share_R[:axes])))


def tsne(points_NH: Floats, seed: int = 0) -> Projection:
    """A map by t-SNE with a perplexity of 30, or a third of the other points where these are fewer than 90.

    Args:
        points_NH: `[N, H]`.
        seed: of the map. It starts from PCA.

    Raises:
        SoftpruneError: without scikit-learn, for fewer than four points, or points that are all the same.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise SoftpruneError("scikit-learn for maps", str(error), "pip install 'softprune[analysis]'") from error
    centred_NH = _centred(points_NH, FEWEST, "look at PCA alone, or add prompts")
    perplexity = min(PERPLEXITY, (len(centred_NH) - 1) / 3)
    start_N2 = pca(centred_NH).points_ND
    if start_N2.shape[1] < 2:  # points with one number each
        start_N2 = np.concatenate([start_N2, np.zeros_like(start_N2)], axis=1)
    # As scikit-learn scales its own start, with signs that don't depend on the machine.
    map_N2 = TSNE(
        2, perplexity=perplexity, init=(start_N2 / start_N2[:, 0].std() * 1e-4).astype(np.float32), random_state=seed
    ).fit_transform(centred_NH)
    return Projection(map_N2.astype(np.float64), "tsne", perplexity=float(perplexity), seed=seed)


def _array(prompt_PH: torch.Tensor) -> Floats:
    array: Floats = prompt_PH.detach().cpu().double().numpy()
    return array


def _check(prompts: Mapping[str, torch.Tensor]) -> None:
    shapes = {name: list(prompt.shape) for name, prompt in prompts.items()}
    if not shapes or len({tuple(shape[1:]) for shape in shapes.values()}) > 1:
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "none"
        raise SoftpruneError("prompts [P, H] of one embedding size", found, "compare prompts of one model")


def _centred(points_NH: Floats, fewest: int, do: str) -> Floats:
    points_NH = np.asarray(points_NH, np.float64)
    if len(points_NH) < fewest:
        raise SoftpruneError(f"{fewest} points at least", f"{len(points_NH)}", do)
    if not np.isfinite(points_NH).all():
        raise SoftpruneError("finite numbers in the points", "NaN or infinity", "leave that prompt out")
    centred_NH: Floats = points_NH - points_NH.mean(axis=0)
    if not (points_NH != points_NH[0]).any():
        raise SoftpruneError("points that differ", f"{len(points_NH)} times the same point", do)
    return centred_NH
