"""Outcomes of a run: packed as a frame will hold them, and the same as before."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceprint_nb.batch import outcomes as module
from voiceprint_nb.batch.outcomes import Outcome, Outcomes

STORAGES = ["auto", "python"]  # with pyarrow, where it is installed, and as without
DTYPES = {"voiceprint": "string", "job_id": "string", "duration_s": "float64"}
DONE = Outcome("succeeded", "secret", job_id="j", source="new", duration_s=2.5)
REFUSED = Outcome("invalid", error_code="too_long", error="Too long.")


@pytest.mark.parametrize("storage", STORAGES)
@given(n_rows=st.integers(0, 9), data=st.data())
def test_rows_are_what_they_ended_as_at_any_moment(storage, n_rows, data):
    with pytest.MonkeyPatch.context() as patch, pd.option_context("mode.string_storage", storage):
        patch.setattr(module, "_BLOCK", 3)
        outcomes, expected = Outcomes(n_rows), {}
        for position in data.draw(st.permutations(range(n_rows))):
            ended = data.draw(st.sampled_from([replace(DONE, voiceprint=f"secret {position}"), REFUSED]))
            outcomes.end(position, ended)
            expected[position] = ended
            assert dict(outcomes) == expected
            assert [n in outcomes for n in range(-1, n_rows + 1)] == [
                n in expected for n in range(-1, n_rows + 1)
            ]
            rows, packed = outcomes.snapshot()
            assert [row.status for row in rows] == [
                expected[n].status if n in expected else "pending" for n in range(n_rows)
            ]
            for name, dtype in DTYPES.items():
                wanted = [getattr(expected[n], name) if n in expected else None for n in range(n_rows)]
                pd.testing.assert_extension_array_equal(packed[name], pd.array(wanted, dtype=dtype))
        rows, packed = outcomes.snapshot()
        assert {name: (len(array), array.dtype) for name, array in packed.items()} == {
            name: (n_rows, dtype) for name, dtype in DTYPES.items()
        }
        assert "secret" not in repr((outcomes, rows))
        assert {row.status for row in outcomes.kinds()} == {row.status for row in expected.values()}
        assert len(outcomes.kinds()) <= 2
    for position in (-1, n_rows):
        assert outcomes.get(position) is None


@pytest.mark.parametrize("storage", STORAGES)
def test_writing_into_a_column_changes_no_later_one(storage):
    with pd.option_context("mode.string_storage", storage):
        outcomes = Outcomes(2, [(0, DONE), (1, DONE)])
        texts = outcomes.snapshot()[1]["voiceprint"]
        texts[0] = "other"
        assert list(outcomes.snapshot()[1]["voiceprint"]) == ["secret", "secret"]
        assert outcomes[0] == DONE


@pytest.mark.parametrize("storage", STORAGES)
def test_texts_are_in_memory_once(storage):
    n_rows, n_letters = 2000, 4000
    with pd.option_context("mode.string_storage", storage):
        Outcomes(1, [(0, DONE)]).snapshot()  # what is imported on use
        tracemalloc.start()
        try:
            before = _held_bytes()
            texts = (f"{number:0{n_letters}d}" for number in range(n_rows))
            outcomes = Outcomes(n_rows, enumerate(Outcome("succeeded", text) for text in texts))
            columns = [outcomes.snapshot()[1]["voiceprint"] for _ in range(3)]
            held_bytes = _held_bytes() - before
        finally:
            tracemalloc.stop()
    assert [column[7] for column in columns] == [f"{7:0{n_letters}d}"] * 3
    assert n_rows * n_letters < held_bytes < 1.3 * n_rows * n_letters


def _held_bytes() -> int:
    """Python's memory, and pyarrow's where it is installed."""
    try:
        import pyarrow as pa
    except ImportError:
        return tracemalloc.get_traced_memory()[0]
    return tracemalloc.get_traced_memory()[0] + int(pa.total_allocated_bytes())


def test_measures_are_packed_where_they_are_asked_for():
    rows = [replace(DONE, snr_db=12.5, speech_s=2.0), replace(DONE, snr_db=9.5)]
    outcomes = Outcomes(3, enumerate(rows), measured=True)
    assert dict(outcomes) == dict(enumerate(rows))
    assert outcomes.kinds() == [replace(DONE, voiceprint=None, job_id=None, duration_s=None)]
    packed = outcomes.snapshot()[1]
    pd.testing.assert_extension_array_equal(packed["snr_db"], pd.array([12.5, 9.5, None], dtype="float64"))
    assert "snr_db" not in Outcomes(1).snapshot()[1]
