"""Who of many enrolled people a clip is most like, in blocks: memory does not grow with either number."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb.analysis.normalising import Cohort, Levels, joined, normalised
from voiceprint_nb.analysis.trials import Scoring, unit

_BLOCK_VALUES = 1 << 22  # scores at a time: 16 MB; more are slower, as they leave the cache


@dataclass(frozen=True, eq=False)
class People:
    """Enrolled people as arrays.

    Attributes
    ----------
    names : list of str
        One a person.
    prints : (k, dimensions) float32
        Unit vectors, those of one person after those of another.
    begins : (people,) intp
        Where the prints of each person begin.
    """

    names: list[str]
    prints: NDArray[np.float32] = field(repr=False)
    begins: NDArray[np.intp]

    def references(self, scoring: Scoring) -> NDArray[np.float32]:
        """What clips are multiplied with: a row for each person, or for each print."""
        if scoring == "best":
            return self.prints
        return unit(np.add.reduceat(self.prints, self.begins, axis=0))

    def levels(self, cohort: Cohort, scoring: Scoring) -> Levels:
        """What each person reaches with a cohort."""
        if scoring == "centroid":
            return cohort.levels(self.references(scoring))
        each = np.split(self.prints, self.begins[1:])
        return joined([cohort.levels_of((own @ cohort.prints.T).max(axis=0)[None]) for own in each])


@dataclass(frozen=True, eq=False)
class Nearest:
    """The most similar people of each clip.

    Attributes
    ----------
    person : (n, k) intp
        Their numbers, most similar first.
    score : (n, k) float32
        Their scores: cosines, unless a cohort has normalised them.
    evidence : (n,) float64
        Natural logarithm of the mean likelihood ratio over all people; zeros without a line.
    """

    person: NDArray[np.intp]
    score: NDArray[np.float32]
    evidence: NDArray[np.float64]


def nearest_people(
    clips: NDArray[np.float32],
    people: People,
    *,
    scoring: Scoring = "centroid",
    top: int = 2,
    line: tuple[float, float] | None = None,
    cohort: Cohort | None = None,
) -> Nearest:
    """The most similar people of each clip.

    Parameters
    ----------
    clips : (n, dimensions) float32
        Unit vectors.
    people : People
        Who is enrolled.
    scoring : {"centroid", "best"}
        As `trials.person_scores` takes it.
    top : int
        So many for each clip; at most all.
    line : (float, float), optional
        Slope and intercept of the log-likelihood ratio over the score.
    cohort : Cohort, optional
        What the scores are normalised by; without one they are cosines in [-1, 1].
    """
    references, n_people = people.references(scoring), len(people.names)
    top = min(top, n_people)
    person = np.empty((len(clips), top), np.intp)
    score = np.empty((len(clips), top), np.float32)
    evidence = np.zeros(len(clips))
    levels = None if cohort is None else (cohort.levels(clips), people.levels(cohort, scoring))
    step = max(1, _BLOCK_VALUES // len(references))
    for begin in range(0, len(clips), step):
        block = slice(begin, begin + step)
        scores = clips[block] @ references.T
        if scoring == "best":
            scores = np.maximum.reduceat(scores, people.begins, axis=1)
        if levels is not None:
            scores = normalised(scores, levels[0].at(block), levels[1])
        person[block], score[block] = _highest(scores, top)
        if line is not None:
            evidence[block] = _mean_ratio(scores, line)
    return Nearest(person, score if cohort is not None else np.clip(score, -1, 1), evidence)


def nearest_others(prints: NDArray[np.float32], top: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Of each print, the others that are most like it.

    Parameters
    ----------
    prints : (n, dimensions) float32
        Unit vectors.
    top : int
        How many, at least 1; of fewer, all.

    Returns
    -------
    others : (n, k) intp
        Their positions, most similar first.
    cosines : (n, k) float32
        In [-1, 1].
    """
    n, top = len(prints), min(top, len(prints) - 1)
    others, cosines = np.empty((n, top), np.intp), np.empty((n, top), np.float32)
    step = max(1, _BLOCK_VALUES // n)
    for begin in range(0, n if top else 0, step):
        block = slice(begin, begin + step)
        scores = prints[block] @ prints.T
        scores[np.arange(len(scores)), np.arange(begin, begin + len(scores))] = -np.inf
        others[block], cosines[block] = _highest(scores, top)
    return others, np.clip(cosines, -1, 1)


def _mean_ratio(scores: NDArray[np.float32], line: tuple[float, float]) -> NDArray[np.float64]:
    """Logarithm of the mean likelihood ratio of each row; the scores are used up."""
    scores *= np.float32(line[0])
    most = scores.max(axis=1, keepdims=True)
    scores -= most  # so that no exponential is too large
    means = np.exp(scores, out=scores).mean(axis=1, dtype=np.float64)
    ratios: NDArray[np.float64] = np.log(means) + most[:, 0].astype(np.float64) + line[1]
    return ratios


def _highest(scores: NDArray[np.float32], top: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Columns and values of the highest of each row, highest first."""
    chosen = (
        np.argpartition(scores, -top, axis=1)[:, -top:]
        if top < scores.shape[1]
        else np.broadcast_to(np.arange(top), scores.shape)
    )
    values = np.take_along_axis(scores, chosen, axis=1)
    order = np.lexsort((chosen, -values), axis=1)
    return np.take_along_axis(chosen, order, axis=1), np.take_along_axis(values, order, axis=1)
