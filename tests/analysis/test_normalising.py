from __future__ import annotations

import statistics

import numpy as np
import pytest
from voices import voices

from voiceprint_nb.analysis import matching, normalising
from voiceprint_nb.analysis.matching import People, nearest_people
from voiceprint_nb.analysis.normalising import Cohort, Levels, normalised
from voiceprint_nb.analysis.trials import Scoring, make_trials, person_scores, unit
from voiceprint_nb.errors import UsageError

TOP = 7
COHORT = Cohort(voices(25, 1, noise=0.7, seed=40)[0])


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalising, "_TOP", TOP)


def cosine(clip: np.ndarray, prints: np.ndarray, scoring: str) -> float:
    """One score, one product after the other."""
    if scoring == "best":
        return max(float(np.dot(clip, one)) for one in prints)
    centre = sum(np.asarray(one, float) for one in prints)
    return float(np.dot(clip, centre) / np.sqrt(np.dot(centre, centre)))


def s_norm(clip: np.ndarray, prints: np.ndarray, scoring: str) -> float:
    """Adaptive s-norm of one clip and one person, by the book."""
    of_clip = sorted((float(np.dot(clip, other)) for other in COHORT.prints), reverse=True)[:TOP]
    of_person = sorted((cosine(other, prints, scoring) for other in COHORT.prints), reverse=True)[:TOP]
    score = cosine(clip, prints, scoring)
    return sum((score - statistics.fmean(own)) / statistics.pstdev(own) for own in (of_clip, of_person)) / 2


def test_a_case_worked_out_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clip's two highest are 0.8 and 0.6, the person's 0.9 and 0.5: 0.75 is 0.5 and 0.25 above."""
    monkeypatch.setattr(normalising, "_TOP", 2)
    cohort = Cohort(np.eye(10, dtype=np.float32))
    clip = cohort.levels_of(np.array([[0.1, 0.8, 0.0, 0.6, *[0.2] * 6]], np.float32))
    person = cohort.levels_of(np.array([[0.5, 0.4, 0.9, *[0.0] * 7]], np.float32))
    assert (clip.mean[0], clip.spread[0]) == pytest.approx((0.7, 0.1))
    assert (person.mean[0], person.spread[0]) == pytest.approx((0.7, 0.2))
    assert normalised(np.array([[0.75]], np.float32), clip, person)[0, 0] == pytest.approx((0.5 + 0.25) / 2)


@pytest.mark.parametrize("scoring", ["centroid", "best"])
@pytest.mark.parametrize("block", [1, 60, 1 << 24])
def test_blocks_of_clips_against_people(
    monkeypatch: pytest.MonkeyPatch, scoring: Scoring, block: int
) -> None:
    monkeypatch.setattr(matching, "_BLOCK_VALUES", block)
    monkeypatch.setattr(normalising, "_BLOCK_VALUES", block)
    sizes = [3, 1, 4, 2]
    prints, _ = voices(10, 1, noise=0.5, seed=1)
    people = People([f"p{n}" for n in range(4)], prints, np.array([0, 3, 4, 8]))
    clips, _ = voices(9, 1, noise=0.5, seed=2)
    found = nearest_people(clips, people, scoring=scoring, top=4, line=(1.5, -2.0), cohort=COHORT)
    own = np.split(prints, np.cumsum(sizes)[:-1])
    scores = np.array([[s_norm(clip, of_one, scoring) for of_one in own] for clip in clips])
    assert np.abs(scores).max() > 1.5  # no cosines
    np.testing.assert_array_equal(found.person, np.argsort(-scores, axis=1))
    np.testing.assert_allclose(found.score, -np.sort(-scores, axis=1), atol=1e-4)
    np.testing.assert_allclose(found.evidence, np.log(np.exp(1.5 * scores - 2).mean(axis=1)), atol=1e-4)
    one = person_scores(clips, own[0], scoring=scoring, cohort=COHORT)
    np.testing.assert_allclose(one, scores[:, 0], atol=1e-4)


def test_trials_of_clip_against_clip() -> None:
    embeddings, speakers = voices(3, 3, noise=0.5, seed=3)
    trials = make_trials(embeddings, speakers, cohort=COHORT)
    first, second = np.triu_indices(9, k=1)
    told = [s_norm(embeddings[a], embeddings[[b]], "centroid") for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(trials.scores, told, atol=1e-4)


@pytest.mark.parametrize("scoring", ["centroid", "best"])
def test_trials_against_people_of_several_clips(scoring: Scoring) -> None:
    embeddings, speakers = voices(2, 3, noise=0.5, seed=3)
    trials = make_trials(embeddings, speakers, enrolled=2, scoring=scoring, cohort=COHORT)
    claims = [(3, 0, 1), (4, 0, 1), (5, 0, 1), (0, 1, 2), (1, 2, 0), (2, 0, 1)]
    claims += [(0, 3, 4), (1, 3, 4), (2, 3, 4), (3, 4, 5), (4, 5, 3), (5, 3, 4)]
    told = [s_norm(embeddings[clip], embeddings[person], scoring) for clip, *person in claims]
    np.testing.assert_allclose(trials.scores, told, atol=1e-4)


def test_a_cohort_is_the_same_in_any_order() -> None:
    backwards = Cohort(COHORT.prints[::-1].copy())
    assert backwards.normalisation == COHORT.normalisation
    assert Cohort(COHORT.prints[1:]).normalisation != COHORT.normalisation
    other = Cohort(np.concatenate([COHORT.prints[1:], unit(COHORT.prints[:1] + np.float32(1e-3))]))
    assert other.normalisation != COHORT.normalisation
    assert str(COHORT.normalisation) == "adaptive s-norm by the 7 most alike of 25 cohort voiceprints"
    assert COHORT.normalisation.digest not in repr(COHORT.normalisation)


def test_small_cohorts_and_those_that_say_nothing() -> None:
    with pytest.raises(UsageError, match=r"10 different voiceprints .* not 9:"):
        Cohort(COHORT.prints[:9])
    assert "25 voiceprints is small" in (COHORT.remark or "")
    assert Cohort(voices(50, 1, noise=0.5)[0]).remark is None
    alike = Cohort(np.repeat(COHORT.prints[:1], 12, axis=0))
    with pytest.raises(UsageError, match="all alike"):
        alike.levels(COHORT.prints[:2])


def test_scores_move_with_neither_side_but_from_it() -> None:
    """A clip that is 0.1 more like everybody, the person as well, gets the score that it would get."""
    levels = Levels(np.array([0.5], np.float32), np.array([0.1], np.float32))
    higher = Levels(levels.mean + np.float32(0.1), levels.spread)
    plain = normalised(np.array([[0.7]], np.float32), levels, levels)
    assert normalised(np.array([[0.8]], np.float32), higher, higher) == pytest.approx(plain, abs=1e-5)
    assert plain[0, 0] == pytest.approx(2, abs=1e-5)
