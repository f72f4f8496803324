from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from voices import voices

from voiceprint_nb.analysis import bootstrap, calibration
from voiceprint_nb.analysis.calibration import Calibration, calibrate
from voiceprint_nb.analysis.detection import log_likelihood_ratio_cost
from voiceprint_nb.analysis.trials import Trials, make_trials
from voiceprint_nb.errors import UsageError


def calibrated(n_speakers: int = 30, n_clips: int = 6, *, noise: float = 1.2, seed: int = 0) -> Calibration:
    embeddings, speakers = voices(n_speakers, n_clips, noise=noise, seed=seed)
    return calibrate(make_trials(embeddings, speakers), model="ab", n_clips=len(speakers))


def gaussian(n: int, *, apart: float, seed: int = 0) -> Trials:
    """Genuine scores around ``apart``, impostor scores around 0, both of spread 1; a speaker each pair."""
    random = np.random.default_rng(seed)
    scores = np.concatenate([random.normal(apart, 1, n), random.normal(0, 1, n)]).astype(np.float32)
    names = np.arange(n)
    return Trials(scores, np.concatenate([names, names]), np.concatenate([names, (names + 1) % n]))


def test_line_is_that_of_weighted_logistic_regression() -> None:
    trials = make_trials(*voices(12, 5, noise=1.5))
    made = calibrate(trials, model="ab", n_clips=60)

    def loss(line: np.ndarray) -> float:
        return log_likelihood_ratio_cost(
            line[0] * trials.genuine + line[1], line[0] * trials.impostor + line[1]
        )

    best = minimize(loss, [1.0, 0.0])
    assert [made.slope, made.intercept] == pytest.approx(best.x, rel=0.05)


def test_line_is_the_same_of_scores_in_steps() -> None:
    trials = make_trials(*voices(30, 6, noise=1.2))
    fit = LogisticRegression(class_weight="balanced")
    scores = trials.scores.astype(float)
    fit.fit(((scores - scores.mean()) / scores.std())[:, None], trials.is_genuine)
    slope = fit.coef_[0, 0] / scores.std()
    intercept = fit.intercept_[0] - slope * scores.mean()
    made = calibrate(trials, model="ab", n_clips=180)
    assert [made.slope, made.intercept] == pytest.approx([slope, intercept], rel=1e-3)


def test_known_distributions_give_their_known_figures() -> None:
    made = calibrate(gaussian(4000, apart=2.0), model="ab", n_clips=8000)
    assert made.eer.value == pytest.approx(norm.cdf(-1), abs=0.01)
    assert made.eer_threshold == pytest.approx(1.0, abs=0.06)
    assert (made.slope, made.intercept) == pytest.approx((2.0, -2.0), abs=0.15)  # of two normal densities
    assert made.threshold(0.05).value == pytest.approx(norm.ppf(0.95), abs=0.06)
    assert made.lowest_genuine(0.05) == pytest.approx(2 + norm.ppf(0.05), abs=0.06)
    assert made.probability([1.0]) == pytest.approx([0.5], abs=0.05)
    assert made.probability([1.0], prior=0.1) == pytest.approx([0.1], abs=0.02)


def test_intervals_are_those_of_a_bootstrap_over_speakers() -> None:
    """Resampled by hand: speakers with their clips, then all trials anew but those of a clip with itself."""
    embeddings, speakers = voices(25, 4, noise=1.4)
    made = calibrate(make_trials(embeddings, speakers), model="ab", n_clips=100)
    random = np.random.default_rng(9)
    rates = []
    for _ in range(300):
        drawn = random.integers(25, size=25)
        weight = np.bincount(drawn, minlength=25)
        trials = make_trials(embeddings, speakers)
        counts = np.where(
            trials.is_genuine, weight[trials.speaker], weight[trials.speaker] * weight[trials.person]
        )
        again = calibrate_rate(trials.where(np.repeat(np.arange(len(counts)), counts)))
        rates.append(again)
    low, high = np.percentile(rates, [2.5, 97.5])
    assert (made.eer.low, made.eer.high) == pytest.approx((low, high), abs=0.012)
    assert made.eer.low < made.eer.value < made.eer.high


def calibrate_rate(trials: Trials) -> float:
    from voiceprint_nb.analysis.detection import equal_error_rate

    return equal_error_rate(trials.genuine, trials.impostor)[0]


def test_intervals_hold_what_other_speakers_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_REPEATS", 100)
    truth = calibrated(200, 4, noise=1.6, seed=99)
    found = [calibrated(40, 4, noise=1.6, seed=seed) for seed in range(12)]
    assert sum(made.eer.low <= truth.eer.value <= made.eer.high for made in found) >= 9
    limit = truth.threshold(0.02).value
    assert sum(made.threshold(0.02).low <= limit <= made.threshold(0.02).high for made in found) >= 9
    single = [made.eer.high - made.eer.low for made in found]
    assert truth.eer.high - truth.eer.low < min(single)


def test_probabilities_are_honest_on_speakers_that_were_left_out() -> None:
    made = calibrated(60, 5, noise=1.2)
    others = make_trials(*voices(100, 5, noise=1.2, seed=5))
    cost = log_likelihood_ratio_cost(
        made.log_likelihood_ratio(others.genuine), made.log_likelihood_ratio(others.impostor)
    )
    assert made.cllr == pytest.approx(cost, abs=0.08)
    assert cost < 0.6


