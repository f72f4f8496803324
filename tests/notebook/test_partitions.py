"""Partition functions: what voiceprints() and check() say, row for row, without ledger and service."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from voices import prints, voices

import voiceprint_nb as vp
from voiceprint_nb.engine import shared
from voiceprint_nb.engine.embedder import Embedder
from voiceprint_nb.engine.model import Model
from voiceprint_nb.errors import UsageError

Noises = Callable[..., list[tuple[np.ndarray, int]]]


@pytest.fixture(scope="module")
def people() -> tuple[pd.DataFrame, vp.Library]:
    """Twelve clips of four speakers, a row without a print, and a library of them."""
    embeddings, speakers = voices(4, 3, noise=0.5)
    frame = pd.DataFrame({"voiceprint": prints(embeddings), "speaker": [f"s{number}" for number in speakers]})
    library = vp.Library.from_frame(frame)
    return pd.concat([frame, pd.DataFrame({"voiceprint": [None], "speaker": ["s0"]})]), library


def test_the_samples_get_the_columns_of_voiceprints(manifest: pd.DataFrame) -> None:
    frame = manifest.set_index(pd.Index([7] * len(manifest), name="same"))
    expected = vp.voiceprints(frame, "audio", service="local", ledger=False, progress=False)
    part = vp.voiceprint_partition(frame, "audio")
    assert part["vp_job_id"].isna().all()
    pd.testing.assert_frame_equal(part.drop(columns="vp_job_id"), expected.drop(columns="vp_job_id"))
    assert part["vp_job_id"].dtype == expected["vp_job_id"].dtype
    assert set(part["vp_status"]) == {"succeeded", "invalid"}
    assert set(part["vp_source"].dropna()) == {"new", "reused"}


def test_the_samples_get_the_columns_of_check(manifest: pd.DataFrame) -> None:
    expected = vp.check(manifest, "audio", progress=False)
    pd.testing.assert_frame_equal(vp.check_partition(manifest, "audio"), expected)


def test_the_same_rows_give_the_same_bytes(noises: Noises) -> None:
    frame = pd.DataFrame({"audio": [cell for cell in noises(40) for _ in range(2)]}, index=range(80, 0, -1))
    first, again = (vp.voiceprint_partition(frame) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    assert first["vp_source"].tolist() == ["new", "reused"] * 40
    assert first.index.equals(frame.index)
    alone = vp.voiceprint_partition(frame.iloc[[21]])
    assert alone["voiceprint"].iloc[0] == first["voiceprint"].iloc[21]


def test_a_fault_of_the_engine_ends_its_row_only(
    noises: Noises, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    windows = Embedder.windows

    def faulty(self: Embedder, samples: np.ndarray) -> np.ndarray:
        if np.argmax(np.abs(samples)) == 100:
            raise FloatingPointError("a bug")
        return windows(self, samples)

    monkeypatch.setattr(Embedder, "windows", faulty)
    (good, rate_hz), *others = noises(3)
    bad = good.copy()
    bad[100] = 2 * np.abs(good).max()
    out = vp.voiceprint_partition(pd.DataFrame({"audio": [(bad, rate_hz), *others]}))
    assert out["vp_status"].tolist() == ["failed", "succeeded", "succeeded"]
    assert out["vp_error_code"].iloc[0] == "job_failed"
    assert "FloatingPointError" in out["vp_error"].iloc[0]
    assert "a bug" in caplog.text


def test_an_upload_of_a_service_is_refused_with_the_reason() -> None:
    out = vp.voiceprint_partition(pd.DataFrame({"audio": ["media://clips/a.wav"]}))
    assert out["vp_error_code"].tolist() == ["unsupported_cell"]
    assert "service" in out["vp_error"].iloc[0]


def test_threads_that_begin_together_load_one_network(
    noises: Noises, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    class Counted(Embedder):
        def __init__(self, model: Model) -> None:
            loaded.append(model)
            super().__init__(model)

    monkeypatch.setattr(shared, "Embedder", Counted)
    shared._embedder.cache_clear()
    frame = pd.DataFrame({"audio": noises(2)})
    threads = [threading.Thread(target=vp.voiceprint_partition, args=[frame]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == [Model.packaged()]


@pytest.mark.parametrize("verb", [vp.check_partition, vp.voiceprint_partition])
def test_no_rows_have_the_columns_of_rows(verb: Callable[..., pd.DataFrame], manifest: pd.DataFrame) -> None:
    assert verb(manifest.iloc[:0], "audio").dtypes.equals(verb(manifest.iloc[:1], "audio").dtypes)


def test_what_is_wrong_with_the_call_is_raised(manifest: pd.DataFrame) -> None:
    with pytest.raises(UsageError, match="no column 'sound'"):
        vp.voiceprint_partition(manifest, "sound")
    with pytest.raises(UsageError, match="fit"):
        vp.voiceprint_partition(manifest, "audio", fit="tail")
    with pytest.raises(UsageError, match="overwrite"):
        vp.check_partition(vp.check_partition(manifest, "audio"), "audio")


def test_a_part_is_matched_as_the_whole_is(people: tuple[pd.DataFrame, vp.Library]) -> None:
    frame, library = people
    whole = vp.match(frame, library, threshold=0.5, prefix="who_")
    part = vp.match_partition(frame, library, threshold=0.5, prefix="who_")
    pd.testing.assert_frame_equal(part, whole)
    assert part.attrs == whole.attrs != {}


def test_a_part_without_voiceprints_has_the_columns_of_others(
    people: tuple[pd.DataFrame, vp.Library],
) -> None:
    frame, library = people
    whole = vp.match_partition(frame, library, threshold=0.5)
    nobody = vp.match_partition(frame.iloc[-1:], library, threshold=0.5)
    pd.testing.assert_frame_equal(nobody, whole.iloc[-1:])
    assert nobody.attrs == whole.attrs
    with pytest.raises(UsageError, match="overwrite"):
        vp.match_partition(nobody, library, threshold=0.5)
    again = vp.match_partition(nobody, library, threshold=0.5, overwrite=True)
    pd.testing.assert_frame_equal(again, nobody)
