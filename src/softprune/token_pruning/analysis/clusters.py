"""Do the states of kept tokens cluster by class? PCA and t-SNE maps, and silhouettes against shuffled classes.

A map always shows some shape. The silhouette says whether texts lie nearer to their own class than to the next one
(1: far nearer; 0: no difference), its p-value how often shuffled classes reach as much. Believe the original space:
t-SNE keeps neighbours, not distances.

Sources: van der Maaten and Hinton, JMLR 9 (2008); Rousseeuw, J. Comput. Appl. Math. 20 (1987). Axes: N texts, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from softprune.errors import SoftpruneError
from softprune.statistics.bootstrap import Floats
from softprune.token_pruning.analysis.words import Ints

MOST = 2_000  # texts on a map; t-SNE's time and the distances grow with the square
PERPLEXITY = 30.0
FEWEST = 10  # texts


@dataclass(frozen=True, slots=True)
class Silhouette:
    """The mean silhouette of all texts."""

    space: str  # which distances: "states" (cosine), "pca" or "tsne" (Euclidean, in the map)
    value: float
    chance: float  # the value that 95% of shuffles stay below
    p: float  # how often shuffled classes reach the value


@dataclass(frozen=True, slots=True)
class Clusters:
    """The maps and how well they separate classes."""

    texts: tuple[int, ...]  # places of the texts that are on the maps, among those given
    classes: tuple[int, ...]  # of these
    pca: Floats  # [N, 2]
    tsne: Floats  # [N, 2]
    explained: tuple[float, float]  # share of the variance on each axis of `pca`
    perplexity: float  # of t-SNE
    silhouettes: tuple[Silhouette, ...]  # of states, pca and tsne


def map_states(
    states: Sequence[Sequence[float]], classes: Sequence[int], *, seed: int = 0, most: int = MOST
) -> Clusters | None:
    """Map texts by the states `[H]` of their kept tokens: a random sample where there are more than `most`.

    Texts whose state is empty (nothing was kept) are left out. None where fewer than 10 texts, or fewer than two
    classes with two texts each, remain.
    """
    try:
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE
        from sklearn.metrics.pairwise import cosine_distances
    except ImportError as error:
        raise SoftpruneError("scikit-learn for maps", str(error), "pip install 'softprune[analysis]'") from error
    generator = np.random.default_rng(seed)
    texts = np.array([place for place, state in enumerate(states) if len(state)], np.int64)
    if len(texts) > most:
        texts = np.sort(generator.choice(texts, most, replace=False))
    class_N = np.array([classes[place] for place in texts], np.int64)
    counts = np.unique(class_N, return_counts=True)[1]
    if len(texts) < FEWEST or (counts >= 2).sum() < 2:
        return None
    state_NH = np.array([states[place] for place in texts], np.float64)
    if not state_NH.std(axis=0).any():  # all texts in one point: nothing to map
        return None
    pca = PCA(2, random_state=seed).fit(state_NH)
    pca_N2 = pca.transform(state_NH)
    # A point has at most N - 1 neighbours, and perplexity counts them: a third of that is scikit-learn's own advice.
    perplexity = min(PERPLEXITY, (len(texts) - 1) / 3)
    tsne_N2 = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, metric="euclidean").fit_transform(state_NH)
    wide_N2 = tsne_N2.astype(np.float64)
    spaces = {"states": cosine_distances(state_NH), "pca": cdist(pca_N2, pca_N2), "tsne": cdist(wide_N2, wide_N2)}
    return Clusters(
        texts=tuple(map(int, texts)),
        classes=tuple(map(int, class_N)),
        pca=pca_N2,
        tsne=tsne_N2,
        explained=(float(pca.explained_variance_ratio_[0]), float(pca.explained_variance_ratio_[1])),
        perplexity=float(perplexity),
        silhouettes=tuple(_test_silhouette(space, distance_NN, class_N, seed) for space, distance_NN in spaces.items()),
    )


def mean_silhouette(distance_NN: Floats, class_N: Ints) -> float:
    """The mean over texts of `(b - a) / max(a, b)`: a, mean distance to its own class; b, to the nearest other one.

    A text that is alone in its class counts 0. The tests compare this with `sklearn.metrics.silhouette_score`, which is
    ten times as slow: for the shuffles it would be called a thousand times for each space.
    """
    names, code_N = np.unique(class_N, return_inverse=True)
    member_NG = np.eye(len(names))[code_N]
    size_G = member_NG.sum(axis=0)
    sum_NG = distance_NN @ member_NG
    own_N, own_size_N = sum_NG[np.arange(len(code_N)), code_N], size_G[code_N]
    a_N = own_N / np.maximum(own_size_N - 1, 1)
    b_N = np.where(member_NG > 0, np.inf, sum_NG / size_G).min(axis=1)
    larger_N = np.maximum(a_N, b_N)
    score_N = np.where((own_size_N > 1) & (larger_N > 0), (b_N - a_N) / np.where(larger_N > 0, larger_N, 1), 0.0)
    return float(score_N.mean())


def _test_silhouette(space: str, distance_NN: Floats, class_N: Ints, seed: int) -> Silhouette:
    generator = np.random.default_rng(seed)
    value = mean_silhouette(distance_NN, class_N)
    shuffles = 999 if len(class_N) <= 500 else 199  # for p to two digits, or for time
    null = np.array([mean_silhouette(distance_NN, generator.permutation(class_N)) for _ in range(shuffles)])
    p = (1 + int((null >= value).sum())) / (shuffles + 1)
    return Silhouette(space, value, float(np.quantile(null, 0.95)), p)
