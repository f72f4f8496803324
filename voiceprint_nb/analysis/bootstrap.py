"""Figures of trials with the interval that other speakers would give: a bootstrap over speakers.

Pairs of one speaker are alike; as if they were independent, intervals would be far too narrow (Bolle, Ratha
and Pankanti, "Error analysis of pattern recognition systems: the subsets bootstrap", Computer Vision and
Image Understanding 93, 2004). So speakers are drawn, with all their trials.

Of millions of trials some stand for others of about their score: the fewer, the harder they are. The false
claims that score highest and the true ones that score lowest all stand for themselves, as the thresholds for
rare errors rest on them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb.analysis.trials import Trials

_MOST_TRIALS = 100_000  # of each kind
_LEAST_SPEAKERS = 5  # of fewer, draws hardly differ
_SEED = 1

Statistic = Callable[[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]], float]


@dataclass(frozen=True)
class Estimate:
    """A figure, and the interval that holds it with other speakers of the same kind in 95 of 100 cases.

    Attributes
    ----------
    value : float
        Of the trials themselves.
    low, high : float
        The interval, in which the value lies; NaN both if there are too few speakers for one.
    """

    value: float
    low: float
    high: float
    repeated: NDArray[np.float64] = field(repr=False, compare=False)

    @property
    def has_interval(self) -> bool:
        """Whether there are speakers enough for an interval."""
        return math.isfinite(self.low)

    def with_confidence(self, confidence: float) -> float:
        """What the figure stays below with this share of other speakers; never less than the value."""
        return (
            max(self.value, *np.quantile(self.repeated, [confidence])) if len(self.repeated) else self.value
        )

    def __format__(self, spec: str) -> str:
        told = (
            f"{self.low:{spec}} to {self.high:{spec}}"
            if self.has_interval
            else "too few speakers for an interval"
        )
        return f"{self.value:{spec}} ({told})"


def estimate(
    trials: Trials, value: float, statistic: Statistic, *, n_speakers: int, repeats: int
) -> Estimate:
    """The 2.5th and 97.5th percentile of a statistic, over speakers drawn with replacement.

    There is no interval where fewer than five speakers carry the figure, or where all draws give the same:
    one of no width would claim that others are known exactly.

    Parameters
    ----------
    trials : Trials
        Of both kinds.
    value : float
        The statistic of all of them.
    statistic : callable
        Gets scores in ascending order, (n,) float32, and for each the share of true and of false claims that
        score lower, (n,) float64.
    n_speakers : int
        Who carry the figure.
    repeats : int
        Draws.
    """
    repeated = np.fromiter((statistic(*draw) for draw in _draws(_thinned(trials), repeats)), np.float64)
    if n_speakers < _LEAST_SPEAKERS or not len(repeated) or repeated.min() == repeated.max():
        return Estimate(value, math.nan, math.nan, repeated)
    low, high = np.percentile(repeated, [2.5, 97.5])
    return Estimate(value, min(value, float(low)), max(value, float(high)), repeated)


@dataclass(frozen=True, eq=False)
class _Thinned:
    """Trials in ascending order of scores, each with how many it stands for."""

    trials: Trials
    weights: NDArray[np.float64]


def _thinned(trials: Trials) -> _Thinned:
    order = np.argsort(trials.scores, kind="stable")
    weights = np.zeros(len(order))
    is_genuine = trials.is_genuine[order]
    for hardest_first in (np.flatnonzero(is_genuine), np.flatnonzero(~is_genuine)[::-1]):
        ends = _ends(len(hardest_first))
        begins = np.append(0, ends[:-1])
        weights[hardest_first[(begins + ends) // 2]] = ends - begins
    kept = np.flatnonzero(weights)
    return _Thinned(trials.where(order[kept]), weights[kept])


def _ends(n: int) -> NDArray[np.intp]:
    """Where the groups of trials end of which one stands for all: of one first, then ever larger."""
    if n <= _MOST_TRIALS:
        return np.arange(1, n + 1)
    n_single = _MOST_TRIALS // 5
    larger = np.geomspace(n_single, n, _MOST_TRIALS - n_single + 1).astype(np.intp)
    return np.unique(np.concatenate([np.arange(1, n_single), larger, [n]]))


def _draws(
    thinned: _Thinned, repeats: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]]:
    """What a statistic gets, for each draw that has claims of both kinds."""
    trials, random = thinned.trials, np.random.default_rng(_SEED)
    names = trials.speakers
    speaker, person = np.searchsorted(names, trials.speaker), np.searchsorted(names, trials.person)
    for _ in range(repeats):
        drawn = np.bincount(random.integers(len(names), size=len(names)), minlength=len(names))
        times = thinned.weights * drawn[speaker]
        genuine = np.where(trials.is_genuine, times, 0).cumsum()
        impostor = np.where(trials.is_genuine, 0, times * drawn[person]).cumsum()
        if genuine[-1] and impostor[-1]:
            lower = (np.concatenate([[0.0], side[:-1]]) / side[-1] for side in (genuine, impostor))
            yield trials.scores, *lower
