from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from softprune.errors import SoftpruneError
from softprune.interpret.projections import pca, prompt_points, token_points, tsne


def clouds(n: int, hidden: int = 10, apart: float = 20.0) -> np.ndarray:
    generator = np.random.default_rng(0)
    points = generator.normal(size=(2 * n, hidden))
    points[n:, 0] += apart
    return points


def test_pca_is_that_of_the_covariance_and_of_scikit_learn() -> None:
    points = clouds(15)
    found = pca(points)
    values, axes = np.linalg.eigh(np.cov(points.T))
    assert found.explained == pytest.approx(values[::-1][:2] / values.sum())
    for d in range(2):
        axis = axes[:, -1 - d]
        axis = axis * np.sign(axis[np.abs(axis).argmax()])
        assert found.points_ND[:, d] == pytest.approx((points - points.mean(axis=0)) @ axis)
    theirs = PCA(2).fit_transform(points)
    assert np.abs(found.points_ND) == pytest.approx(np.abs(theirs))
    assert np.abs(pca(points[:, ::-1].copy()).points_ND) == pytest.approx(np.abs(theirs))
    assert np.abs(pca(points * np.arange(1, 11)).points_ND) != pytest.approx(np.abs(theirs))


def test_signs_hang_on_nothing_but_the_points() -> None:
    points = clouds(8)
    first = pca(points, axes=3)
    order = np.random.default_rng(1).permutation(16)
    assert pca(points[order], axes=3).points_ND == pytest.approx(first.points_ND[order])
    assert pca(-points, axes=3).points_ND == pytest.approx(-first.points_ND)


def test_a_map_keeps_groups_apart_and_says_its_perplexity() -> None:
    points = clouds(12)
    found = tsne(points, seed=3)
    assert (found.perplexity, found.explained) == (pytest.approx(23 / 3), None)
    distances = np.linalg.norm(found.points_ND[:, None] - found.points_ND[None], axis=-1) + 1e9 * np.eye(24)
    same = (distances.argmin(axis=1) < 12) == (np.arange(24) < 12)
    assert same.all()
    assert np.array_equal(tsne(points, seed=3).points_ND, found.points_ND)
    mixed = tsne(clouds(12, apart=0.0), seed=3).points_ND
    near = (np.linalg.norm(mixed[:, None] - mixed[None], axis=-1) + 1e9 * np.eye(24)).argmin(axis=1)
    assert not ((near < 12) == (np.arange(24) < 12)).all()


def test_perplexity_fits_the_sample() -> None:
    assert tsne(clouds(2)).perplexity == pytest.approx(1)
    assert tsne(clouds(50)).perplexity == 30.0
    assert tsne(clouds(3, hidden=1)).points_ND.shape == (6, 2)


def test_points_are_tokens_or_whole_prompts() -> None:
    prompts = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, 3), "c": torch.zeros(1, 3)}
    assert token_points(prompts).tolist() == [[0, 1, 2], [3, 4, 5], [1] * 3, [1] * 3, [0] * 3]
    whole = prompt_points({name: prompts[name] for name in "ab"})
    assert whole.tolist() == [[0, 1, 2, 3, 4, 5], [1] * 6]
    with pytest.raises(SoftpruneError, match="prompts of one length"):
        prompt_points(prompts)
    with pytest.raises(SoftpruneError, match="one embedding size"):
        token_points({"a": torch.zeros(2, 3), "b": torch.zeros(2, 4)})
    with pytest.raises(SoftpruneError, match="one embedding size"):
        token_points({})


def test_what_cannot_be_mapped_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SoftpruneError, match="4 points at least"):
        tsne(clouds(2)[:3])
    with pytest.raises(SoftpruneError, match="3 points at least"):
        pca(clouds(1))
    for mapped in (pca, tsne):
        with pytest.raises(SoftpruneError, match="points that differ"):
            mapped(np.full((5, 3), 0.1))
        with pytest.raises(SoftpruneError, match="NaN or infinity"):
            mapped(np.full((5, 3), np.nan))
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(SoftpruneError, match=r"softprune\[analysis\]"):
        tsne(clouds(5))
    assert pca(clouds(5)).points_ND.shape == (10, 2)