def test_too_few_speakers_are_told() -> None:
    few = calibrated(4, 3)
    assert "4 speakers are too few" in few.remarks[0]
    assert few.cllr is None
    assert not calibrated(20).remarks
    wrong = Trials(np.array([0.1, 0.2, 0.8, 0.9], np.float32), np.array([0, 1, 0, 1]), np.array([0, 1, 1, 0]))
    assert "look at the labels" in calibrate(wrong, model="ab", n_clips=4).remarks[-1]


def test_thresholds_that_the_trials_cannot_tell() -> None:
    made = calibrated(8, 3)
    with pytest.raises(UsageError, match="label more speakers"):
        made.threshold(1e-6)
    with pytest.raises(UsageError, match="between 0 and 1"):
        made.threshold(0)
    with pytest.raises(UsageError, match="between 0 and 1"):
        made.probability([0.5], prior=1.0)
    for rate in (0, 1, -1, float("nan")):
        with pytest.raises(UsageError, match="between 0 and 1"):
            made.lowest_genuine(rate)
    assert "30 would make it firm" in (made.remark_on(0.01) or "")
    assert made.remark_on(0.5) is None


@pytest.mark.parametrize(
    ("speakers", "enrolled", "words"),
    [
        ([0, 1, 2], 1, "at least 2 different ones of one speaker"),
        ([0, 0, 1], 2, "at least 3 different ones of one speaker"),
        ([0, 0, 0], 1, "No clip meets another speaker"),
    ],
)
def test_one_kind_of_claims_is_refused(speakers: list[int], enrolled: int, words: str) -> None:
    embeddings, _ = voices(1, 3, noise=1)
    trials = make_trials(embeddings, np.array(speakers), enrolled=enrolled)
    with pytest.raises(UsageError, match=words):
        calibrate(trials, model="ab", n_clips=3, enrolled=enrolled)


def test_scores_far_apart_still_give_a_line() -> None:
    made = calibrated(20, 4, noise=0.1)
    assert made.eer.value == 0
    assert np.isfinite([made.slope, made.intercept]).all()
    assert made.probability([made.trials.genuine.min(), made.trials.impostor.max()]).round() == pytest.approx(
        [1, 0]
    )


def test_no_error_among_few_speakers_is_no_proof() -> None:
    """Were 3 of 10 speakers wrong, 10 without an error would be drawn in 3 % of cases."""
    few, many = calibrated(10, 4, noise=0.1), calibrated(60, 4, noise=0.1)
    assert (few.eer.value, few.eer.low, few.eer.high) == (0, 0, pytest.approx(3 / 10))
    assert many.eer.high == pytest.approx(3 / 60)
    assert (1 - few.eer.high) ** 10 < 0.05
    assert "no error seen (to 30.0%)" in str(few)
    some = calibrated(30, 4, noise=1.5)
    assert f"{some.eer:.1%}" in str(some)


@pytest.mark.parametrize("rate", [3e-5, 1e-4, 1e-2])
def test_trials_that_stand_for_others_move_no_interval(monkeypatch: pytest.MonkeyPatch, rate: float) -> None:
    """The hardest claims all stay: at rare errors a draw of some would lose the threshold itself."""
    monkeypatch.setattr(calibration, "_REPEATS", 150)
    whole = calibrated(60, 5, noise=1.5)
    monkeypatch.setattr(bootstrap, "_MOST_TRIALS", 4000)
    thinned = calibrated(60, 5, noise=1.5)
    assert (thinned.eer.low, thinned.eer.high) == pytest.approx((whole.eer.low, whole.eer.high), abs=0.004)
    some, every = thinned.threshold(rate), whole.threshold(rate)
    assert some.value == every.value
    assert (some.low, some.high) == pytest.approx((every.low, every.high), abs=0.01)
    for confidence in (0.01, 0.5, 0.9):
        assert some.with_confidence(confidence) >= some.value
        assert some.with_confidence(confidence) == pytest.approx(every.with_confidence(confidence), abs=0.01)
    assert some.low <= some.value <= some.high


def test_groups_grow_and_leave_no_trial_out() -> None:
    for n in (1, 99_999, 100_001, 250_000, 4_500_000):
        ends = bootstrap._ends(n)
        sizes = np.diff(ends, prepend=0)
        assert ends[-1] == n and sizes.min() == 1 and len(ends) <= 100_001
        assert (sizes[:19_000] == 1).all()


@pytest.mark.parametrize("n_speakers", [2, 4])
def test_few_speakers_give_no_interval(n_speakers: int) -> None:
    made = calibrated(n_speakers, 6, noise=4.0)
    for figure in (made.eer, made.threshold(0.05)):
        assert not figure.has_interval
        assert "too few speakers for an interval" in f"{figure:.1%}"
        assert figure.with_confidence(0.9) >= figure.value
    assert calibrated(8, 6, noise=4.0).eer.has_interval


def test_a_threshold_is_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = calibrated(20, 4)
    first = made.threshold(0.02)
    monkeypatch.setattr(calibration, "estimate", None)
    assert made.threshold(0.02) is first
    with pytest.raises(TypeError):
        made.threshold(0.03)
