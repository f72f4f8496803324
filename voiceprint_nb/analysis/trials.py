"""Trials: clips against people, of whom some spoke them, scored as `match` scores."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb.analysis.normalising import Cohort, Levels, normalised
from voiceprint_nb.analysis.similarity import has_direction
from voiceprint_nb.errors import UsageError

Scoring = Literal["centroid", "best"]

_MOST_CLIPS = 3000  # 4.5 million pairs


@dataclass(frozen=True, eq=False)
class Trials:
    """Scores of clips against people.

    Attributes
    ----------
    scores : (n,) float32
        Similarities, higher for more similar.
    speaker, person : (n,) intp
        Number of who is heard, and of who is claimed.
    """

    scores: NDArray[np.float32]
    speaker: NDArray[np.intp]
    person: NDArray[np.intp]

    @cached_property
    def is_genuine(self) -> NDArray[np.bool_]:
        """Whether the claim is true."""
        is_genuine: NDArray[np.bool_] = self.speaker == self.person
        return is_genuine

    @cached_property
    def speakers(self) -> NDArray[np.intp]:
        """Everybody who is heard or claimed, ascending."""
        speakers: NDArray[np.intp] = np.union1d(np.unique(self.speaker), np.unique(self.person))
        return speakers

    @property
    def genuine(self) -> NDArray[np.float32]:
        """Scores of true claims."""
        return self.scores[self.is_genuine]

    @property
    def impostor(self) -> NDArray[np.float32]:
        """Scores of false claims."""
        return self.scores[~self.is_genuine]

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Trials:
        """Some of them, in this order."""
        return Trials(self.scores[chosen], self.speaker[chosen], self.person[chosen])


def check_scoring(scoring: str) -> None:
    """Raise `UsageError` for an unknown way to score."""
    if scoring not in get_args(Scoring):
        raise UsageError(
            f"Unknown scoring={scoring!r}: use one of {', '.join(map(repr, get_args(Scoring)))}."
        )


def person_scores(
    clips: NDArray[np.float32],
    prints: NDArray[np.float32],
    *,
    scoring: Scoring,
    cohort: Cohort | None = None,
    levels: Levels | None = None,
) -> NDArray[np.float32]:
    """Scores of clips against one person.

    Parameters
    ----------
    clips : (n, dimensions) float32
        Unit vectors.
    prints : (k, dimensions) float32
        The person's, unit vectors.
    scoring : {"centroid", "best"}
        The cosine to the direction of the prints' mean, or the highest of the cosines.
    cohort : Cohort, optional
        What the scores are normalised by; without one they are cosines in [-1, 1].
    levels : Levels, optional
        What the clips reach with the cohort, if that is known.

    Returns
    -------
    (n,) float32

    Raises
    ------
    UsageError
        Another ``scoring``.
    """
    check_scoring(scoring)
    if scoring == "best":
        cosines: NDArray[np.float32] = (clips @ prints.T).max(axis=1)
    else:
        cosines = clips @ unit(prints.mean(axis=0))
    if cohort is None:
        return np.clip(cosines, -1, 1)
    person = cohort.levels_of(person_scores(cohort.prints, prints, scoring=scoring)[None])
    return normalised(cosines[:, None], levels or cohort.levels(clips), person)[:, 0]


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vectors at length 1, along the last axis.

    Raises
    ------
    UsageError
        One has no direction, as the mean of voiceprints that cancel each other.
    """
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not has_direction(lengths).all():
        raise UsageError("The voiceprints of a person cancel each other: they cannot be of one voice.")
    unit_vectors: NDArray[np.float32] = vectors / lengths
    return unit_vectors


def make_trials(
    embeddings: NDArray[np.float32],
    speakers: NDArray[np.intp],
    *,
    groups: NDArray[np.intp] | None = None,
    enrolled: int = 1,
    scoring: Scoring = "centroid",
    cohort: Cohort | None = None,
) -> Trials:
    """Every clip against every person, enrolled with other clips than that one.

    With one clip a person, each pair of clips is one trial. With more, each clip meets each person once: the
    ones that follow it in the person's row of clips, or the first ones. `evenly` takes as many clips as there
    is room for.

    Parameters
    ----------
    embeddings : (n, dimensions) float32
        Unit vectors.
    speakers : (n,) intp
        Who is heard.
    groups : (n,) intp, optional
        Only clips of one group meet: a room, a device, a corpus.
    enrolled : int
        Clips that make a person; who has fewer is never claimed.
    scoring : {"centroid", "best"}
        As `person_scores` takes it.
    cohort : Cohort, optional
        What the scores are normalised by.
    """
    check_scoring(scoring)
    if not isinstance(enrolled, (int, np.integer)) or enrolled < 1:
        raise UsageError(f"A person is made of one clip or more, not of enrolled={enrolled!r}.")
    groups = np.zeros(len(speakers), np.intp) if groups is None else groups
    levels = None if cohort is None else cohort.levels(embeddings)
    if enrolled == 1:
        return _pairs(embeddings, speakers, groups, levels)

    def scores(clips: NDArray[np.intp], person: NDArray[np.intp]) -> NDArray[np.float32]:
        own = None if levels is None else levels.at(clips)
        return person_scores(
            embeddings[clips], embeddings[person], scoring=scoring, cohort=cohort, levels=own
        )

    heard, claimed, scored = [], [], [np.empty(0, np.float32)]
    for group, person in np.unique(np.stack([groups, speakers], axis=1), axis=0):
        own = np.flatnonzero((groups == group) & (speakers == person))
        others = np.flatnonzero((groups == group) & (speakers != person))
        if len(own) < enrolled:
            continue
        around = np.concatenate([own, own])
        n_own = len(own) if len(own) > enrolled else 0
        scored.append(scores(others, own[:enrolled]))
        scored += [scores(own[[n]], around[n + 1 : n + 1 + enrolled]) for n in range(n_own)]
        heard += [speakers[others], np.full(n_own, person)]
        claimed.append(np.full(len(others) + n_own, person))
    nobody = np.empty(0, np.intp)
    return Trials(
        np.concatenate(scored), np.concatenate([nobody, *heard]), np.concatenate([nobody, *claimed])
    )


def _pairs(
    embeddings: NDArray[np.float32],
    speakers: NDArray[np.intp],
    groups: NDArray[np.intp],
    levels: Levels | None,
) -> Trials:
    scores = embeddings @ embeddings.T
    np.clip(scores, -1, 1, out=scores)
    if levels is not None:
        scores = normalised(scores, levels, levels)
    meet = np.triu(groups[:, None] == groups, k=1)
    first, second = (np.broadcast_to(side, meet.shape)[meet] for side in (speakers[:, None], speakers))
    return Trials(scores[meet], first, second)


def evenly(speakers: NDArray[np.intp]) -> NDArray[np.intp]:
    """Positions of at most 3,000 clips: the first of each speaker, then the second, and so on."""
    if len(speakers) <= _MOST_CLIPS:
        return np.arange(len(speakers))
    order = np.argsort(speakers, kind="stable")
    begins = np.searchsorted(speakers[order], speakers[order])
    turn = np.empty(len(speakers), np.intp)
    turn[order] = np.arange(len(speakers)) - begins
    return np.sort(np.argsort(turn, kind="stable")[:_MOST_CLIPS])
