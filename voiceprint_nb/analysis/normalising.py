"""Adaptive s-norm: how far a score stands out among those of voices that are none of the people in question.

A clip recorded in noise is more like everybody. A cohort, voices of others under like conditions, tells how
much: the score is measured from what the clip and the person reach with it. This is AS-norm1 of Matějka et
al., "Analysis of Score Normalization in Multilingual Speaker Recognition", Interspeech 2017: with mean and
spread (standard deviation) of the highest scores that the clip, and the person, reach with the cohort,
``((score - mean_clip) / spread_clip + (score - mean_person) / spread_person) / 2``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb.errors import UsageError

_TOP = 200  # of a thousand or more, as usual
_LEAST_PRINTS = 10  # the standard deviation of so few is off by a quarter
_FEW_PRINTS = 50  # by a tenth
_LEAST_SPREAD = 1e-5
_BLOCK_VALUES = 1 << 24  # scores at a time: 64 MB


@dataclass(frozen=True)
class Normalisation:
    """What scores were normalised by: those of two equal ones may be compared.

    Attributes
    ----------
    n_prints : int
        In the cohort.
    top : int
        The highest scores that count.
    digest : str
        Of the cohort's prints, in any order.
    """

    n_prints: int
    top: int
    digest: str = field(repr=False)

    def __str__(self) -> str:
        """A few words."""
        return f"adaptive s-norm by the {self.top} most alike of {self.n_prints} cohort voiceprints"


@dataclass(frozen=True, eq=False)
class Levels:
    """What clips or people reach with a cohort.

    Attributes
    ----------
    mean, spread : (n,) float32
        Of the highest scores of each.
    """

    mean: NDArray[np.float32]
    spread: NDArray[np.float32]

    def at(self, chosen: NDArray[np.intp] | slice) -> Levels:
        """Some of them."""
        return Levels(self.mean[chosen], self.spread[chosen])


@dataclass(frozen=True, eq=False)
class Cohort:
    """Voices that are nobody's in question.

    Attributes
    ----------
    prints : (k, dimensions) float32
        Unit vectors, all different.

    Raises
    ------
    UsageError
        Fewer than ten.
    """

    prints: NDArray[np.float32] = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse too few."""
        if len(self.prints) < _LEAST_PRINTS:
            raise UsageError(
                f"It takes {_LEAST_PRINTS} different voiceprints to tell how scores spread, not "
                f"{len(self.prints)}: pass a cohort of more people, best of {_TOP}."
            )

    @property
    def normalisation(self) -> Normalisation:
        """What makes it another cohort."""
        digest = hashlib.sha256(b"".join(sorted(row.tobytes() for row in self.prints))).hexdigest()
        return Normalisation(len(self.prints), min(_TOP, len(self.prints)), digest)

    @property
    def remark(self) -> str | None:
        """That it is small; None if it is not."""
        if len(self.prints) >= _FEW_PRINTS:
            return None
        return (
            f"A cohort of {len(self.prints)} voiceprints is small: normalised scores differ with its choice. "
            f"Pass {_FEW_PRINTS} or more, best of as many people."
        )

    def levels(self, vectors: NDArray[np.float32]) -> Levels:
        """What unit vectors, (n, dimensions) float32, reach with it."""
        step = max(1, _BLOCK_VALUES // len(self.prints))
        blocks = range(0, len(vectors), step)
        return joined([self.levels_of(vectors[begin : begin + step] @ self.prints.T) for begin in blocks])

    def levels_of(self, scores: NDArray[np.float32]) -> Levels:
        """What those reach whose scores with each of its prints, (n, k) float32, are these.

        Raises
        ------
        UsageError
            Scores do not differ.
        """
        top = min(_TOP, len(self.prints))
        highest = np.partition(scores, -top, axis=1)[:, -top:].astype(np.float64)
        spread = highest.std(axis=1)
        if not (spread > _LEAST_SPREAD).all():
            raise UsageError("The cohort's voiceprints are all alike: pass those of different people.")
        return Levels(highest.mean(axis=1).astype(np.float32), spread.astype(np.float32))


def joined(parts: list[Levels]) -> Levels:
    """One after the other; at least one."""
    return Levels(
        np.concatenate([part.mean for part in parts]), np.concatenate([part.spread for part in parts])
    )


def normalised(scores: NDArray[np.float32], clips: Levels, people: Levels) -> NDArray[np.float32]:
    """Scores of n clips with m people, (n, m) float32, after adaptive s-norm: in standard deviations."""
    half = np.float32(0.5)
    by_clip, by_person = half / clips.spread, half / people.spread
    moved: NDArray[np.float32] = scores * np.add.outer(by_clip, by_person)
    moved -= (clips.mean * by_clip)[:, None]
    moved -= people.mean * by_person
    return moved
