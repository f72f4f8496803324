from __future__ import annotations

import numpy as np
import pytest
from voices import voices

from voiceprint_nb.analysis import matching
from voiceprint_nb.analysis.matching import People, nearest_people
from voiceprint_nb.analysis.trials import Scoring, person_scores


def people_of(n_people: int, n_prints: int) -> People:
    embeddings, _ = voices(n_people, n_prints, noise=0.6)
    return People([f"p{n}" for n in range(n_people)], embeddings, np.arange(0, len(embeddings), n_prints))


@pytest.mark.parametrize("scoring", ["centroid", "best"])
@pytest.mark.parametrize("block", [1, 100, 1 << 24])
@pytest.mark.parametrize("top", [1, 3, 50])
def test_blocks_give_what_one_person_after_the_other_gives(
    monkeypatch: pytest.MonkeyPatch, scoring: Scoring, block: int, top: int
) -> None:
    monkeypatch.setattr(matching, "_BLOCK_VALUES", block)
    people = people_of(12, 3)
    clips, _ = voices(12, 4, noise=0.9, seed=3)
    found = nearest_people(clips, people, scoring=scoring, top=top, line=(20.0, -10.0))
    scores = np.stack(
        [person_scores(clips, people.prints[3 * n : 3 * n + 3], scoring=scoring) for n in range(12)], axis=1
    )
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    np.testing.assert_array_equal(found.person, order)
    np.testing.assert_allclose(found.score, np.take_along_axis(scores, order, axis=1), atol=1e-6)
    ratios = np.exp(20.0 * scores.astype(float) - 10.0)
    np.testing.assert_allclose(found.evidence, np.log(ratios.mean(axis=1)), atol=1e-4)
