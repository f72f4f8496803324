from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score
from voices import voices

from voiceprint_nb.analysis import clustering
from voiceprint_nb.analysis.clustering import clusters
from voiceprint_nb.errors import UsageError


def test_speakers_that_lie_apart_are_found() -> None:
    embeddings, speakers = voices(12, 5, noise=0.4)
    shuffled = np.random.default_rng(0).permutation(len(speakers))
    found = clusters(embeddings[shuffled], threshold=0.6)
    assert adjusted_rand_score(speakers[shuffled], found.number) == 1.0
    assert found.number.max() == 12
    assert found.mean_silhouette > 0.5
    assert found.is_representative.sum() == 12
    assert len(set(found.number[found.is_representative])) == 12


def test_larger_groups_come_first_and_one_clip_stands_for_each() -> None:
    embeddings, speakers = voices(3, 6, noise=0.4)
    kept = np.array([0, 6, 7, 8, 9, 12, 13, 14])
    found = clusters(embeddings[kept], threshold=0.6)
    assert found.number.tolist() == [3, 1, 1, 1, 1, 2, 2, 2]
    assert found.silhouette[0] == 0
    cosines = embeddings[6:10] @ embeddings[6:10].T
    assert found.is_representative[1:5].tolist() == [n == cosines.sum(axis=1).argmax() for n in range(4)]
    assert found.is_representative[0]
    assert speakers[kept][found.is_representative].tolist() == [0, 1, 2]


@pytest.mark.parametrize("block", [1, 7, 256])
@pytest.mark.parametrize("threshold", [0.2, 0.45, 0.7])
def test_groups_are_those_of_average_linkage_in_scikit_learn(
    monkeypatch: pytest.MonkeyPatch, block: int, threshold: float
) -> None:
    monkeypatch.setattr(clustering, "_BLOCK_PRINTS", block)
    embeddings, _ = voices(10, 5, noise=1.0)
    reference = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="average", distance_threshold=1 - threshold
    ).fit_predict(1 - embeddings @ embeddings.T)
    found = clusters(embeddings, threshold=threshold)
    assert 1 < found.number.max() < 50
    assert adjusted_rand_score(reference, found.number) == 1.0


@pytest.mark.parametrize(
    ("n", "threshold", "n_groups"), [(1, 0.5, 1), (2, -1.0, 1), (2, 1.0, 2), (6, 1.0, 6)]
)
def test_few_clips(n: int, threshold: float, n_groups: int) -> None:
    embeddings, _ = voices(1, n, noise=0.3)
    found = clusters(embeddings, threshold=threshold)
    assert found.number.max() == n_groups
    assert not found.silhouette.any()
    assert found.is_representative.sum() == n_groups


def test_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "_MOST_PRINTS", 3)
    with pytest.raises(UsageError, match="too many"):
        clusters(voices(1, 4, noise=0.3)[0], threshold=0.5)
