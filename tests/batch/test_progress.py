from __future__ import annotations

import io
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from voiceprint_nb.batch.meters import BarMeter, LineMeter
from voiceprint_nb.batch.progress import END_STATES, LIVE_STATES, Snapshot, Tally, Uploads

N_ROWS = 4


class Clock:
    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


EVENTS = st.lists(
    st.tuples(
        st.integers(0, N_ROWS - 1),
        st.sampled_from([*LIVE_STATES[1:], *END_STATES]),
        st.sampled_from([None, "silent", "job_failed"]),
    )
)


@given(EVENTS)
def test_each_row_counts_once_in_any_order_of_events(events: list[tuple[int, str, str | None]]) -> None:
    tally = Tally(N_ROWS)
    ends: dict[int, tuple[str, str | None]] = {}
    for position, state, code in events:
        if state in END_STATES:
            tally.ended(position, state, code, f"{code}.")
            ends.setdefault(position, (state, code))
        else:
            tally.step(position, state)
        snapshot = tally.snapshot()
        assert sum(snapshot.counts.values()) == N_ROWS
        assert snapshot.done == len(ends)
    codes = [code for _, code in ends.values() if code]
    assert {code: n for code, n, _ in tally.snapshot().problems} == {
        code: codes.count(code) for code in codes
    }
    for state in END_STATES:
        assert tally.counts().get(state, 0) == [end for end, _ in ends.values()].count(state)


def test_snapshot_in_words() -> None:
    clock = Clock()
    tally = Tally(20, clock=clock, destination="here", waiting_for_limit=lambda: 3)
    assert str(tally.snapshot()) == "voiceprints: 0 of 20 rows (starting), 0 s"
    tally.ended(0, "succeeded")
    tally.ended(1, "invalid", "silent", "Nothing can be heard.")
    tally.ended(2, "invalid", "silent", "Another sentence.")
    tally.ended(3, "failed", "job_failed", "No.")
    for position in range(4, 9):
        tally.step(position, "uploading")
    tally.step(9, "running")
    clock.now_s += 8
    snapshot = tally.snapshot()
    # two of them took work, and four rows say nothing of the rate
    assert (snapshot.rows_per_s, snapshot.left_s) == (0.25, None)
    assert str(snapshot) == (
        "voiceprints: 4 of 20 rows (1 succeeded, 2 invalid, 1 failed, 1 running, 3 waiting for the limit, "
        "2 uploading), 8 s"
    )
    assert sum(snapshot.parts.values()) == 20
    assert snapshot.problems == (("silent", 2, "Nothing can be heard."), ("job_failed", 1, "No."))
    tally.stop("No credit.")
    tally.end()
    clock.now_s += 100
    tally.end()
    ended = tally.snapshot()
    assert (ended.elapsed_s, ended.ended, ended.stopped_by) == (8.0, True, "No credit.")
    assert str(ended).endswith("8 s")


def test_time_left_is_a_range_that_narrows() -> None:
    clock = Clock()
    tally = Tally(10_000, clock=clock)
    widths = []
    for position in range(6_400):
        tally.ended(position, "succeeded")
        clock.now_s += 0.5
        if position + 1 in (16, 400, 6_400):
            least_s, most_s = tally.snapshot().left_s or (0.0, 0.0)
            assert least_s < 0.5 * (10_000 - position - 1) < most_s
            widths.append(most_s / least_s)
    assert widths[0] > 2 * widths[1]
    assert tally.snapshot().time_text == "25 min to 37 min left"


def test_time_left_follows_a_change_of_pace() -> None:
    clock = Clock()
    tally = Tally(2_000, clock=clock)
    for position in range(1_100):  # a thousand rows were there already, the others take a second each
        tally.ended(position, "reused" if position < 1_000 else "succeeded")
        clock.now_s += 0.0 if position < 1_000 else 1.0
        snapshot = tally.snapshot()
    assert snapshot.recent_per_s is not None
    assert abs(snapshot.recent_per_s - 1.0) < 0.05
    assert snapshot.left_s is not None
    assert 700 < snapshot.left_s[0] < 900 < snapshot.left_s[1] < 1_300


def test_standstill_gives_no_time_left() -> None:
    clock = Clock()
    tally = Tally(100, clock=clock)
    for position in range(50):
        tally.ended(position, "succeeded")
        clock.now_s += 1
        tally.snapshot()
    assert tally.snapshot().left_s is not None
    for _ in range(70):
        clock.now_s += 1
        tally.snapshot()
    assert tally.snapshot().left_s is None


def test_uploads_in_words() -> None:
    uploads = Uploads()
    assert str(uploads) == ""
    uploads.sent(1_000_000)
    uploads.sent(-1_000_000)  # an attempt that came to nothing
    uploads.sent(250_000)
    uploads.ended(saved_bytes=750_000)
    assert str(uploads) == "0.2 MB uploaded, 0.8 MB saved"


def shown(done: int, *, ended: bool = False) -> Snapshot:
    return Snapshot("voiceprints", "", 9, {"succeeded": done, "queued": 9 - done}, (), 4.0, 0, ended)


def test_lines_come_every_ten_seconds_and_once_at_the_end() -> None:
    clock, stream = Clock(), io.StringIO()
    meter = LineMeter(stream, clock=clock)
    for step in range(60):
        clock.now_s = 50.0 + step / 2
        meter.show(shown(step // 10))
    for _ in range(3):
        meter.show(shown(9, ended=True))
    assert [line.split(" rows")[0] for line in stream.getvalue().splitlines()] == [
        "voiceprints: 2 of 9",
        "voiceprints: 4 of 9",
        "voiceprints: 9 of 9",
    ]


def test_bar_moves_and_leaves_one_line() -> None:
    stream = io.StringIO()
    meter = BarMeter(stream)
    meter.show(shown(0))
    meter.show(shown(3))
    assert "3/9" in stream.getvalue()
    assert "succeeded 3" in stream.getvalue()
    meter.show(replace(shown(4), notice="the service is failing, waiting for it"))
    assert "succeeded 4, the service is failing" in stream.getvalue()
    for _ in range(3):
        meter.show(shown(9, ended=True))
    assert stream.getvalue().endswith("voiceprints: 9 of 9 rows (9 succeeded), 4 s\n")
    assert stream.getvalue().count("9 of 9 rows") == 1
