"""Error rates, costs and thresholds that can be checked by hand, or against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import det_curve

from voiceprint_nb.analysis.detection import (
    equal_error_rate,
    error_rates,
    log_likelihood_ratio_cost,
    minimum_cost,
    threshold_for,
)
from voiceprint_nb.errors import UsageError


@pytest.mark.parametrize(
    ("genuine", "impostor", "rate", "threshold"),
    [
        ([0.8, 0.9], [0.1, 0.2], 0.0, 0.5),  # apart: the middle of the gap
        ([0.1], [0.9], 1.0, 0.5),  # the wrong way round
        ([0.5], [0.5], 0.5, 0.5),  # no information
        ([0.9, 0.8, 0.4], [0.5, 0.2, 0.1], 1 / 3, 0.45),  # one error each way at 0.4 < t <= 0.5
        ([0.9, 0.8, 0.7, 0.3], [0.6, 0.5, 0.2, 0.1], 0.25, 0.55),
        ([0.9, 0.3], [0.5, 0.4, 0.2, 0.1], 0.5, 0.35),  # half of each at 0.3 < t <= 0.4
    ],
)
def test_equal_error_rate_by_hand(
    genuine: list[float], impostor: list[float], rate: float, threshold: float
) -> None:
    found = equal_error_rate(genuine, impostor)
    assert found == pytest.approx((rate, threshold))


@pytest.mark.parametrize(("genuine", "impostor"), [([], [0.1]), ([0.1], []), ([np.nan], [0.1])])
def test_equal_error_rate_needs_scores(genuine: list[float], impostor: list[float]) -> None:
    with pytest.raises(UsageError):
        equal_error_rate(genuine, impostor)


scores = st.lists(st.integers(-50, 50).map(lambda score: score / 50), min_size=1, max_size=30)


@settings(deadline=None)
@given(scores, scores)
def test_equal_error_rate_is_what_its_threshold_gives(genuine: list[float], impostor: list[float]) -> None:
    rate, threshold = equal_error_rate(genuine, impostor)
    accepted = np.mean(np.array(impostor) >= threshold)
    rejected = np.mean(np.array(genuine) < threshold)
    assert rate == pytest.approx((accepted + rejected) / 2)
    mirrored, _ = equal_error_rate([-score for score in impostor], [-score for score in genuine])
    assert mirrored == pytest.approx(rate)
    shifted, _ = equal_error_rate([score + 3 for score in genuine], [score + 3 for score in impostor])
    assert shifted == pytest.approx(rate)


@settings(deadline=None)
@given(scores, scores)
def test_rates_are_those_of_scikit_learn(genuine: list[float], impostor: list[float]) -> None:
    rates = error_rates(genuine, impostor)
    labels = [1] * len(genuine) + [0] * len(impostor)
    accepted, rejected, _ = det_curve(labels, genuine + impostor)
    ours = set(zip(rates.false_accept.round(9), rates.false_reject.round(9), strict=True))
    assert set(zip(accepted.round(9), rejected.round(9), strict=True)) <= ours
    for threshold, accept, reject in zip(
        rates.thresholds, rates.false_accept, rates.false_reject, strict=True
    ):
        assert accept == np.mean(np.array(impostor) >= threshold)
        assert reject == np.mean(np.array(genuine) < threshold)


@settings(deadline=None)
@given(scores, scores, st.floats(0.01, 0.99))
def test_minimum_cost_is_the_smallest_of_all_thresholds(
    genuine: list[float], impostor: list[float], prior: float
) -> None:
    cost, threshold = minimum_cost(genuine, impostor, prior=prior, miss_cost=3.0)

    def cost_at(limit: float) -> float:
        accepted, rejected = np.mean(np.array(impostor) >= limit), np.mean(np.array(genuine) < limit)
        return (3 * prior * rejected + (1 - prior) * accepted) / min(3 * prior, 1 - prior)

    assert cost == pytest.approx(cost_at(threshold))
    assert cost <= min(cost_at(limit) for limit in np.arange(-1.01, 1.03, 0.005)) + 1e-9
    assert cost <= 1 + 1e-9


@settings(deadline=None)
@given(scores, st.floats(0.01, 0.99))
def test_threshold_keeps_the_rate_and_is_the_lowest(impostor: list[float], rate: float) -> None:
    threshold = threshold_for(impostor, rate)
    scores_ = np.array(impostor)
    assert np.mean(scores_ >= threshold) <= rate + 1e-9
    rejected = scores_[scores_ < threshold]
    if len(rejected):  # one score lower, and the rate is broken
        assert np.mean(scores_ >= rejected.max()) > rate


def test_log_likelihood_ratio_cost_by_hand() -> None:
    assert log_likelihood_ratio_cost([0.0], [0.0]) == 1.0
    assert log_likelihood_ratio_cost([np.log(3)], [-np.log(3)]) == pytest.approx(np.log2(4 / 3))
    assert log_likelihood_ratio_cost([np.log(3)], [np.log(3)]) == pytest.approx((np.log2(4 / 3) + 2) / 2)
    assert log_likelihood_ratio_cost([800.0], [-800.0]) == 0.0
    assert log_likelihood_ratio_cost([-800.0], [800.0]) == pytest.approx(800 / np.log(2))
