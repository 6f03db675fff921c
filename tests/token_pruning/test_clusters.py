from __future__ import annotations

import sys

import numpy as np
import pytest

from softprune.errors import SoftpruneError
from softprune.token_pruning.analysis.clusters import map_states, mean_silhouette

pytestmark = pytest.mark.slow

CLASSES = [i % 3 for i in range(45)]


def states(apart: float, seed: int = 0) -> list[list[float]]:
    generator = np.random.default_rng(seed)
    centres = apart * np.eye(3, 8)
    return [list(map(float, centres[place] + generator.normal(size=8))) for place in CLASSES]


def test_silhouettes_are_scikit_learns() -> None:
    from sklearn.metrics import pairwise_distances, silhouette_score

    state_NH, class_N = np.array(states(2.0)), np.array(CLASSES)
    distances = {metric: pairwise_distances(state_NH, metric=metric) for metric in ("cosine", "euclidean")}
    for metric, distance_NN in distances.items():
        assert mean_silhouette(distance_NN, class_N) == pytest.approx(
            silhouette_score(state_NH, class_N, metric=metric)
        )
    assert mean_silhouette(distances["cosine"], class_N) != pytest.approx(
        mean_silhouette(distances["euclidean"], class_N)
    )


def test_a_class_of_one_counts_nought() -> None:
    from sklearn.metrics import pairwise_distances, silhouette_score

    state_NH, class_N = np.array(states(2.0))[:10], np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 2])
    expected = silhouette_score(state_NH, class_N, metric="cosine")
    assert mean_silhouette(pairwise_distances(state_NH, metric="cosine"), class_N) == pytest.approx(expected)


def test_classes_apart_are_found_and_mapped() -> None:
    found = map_states(states(6.0), CLASSES)
    assert found is not None
    assert found.pca.shape == found.tsne.shape == (45, 2)
    assert found.perplexity == pytest.approx(44 / 3)
    assert all(s.value > s.chance and s.p < 0.01 for s in found.silhouettes)
    assert found.explained[0] >= found.explained[1] > 0


def test_classes_at_random_are_not_found() -> None:
    """Negative control: where there are no classes, few of several sets pass a test at 5%."""
    found = [map_states(states(0.0, seed), CLASSES, seed=seed) for seed in range(5)]
    for place in range(3):
        assert sum(one is None or one.silhouettes[place].p < 0.05 for one in found) <= 1


def test_seeded_and_sampled() -> None:
    made = states(3.0)
    once, again = (map_states(made, CLASSES, seed=5, most=30) for _ in range(2))
    other = map_states(made, CLASSES, seed=6, most=30)
    assert once is not None
    assert again is not None
    assert other is not None
    assert once.texts == again.texts != other.texts
    assert len(once.texts) == 30
    np.testing.assert_array_equal(once.tsne, again.tsne)


def test_texts_of_which_nothing_was_kept_are_left_out() -> None:
    made: list[list[float]] = states(3.0)
    made[4] = []
    found = map_states(made, CLASSES)
    assert found is not None
    assert 4 not in found.texts
    assert len(found.texts) == 44


@pytest.mark.parametrize(
    ("made", "classes"),
    [(states(1.0)[:9], CLASSES[:9]), (states(1.0), [0] * 45), ([[1.0, 2.0]] * 45, CLASSES), ([[]] * 45, CLASSES)],
)
def test_nothing_to_map(made: list[list[float]], classes: list[int]) -> None:
    assert map_states(made, classes) is None


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.decomposition", None)
    with pytest.raises(SoftpruneError, match=r"softprune\[analysis\]"):
        map_states(states(1.0), CLASSES)
