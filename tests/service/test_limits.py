from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from voiceprint_nb.contract import RateFacts
from voiceprint_nb.service.limits import Allowance, RateLimits


class Clock:
    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def taken(limits: RateLimits, team: str = "a", endpoint: str = "/x", *, read: bool = False) -> Allowance:
    allowance = limits.take(team, endpoint, read=read)
    assert allowance is not None
    return allowance


def test_limits_of_the_contract() -> None:
    limits = RateLimits(clock=Clock())
    assert taken(limits).limit == 100
    assert taken(limits, endpoint="/y", read=True).limit == 300


def test_headers_tell_the_window_and_refusals_when_to_come_back() -> None:
    clock = Clock(0.1)
    limits = RateLimits(writes=2, clock=clock)
    assert taken(limits).headers() == {
        "X-RateLimit-Limit": "2",
        "X-RateLimit-Remaining": "1",
        "X-RateLimit-Reset": "60",
    }
    clock.now_s = 10.5
    assert taken(limits).headers()["X-RateLimit-Reset"] == "50"
    refused = taken(limits)
    assert not refused.allowed
    assert RateFacts.from_headers(refused.headers(), now_unix_s=0.0) == RateFacts(2, 0, 50.0, 50.0)


def test_the_next_window_starts_with_the_first_request_after_the_last_one() -> None:
    clock = Clock(7.0)
    limits = RateLimits(writes=1, clock=clock)
    assert taken(limits).reset_s == 60
    clock.now_s = 66.999
    assert taken(limits).reset_s == 1
    clock.now_s = 90.0
    assert taken(limits) == Allowance(1, 0, 60, allowed=True)


def test_every_team_and_endpoint_has_its_own_window() -> None:
    limits = RateLimits(writes=1, clock=Clock())
    for team, endpoint in (("a", "/x"), ("a", "/y"), ("b", "/x")):
        assert taken(limits, team, endpoint).allowed
        assert not taken(limits, team, endpoint).allowed


def test_no_limit_says_nothing() -> None:
    limits = RateLimits(writes=None, clock=Clock())
    assert limits.take("a", "/x", read=False) is None
    assert taken(limits, read=True).limit == 300


def test_a_limit_of_nothing_refuses_everything() -> None:
    assert taken(RateLimits(writes=0, clock=Clock())) == Allowance(0, 0, 60, allowed=False)


def test_threads_together_get_no_more_than_the_limit() -> None:
    limits, allowed = RateLimits(writes=100, clock=Clock()), []

    def call() -> None:
        allowed.extend(taken(limits).allowed for _ in range(50))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(allowed) == 100


steps = st.lists(st.integers(0, 40 * 64), min_size=1, max_size=60)  # of 1/64 s: sums of these are exact


@given(start=st.integers(0, 10**8), steps=steps, limit=st.integers(1, 5))
def test_no_window_lets_more_through_and_whoever_waits_is_let_in(
    start: int, steps: list[int], limit: int
) -> None:
    clock = Clock(start / 64)
    limits = RateLimits(writes=limit, clock=clock)
    let_in: dict[float, int] = {}  # by the end of the window that the answer names
    for step in steps:
        clock.now_s += step / 64
        answer = taken(limits)
        assert 1 <= answer.reset_s <= 60
        assert answer.allowed or answer.remaining == 0
        if answer.allowed:
            window = next((end for end in let_in if clock.now_s < end), clock.now_s + 60)
            let_in[window] = let_in.get(window, 0) + 1
            assert answer.remaining == limit - let_in[window]
            continue
        clock.now_s += answer.reset_s - 1
        if clock.now_s < max(let_in):
            assert not taken(limits).allowed
        clock.now_s += 1
        assert taken(limits) == Allowance(limit, limit - 1, 60, allowed=True)
        let_in[clock.now_s + 60] = 1
    assert max(let_in.values()) <= limit


@given(now_s=st.floats(0, 1e9), window_s=st.sampled_from([1.0, 60.0]))
def test_a_new_window_is_told_at_its_length(now_s: float, window_s: float) -> None:
    assert taken(RateLimits(window_s=window_s, clock=Clock(now_s))).reset_s == window_s
