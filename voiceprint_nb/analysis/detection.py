"""Errors of accepting and rejecting by a score: rates, costs, thresholds, log-likelihood ratios.

A pair is accepted when its score is at least the threshold. A false accept takes two speakers for one, a
false reject one for two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voiceprint_nb.errors import UsageError


@dataclass(frozen=True, eq=False)
class ErrorRates:
    """The rates at every threshold that decides differently.

    Attributes
    ----------
    thresholds : (n,) float64
        Ascending: middles between neighbouring scores, the lowest score before them, infinity at the end.
    false_accept, false_reject : (n,) float64
        Shares in [0, 1]; the first falls from 1 to 0, the second rises from 0 to 1.
    n_impostor, n_genuine : int
        Scores behind them.
    """

    thresholds: NDArray[np.float64]
    false_accept: NDArray[np.float64]
    false_reject: NDArray[np.float64]
    n_impostor: int
    n_genuine: int


def error_rates(genuine: ArrayLike, impostor: ArrayLike) -> ErrorRates:
    """Rates of both errors over all thresholds.

    Parameters
    ----------
    genuine : (n,) array-like
        Scores of pairs of one speaker, higher for more similar.
    impostor : (m,) array-like
        Scores of pairs of different speakers.

    Raises
    ------
    UsageError
        One side has no scores, or a score is not finite.
    """
    same, different = (np.sort(np.asarray(side, np.float64).ravel()) for side in (genuine, impostor))
    if not len(same) or not len(different):
        raise UsageError("Error rates need at least one genuine and one impostor score.")
    scores = np.unique(np.concatenate([same, different]))
    if not np.isfinite(scores).all():
        raise UsageError("A score is NaN or infinite: leave pairs without a score out.")
    return ErrorRates(
        np.concatenate([scores[:1], (scores[:-1] + scores[1:]) / 2, [np.inf]]),
        _shares(len(different) - np.searchsorted(different, scores, side="left"), len(different), 0),
        _shares(np.searchsorted(same, scores, side="left"), len(same), 1),
        len(different),
        len(same),
    )


def _shares(counts: NDArray[np.intp], n: int, last: float) -> NDArray[np.float64]:
    """Counts of n as shares, and the last share behind them."""
    shares = np.full(len(counts) + 1, float(last))
    np.divide(counts, n, out=shares[:-1])
    return shares


def equal_error_rate(genuine: ArrayLike, impostor: ArrayLike) -> tuple[float, float]:
    """Error rate at the threshold where false accepts and false rejects are equally frequent.

    Over all thresholds that decide differently, the one with the smallest distance between the two rates
    counts; of two, the one with fewer errors. The rate is the mean of both there (Martin et al., "The DET
    curve in assessment of detection task performance", Eurospeech 1997; no interpolation, no convex hull).

    Parameters
    ----------
    genuine, impostor : (n,), (m,) array-like
        As `error_rates` takes them, and with its errors.

    Returns
    -------
    rate : float
        Share of wrong decisions in [0, 1].
    threshold : float
        Middle of the range of thresholds with these decisions.

    Examples
    --------
    >>> equal_error_rate([0.9, 0.8, 0.4], [0.5, 0.2, 0.1])
    (0.3333333333333333, 0.45)
    """
    rates = error_rates(genuine, impostor)
    gaps = rates.false_accept[:-1] - rates.false_reject[:-1]
    gaps *= rates.n_impostor * rates.n_genuine
    np.abs(np.rint(gaps, out=gaps), out=gaps)  # in whole numbers ties are exact
    nearest = np.flatnonzero(gaps == gaps.min())
    means = (rates.false_accept[nearest] + rates.false_reject[nearest]) / 2
    best = int(means.argmin())
    return float(means[best]), float(rates.thresholds[nearest[best]])


def minimum_cost(
    genuine: ArrayLike,
    impostor: ArrayLike,
    *,
    prior: float = 0.01,
    miss_cost: float = 1.0,
    false_accept_cost: float = 1.0,
) -> tuple[float, float]:
    """The smallest detection cost over all thresholds (minDCF), as a share of that of never looking.

    ``C = miss_cost * prior * false_reject + false_accept_cost * (1 - prior) * false_accept``, divided by the
    smaller cost of accepting all and of rejecting all (NIST 2018 Speaker Recognition Evaluation Plan,
    section 3.1; its prior of 0.01 and costs of 1 are the defaults).

    Parameters
    ----------
    genuine, impostor : (n,), (m,) array-like
        As `error_rates` takes them, and with its errors.
    prior : float
        Share of genuine pairs in use, in (0, 1).
    miss_cost, false_accept_cost : float
        What one error costs.

    Returns
    -------
    cost : float
        In [0, 1]: 1 is no better than a fixed answer.
    threshold : float
        Where it is reached.

    Examples
    --------
    >>> minimum_cost([0.9, 0.8, 0.5], [0.75, 0.2, 0.1], prior=0.5)
    (0.3333333333333333, 0.35)
    """
    rates = error_rates(genuine, impostor)
    miss, wrong = miss_cost * prior, false_accept_cost * (1 - prior)
    costs = (miss * rates.false_reject + wrong * rates.false_accept) / min(miss, wrong)
    best = int(np.argmin(costs))
    return float(costs[best]), float(rates.thresholds[best])


def threshold_for(impostor: ArrayLike, false_accept_rate: float) -> float:
    """The lowest threshold at which at most this share of impostor scores is accepted.

    Parameters
    ----------
    impostor : (m,) array-like
        Finite scores.
    false_accept_rate : float
        In (0, 1).

    Examples
    --------
    >>> threshold_for([0.1, 0.2, 0.5, 0.7], 0.25)
    0.6
    """
    highest_first = np.sort(np.asarray(impostor, np.float64).ravel())[::-1]
    n_accepted = int(np.floor(false_accept_rate * len(highest_first) + 1e-9))
    rejected = highest_first[n_accepted]  # the highest score that must not pass
    above = highest_first[highest_first > rejected]
    return float((rejected + above[-1]) / 2 if len(above) else np.nextafter(rejected, np.inf))


def log_likelihood_ratio_cost(genuine: ArrayLike, impostor: ArrayLike) -> float:
    """Cllr in bits: what natural log-likelihood ratios cost who trusts them; 0 is perfect, 1 tells nothing.

    ``(mean log2(1 + exp(-genuine)) + mean log2(1 + exp(impostor))) / 2`` (Brümmer and du Preez,
    "Application-independent evaluation of speaker detection", Computer Speech and Language 20, 2006).

    Examples
    --------
    >>> log_likelihood_ratio_cost([0.0], [0.0])
    1.0
    """
    same, different = (np.asarray(side, np.float64) for side in (genuine, impostor))
    cost = np.logaddexp(0, -same).mean() + np.logaddexp(0, different).mean()
    return float(cost / (2 * np.log(2)))
