"""Which score is enough: what genuine and impostor scores of labelled voiceprints allow to say."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voiceprint_nb.analysis import detection
from voiceprint_nb.analysis.bootstrap import Estimate, estimate
from voiceprint_nb.analysis.normalising import Normalisation
from voiceprint_nb.analysis.trials import Scoring, Trials
from voiceprint_nb.display import Facts
from voiceprint_nb.errors import MissingExtra, UsageError

_REPEATS = 1000
_SEED = 1
_FOLDS = 5
_STEPS = 4096
_SHOWN_RATE = 0.01
_LEAST_SPEAKERS = 20
_LEAST_FALSE_ACCEPTS = 30  # the rule of 30 (Doddington et al., Speech Communication 31, 2000)
_MOST_UNSEEN = 3  # of n speakers: the rule of three (Hanley and Lippman-Hand, JAMA 249, 1983)


@dataclass(frozen=True, eq=False, repr=False)
class Calibration(Facts):
    """What scores mean, for voiceprints like those that it was made of.

    Intervals come from a bootstrap over speakers, not pairs (`analysis.bootstrap`). Of fewer than five
    speakers there is none.

    Attributes
    ----------
    model : str
        Fingerprint of the model that made the prints; for others nothing of this holds.
    enrolled : int
        Clips that make a person in the trials; 1 is clip against clip.
    scoring : {"centroid", "best"}
        How a clip is scored against several of a person.
    n_clips, n_speakers, n_genuine, n_impostor : int
        What it is based on: clips, people, true and false claims.
    eer : Estimate
        Equal error rate, a share in [0, 1] (`detection.equal_error_rate`). Without any error its upper end is
        3 / speakers with true claims: of so many other speakers, more than that share would hardly show none.
    eer_threshold : float
        The score there.
    min_dcf : float
        Smallest normalised detection cost at a prior of 1 % (`detection.minimum_cost`).
    cllr : float or None
        Cost in bits of trusting `probability`, on speakers that its fit has not seen
        (`detection.log_likelihood_ratio_cost`); None if there are too few speakers to leave some out.
    slope, intercept : float
        Natural log-likelihood ratio = ``slope * score + intercept``: logistic regression with as much weight
        on true as on false claims (Brümmer and du Preez, Computer Speech and Language 20, 2006).
    remarks : tuple of str
        What there is too little of to trust the figures.
    trials : Trials
        The scores themselves.
    normalisation : Normalisation or None
        What scores were normalised by; None if they are cosines.
    """

    model: str
    enrolled: int
    scoring: Scoring
    n_clips: int
    n_speakers: int
    n_genuine: int
    n_impostor: int
    eer: Estimate
    eer_threshold: float
    min_dcf: float
    cllr: float | None
    slope: float
    intercept: float
    remarks: tuple[str, ...]
    trials: Trials
    normalisation: Normalisation | None = None
    _thresholds: dict[float, Estimate] = field(default_factory=dict, init=False)

    def _lines(self) -> list[tuple[str, str]]:
        against = "one another" if self.enrolled == 1 else f"people of {self.enrolled} clips ({self.scoring})"
        lines = [
            ("Calibration", f"{self.n_clips} clips of {self.n_speakers} speakers, against {against}"),
            ("Claims", f"{self.n_genuine} true, {self.n_impostor} false"),
        ]
        if self.normalisation is not None:
            lines.append(("Scores", f"{self.normalisation}, no cosines"))
        told = f"{self.eer:.1%}" if self.eer.value else f"no error seen (to {self.eer.high:.1%})"
        lines.append(("Equal error rate", f"{told}, at a score of {self.eer_threshold:.3f}"))
        if self.n_impostor >= 1 / _SHOWN_RATE:
            lines.append(
                (f"Threshold for {_SHOWN_RATE:.0%} false accepts", f"{self.threshold(_SHOWN_RATE):.3f}")
            )
        lines.append(
            ("Minimum detection cost", f"{self.min_dcf:.2f} at 1 % true claims (0 is best, 1 no use)")
        )
        if self.cllr is not None:
            lines.append(("Cost of probabilities", f"{self.cllr:.2f} bits (0 is best, 1 no use)"))
        return [*lines, *(("Remark", remark) for remark in self.remarks)]

    def threshold(self, false_accept_rate: float = 0.01) -> Estimate:
        """The lowest score at which at most this share of false claims is accepted.

        Parameters
        ----------
        false_accept_rate : float
            In (0, 1).

        Raises
        ------
        UsageError
            A rate outside, or so low that fewer than one of the false claims would be it.
        """
        if not 0 < false_accept_rate < 1:
            raise UsageError(f"A false-accept rate lies between 0 and 1, not at {false_accept_rate}.")
        if false_accept_rate * self.n_impostor < 1 - 1e-9:
            raise UsageError(
                f"A false-accept rate of {false_accept_rate:.3g} cannot be read off {self.n_impostor} false "
                f"claims: label more speakers, or ask for {1 / self.n_impostor:.2g} or more."
            )
        if false_accept_rate not in self._thresholds:
            self._thresholds[false_accept_rate] = self._threshold(false_accept_rate)
        return self._thresholds[false_accept_rate]

    def _threshold(self, false_accept_rate: float) -> Estimate:
        value = detection.threshold_for(self.trials.impostor, false_accept_rate)

        def quantile(
            scores: NDArray[np.float32], genuine: NDArray[np.float64], impostor: NDArray[np.float64]
        ) -> float:
            place = int(np.searchsorted(impostor, 1 - false_accept_rate))
            return float(
                scores[place] if place < len(scores) else np.nextafter(scores[-1], np.float32(np.inf))
            )

        return estimate(self.trials, value, quantile, n_speakers=self.n_speakers, repeats=_REPEATS)

    def remark_on(self, false_accept_rate: float) -> str | None:
        """Why the threshold for this rate is a guess; None if it is not."""
        n_expected = false_accept_rate * self.n_impostor
        if n_expected >= _LEAST_FALSE_ACCEPTS:
            return None
        return (
            f"The threshold for {false_accept_rate:.3g} rests on {n_expected:.0f} of {self.n_impostor} false "
            f"claims: {_LEAST_FALSE_ACCEPTS} would make it firm."
        )

    def lowest_genuine(self, false_reject_rate: float = 0.01) -> float:
        """The highest score at which at most this share of true claims is rejected.

        Raises
        ------
        UsageError
            A rate outside (0, 1).
        """
        if not 0 < false_reject_rate < 1:
            raise UsageError(f"A false-reject rate lies between 0 and 1, not at {false_reject_rate}.")
        return -detection.threshold_for(-self.trials.genuine, false_reject_rate)

    def log_likelihood_ratio(self, scores: ArrayLike) -> NDArray[np.float64]:
        """How much likelier a score is if the claim is true, as a natural logarithm."""
        return self.slope * np.asarray(scores, np.float64) + self.intercept

    def probability(self, scores: ArrayLike, prior: float = 0.5) -> NDArray[np.float64]:
        """Probability that the claim is true.

        Parameters
        ----------
        scores : array-like
            Cosines, or scores that the same cohort has normalised.
        prior : float
            Share of true claims in use, in (0, 1).

        Raises
        ------
        UsageError
            A prior outside.
        """
        if not 0 < prior < 1:
            raise UsageError(f"A prior lies between 0 and 1, not at {prior}.")
        log_odds = self.log_likelihood_ratio(scores) + np.log(prior / (1 - prior))
        probability: NDArray[np.float64] = 1 / (1 + np.exp(-log_odds))
        return probability


def calibrate(
    trials: Trials,
    *,
    model: str,
    n_clips: int,
    enrolled: int = 1,
    scoring: Scoring = "centroid",
    normalisation: Normalisation | None = None,
) -> Calibration:
    """What the scores of these trials allow to say.

    Raises
    ------
    UsageError
        No true claims, or no false ones.
    MissingExtra
        scikit-learn is not installed.
    """
    genuine, impostor = trials.genuine, trials.impostor
    if not len(genuine):
        raise UsageError(
            f"No speaker has enough clips for one true claim: label at least {enrolled + 1} different ones "
            "of one speaker (with within=, of one room, device or corpus)."
        )
    if not len(impostor):
        raise UsageError(
            "No clip meets another speaker: label clips of two or more (with within=, of one room, device or "
            "corpus)."
        )
    rate, threshold = detection.equal_error_rate(genuine, impostor)
    slope, intercept = _line(trials.scores, trials.is_genuine)
    n_speakers = len(trials.speakers)
    n_with_true_claims = len(np.unique(trials.speaker[trials.is_genuine]))
    eer = estimate(trials, rate, _equal_error_rate, n_speakers=n_with_true_claims, repeats=_REPEATS)
    if rate == 0:
        high = min(1.0, _MOST_UNSEEN / n_with_true_claims)
        eer = replace(eer, low=0.0, high=max(eer.high, high) if eer.has_interval else high)
    return Calibration(
        model,
        enrolled,
        scoring,
        n_clips,
        n_speakers,
        len(genuine),
        len(impostor),
        eer,
        threshold,
        detection.minimum_cost(genuine, impostor)[0],
        _left_out_cost(trials),
        slope,
        intercept,
        tuple(_remarks(n_speakers, n_with_true_claims, slope)),
        trials,
        normalisation,
    )


def _remarks(n_speakers: int, n_with_true_claims: int, slope: float) -> list[str]:
    remarks = []
    if n_speakers < _LEAST_SPEAKERS:
        remarks.append(
            f"{n_speakers} speakers are too few to say much about others: label {_LEAST_SPEAKERS} or more."
        )
    elif n_with_true_claims < _LEAST_SPEAKERS:
        remarks.append(
            f"Only {n_with_true_claims} speakers have clips enough for true claims: label more of the others."
        )
    if slope <= 0:
        remarks.append("True claims score no higher than false ones: look at the labels.")
    return remarks


def _equal_error_rate(
    scores: NDArray[np.float32], genuine: NDArray[np.float64], impostor: NDArray[np.float64]
) -> float:
    place = int(np.argmin(np.abs(genuine - (1 - impostor))))
    return float(genuine[place] + 1 - impostor[place]) / 2


# --- log-likelihood ratios ------------------------------------------------------------------------------


def _line(scores: NDArray[np.float32], is_genuine: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and intercept of the log-likelihood ratio over the score, by logistic regression.

    Scores of one of 4,096 steps between the lowest and the highest count as their mean: the line moves by
    less than a thousandth, and millions of scores take no longer than thousands.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingExtra(
            "Calibration needs scikit-learn: pip install 'voiceprint_nb[analysis]'."
        ) from error
    centre = scores.mean(dtype=np.float64)
    spread = scores.std(dtype=np.float64) or 1.0
    lowest, width = scores.min(), np.ptp(scores) or np.float32(1)
    step = ((scores - lowest) * ((_STEPS - 1) / width)).astype(np.int16)
    counts = np.stack([np.bincount(step[kind], minlength=_STEPS) for kind in (~is_genuine, is_genuine)])
    means = np.bincount(step, weights=scores, minlength=_STEPS) / np.maximum(counts.sum(axis=0), 1)
    kind, place = np.nonzero(counts)
    weights = (len(scores) / 2 * counts / counts.sum(axis=1, keepdims=True))[kind, place]
    fit = LogisticRegression()  # a little regularised, for scores apart
    fit.fit(((means[place] - centre) / spread)[:, None], kind, sample_weight=weights)
    slope = float(fit.coef_[0, 0] / spread)
    return slope, float(fit.intercept_[0] - slope * centre)


def _left_out_cost(trials: Trials) -> float | None:
    """Cllr over speakers that the line has not seen, in folds."""
    names = trials.speakers
    fold_of = (np.random.default_rng(_SEED).permutation(len(names)) % _FOLDS).astype(np.int8)
    speaker, person = (fold_of[np.searchsorted(names, side)] for side in (trials.speaker, trials.person))
    genuine, impostor = [], []
    for fold in range(_FOLDS):
        is_seen, is_unseen = (speaker != fold) & (person != fold), (speaker == fold) & (person == fold)
        if not all(_has_both(trials.is_genuine[chosen]) for chosen in (is_seen, is_unseen)):
            return None
        slope, intercept = _line(trials.scores[is_seen], trials.is_genuine[is_seen])
        genuine.append(slope * trials.scores[is_unseen & trials.is_genuine] + intercept)
        impostor.append(slope * trials.scores[is_unseen & ~trials.is_genuine] + intercept)
    return detection.log_likelihood_ratio_cost(np.concatenate(genuine), np.concatenate(impostor))


def _has_both(is_genuine: NDArray[np.bool_]) -> bool:
    return bool(is_genuine.any()) and not is_genuine.all()
