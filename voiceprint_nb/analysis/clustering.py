"""Which clips are of one voice, without labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb.errors import MissingExtra, UsageError

_MOST_PRINTS = 20_000  # 3.2 GB at the peak: float64 distances of all pairs, which the linkage copies
_BLOCK_PRINTS = 256


@dataclass(frozen=True, eq=False)
class Clusters:
    """Groups of clips.

    Attributes
    ----------
    number : (n,) intp
        Of each clip's group, from 1; larger groups first.
    silhouette : (n,) float64
        In [-1, 1]; 0 in a group of one.
    is_representative : (n,) bool
        One clip of each group.
    """

    number: NDArray[np.intp]
    silhouette: NDArray[np.float64]
    is_representative: NDArray[np.bool_]

    @property
    def mean_silhouette(self) -> float:
        """Of all clips: near 1 if the voices lie well apart."""
        return float(self.silhouette.mean())


def clusters(embeddings: NDArray[np.float32], *, threshold: float) -> Clusters:
    """Groups by average linkage, as far as they are as alike as the threshold.

    Parameters
    ----------
    embeddings : (n, dimensions) float32
        Unit vectors.
    threshold : float
        Mean cosine between two groups that become one.

    Raises
    ------
    UsageError
        More than 20,000 clips.
    MissingExtra
        scikit-learn is not installed.
    """
    if len(embeddings) > _MOST_PRINTS:
        raise UsageError(f"{len(embeddings)} voiceprints are too many: cluster {_MOST_PRINTS} at most.")
    try:
        from scipy.cluster.hierarchy import fcluster, linkage
        from sklearn.metrics import silhouette_samples
    except ImportError as error:
        raise MissingExtra("Clusters need scikit-learn: pip install 'voiceprint_nb[analysis]'.") from error
    group = np.zeros(len(embeddings), np.intp)
    if len(embeddings) > 1:
        tree = linkage(_distances(embeddings), "average")
        group = fcluster(tree, 1 - threshold, "distance")
    distances = embeddings @ embeddings.T
    np.clip(distances, -1, 1, out=distances)
    np.subtract(1, distances, out=distances)
    np.fill_diagonal(distances, 0)
    names, first, number, sizes = np.unique(group, return_index=True, return_inverse=True, return_counts=True)
    place = np.empty(len(names), np.intp)
    place[np.lexsort((first, -sizes))] = np.arange(len(names))  # equal sizes in the order of the rows
    number = place[number]
    silhouette = np.zeros(len(embeddings))
    if 1 < len(names) < len(embeddings):
        silhouette = silhouette_samples(distances, number, metric="precomputed")
    is_representative = np.zeros(len(embeddings), bool)
    for group_number in range(len(names)):
        own = np.flatnonzero(number == group_number)
        is_representative[own[distances[np.ix_(own, own)].sum(axis=1).argmin()]] = True
    return Clusters(number + 1, silhouette, is_representative)


def _distances(embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
    """One less the cosine of each pair, in the order that SciPy keeps pairs in: (n * (n - 1) / 2,)."""
    n = len(embeddings)
    distances, end = np.empty(n * (n - 1) // 2), 0
    for begin in range(0, n, _BLOCK_PRINTS):
        block = np.clip(embeddings[begin : begin + _BLOCK_PRINTS] @ embeddings[begin:].T, -1, 1)
        for row, cosines in enumerate(block):
            begun, end = end, end + n - begin - row - 1
            distances[begun:end] = 1 - cosines[row + 1 :]
    return distances
