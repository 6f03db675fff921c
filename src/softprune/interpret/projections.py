"""Prompts as points on a plane: PCA, and t-SNE beside it.

t-SNE (van der Maaten and Hinton, JMLR 9, 2008) shows who is near whom; distances between groups and their sizes on its
map mean nothing. PCA keeps distances as well as two axes can, and says how much of the variance they hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from softprune.errors import SoftpruneError
from softprune.statistics.bootstrap import Floats

PERPLEXITY = 30.0
FEWEST = 4  # points that t-SNE needs: with three, each would have less than one neighbour


@dataclass(frozen=True, slots=True)
class Projection:
    """Points `[N, D]` on a map."""

    points_ND: Floats
    explained: tuple[float, ...] | None = None  # of PCA, the share of the variance on each axis
    perplexity: float | None = None  # of t-SNE, as it was fitted to the number of points


def token_points(prompts: Mapping[str, torch.Tensor]) -> Floats:
    """Every token of every prompt `[P, H]` as a point `[N, H]`, in the prompts' order.

    Raises:
        SoftpruneError: for no prompts, or other embedding sizes.
    """
    sizes = {prompt.shape[1:] for prompt in prompts.values()}
    if len(sizes) != 1:
        found = ", ".join(f"{name} {list(prompt.shape)}" for name, prompt in prompts.items()) or "none"
        raise SoftpruneError("prompts [P, H] of one embedding size", found, "compare prompts of one model")
    return np.concatenate([prompt.detach().cpu().double().numpy() for prompt in prompts.values()])


def prompt_points(prompts: Mapping[str, torch.Tensor]) -> Floats:
    """Every prompt as one point, its P x H numbers: `[N, P * H]`.

    Raises:
        SoftpruneError: for prompts of other shapes.
    """
    points_NH = token_points(prompts)
    if len({len(prompt) for prompt in prompts.values()}) > 1:
        lengths = ", ".join(f"{name} {len(prompt)}" for name, prompt in prompts.items())
        raise SoftpruneError("prompts of one length", lengths, "map their tokens, or the mean of each prompt's")
    return points_NH.reshape(len(prompts), -1)


def pca(points_NH: Floats, axes: int = 2) -> Projection:
    """The points `[N, H]` on their D = `axes` main axes, or as many as there are.

    Raises:
        SoftpruneError: for fewer points than axes + 1, or points that are all the same.
    """
    centred_NH = _centred(points_NH, axes + 1, "leave PCA out, or add prompts")
    u_NR, size_R, axes_RH = np.linalg.svd(centred_NH, full_matrices=False)
    axes = min(axes, len(size_R))
    # Signs are free, and would differ between machines: the dimension with the largest weight counts upwards.
    largest_D = np.abs(axes_RH[:axes]).argmax(axis=1)
    sign_D = np.where(axes_RH[np.arange(axes), largest_D] < 0, -1.0, 1.0)
    share_R = size_R**2 / (size_R**2).sum()
    return Projection(u_NR[:, :axes] * size_R[:axes] * sign_D, explained=tuple(map(float, share_R[:axes])))


def tsne(points_NH: Floats, seed: int = 0) -> Projection:
    """A map of points `[N, H]` by t-SNE, which starts from PCA.

    Its perplexity is 30, or a third of the other points where these are fewer than 90.

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
    init_N2 = (start_N2 / start_N2[:, 0].std() * 1e-4).astype(np.float32)
    map_N2 = TSNE(2, perplexity=perplexity, init=init_N2, random_state=seed).fit_transform(centred_NH)
    return Projection(map_N2.astype(np.float64), perplexity=float(perplexity))


def _centred(points_NH: Floats, fewest: int, do: str) -> Floats:
    points_NH = np.asarray(points_NH, np.float64)
    if len(points_NH) < fewest:
        raise SoftpruneError(f"{fewest} points at least", f"{len(points_NH)}", do)
    if not np.isfinite(points_NH).all():
        raise SoftpruneError("finite numbers in the points", "NaN or infinity", "leave that prompt out")
    # Compared before the mean is taken away, whose rounding would make equal points differ.
    if not (points_NH != points_NH[0]).any():
        raise SoftpruneError("points that differ", f"{len(points_NH)} times the same point", do)
    centred_NH: Floats = points_NH - points_NH.mean(axis=0)
    return centred_NH
