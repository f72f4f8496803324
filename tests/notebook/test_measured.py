"""quality=True: columns of measures, the same from every verb, kept over resume; else nothing changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import voiceprint_nb as vp
from voiceprint_nb import audio
from voiceprint_nb.engine.embedder import Embedder
from voiceprint_nb.intake.quality import MEASURES
from voiceprint_nb.notebook.runs import Call

COLUMNS = [f"vp_{name}" for name in MEASURES]
LOCAL = {"service": "local", "progress": False, "ledger": False}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """A good clip, the same clipped, its first second, no audio, and a key of an upload."""
    root = Path(__file__).resolve().parents[2]
    good = root / "data" / "samples" / "ada-1.wav"
    samples = audio.read_mono(good)
    folder = tmp_path_factory.mktemp("clips")
    loud = np.clip(samples * (10 / np.abs(samples).max()), -1, 1)
    for name, cut in (("loud.wav", loud), ("short.wav", samples[:16_000])):
        (folder / name).write_bytes(audio.encode_wav(cut, audio.WORK_RATE_HZ))
    paths = [good, folder / "loud.wav", folder / "short.wav", folder / "none.wav", "media://a"]
    return pd.DataFrame({"audio": [str(path) for path in paths]}, index=[5, 5, 4, 3, 2])


@pytest.fixture(scope="module")
def checked(clips: pd.DataFrame) -> pd.DataFrame:
    return vp.check(clips, quality=True, progress=False)


def test_a_check_measures_what_has_a_file(clips: pd.DataFrame, checked: pd.DataFrame) -> None:
    plain = vp.check(clips, progress=False)
    assert list(checked) == [*plain, *COLUMNS]
    others = plain.columns.drop("vp_warning")
    pd.testing.assert_frame_equal(checked[others], plain[others])
    assert set(checked[COLUMNS].dtypes.astype(str)) == {"float64"}
    assert checked[COLUMNS].iloc[3:].isna().all(axis=None)
    assert checked[COLUMNS].drop(columns="vp_voice_spread").iloc[:3].notna().all(axis=None)
    assert pd.isna(checked.vp_warning.iloc[0])
    assert "clipped: record" in checked.vp_warning.iloc[1]
    assert checked.vp_clipped.iloc[1] > 0.05 > checked.vp_clipped.iloc[0]
    both = checked.vp_warning.iloc[2]
    assert both.startswith(plain.vp_warning.iloc[2]) and "s of speech were found" in both


def test_a_run_measures_the_same(clips: pd.DataFrame, checked: pd.DataFrame) -> None:
    out = vp.submit(clips.iloc[:4], quality=True, **LOCAL).result()
    pd.testing.assert_frame_equal(out[COLUMNS], checked[COLUMNS].iloc[:4])
    assert out.vp_status.tolist() == ["succeeded"] * 3 + ["invalid"]
    assert out.vp_warning.iloc[:3].equals(checked.vp_warning.iloc[:3])
    plain = vp.voiceprints(clips.iloc[:4], **LOCAL)
    assert list(out) == [*plain, *COLUMNS]
    assert plain["voiceprint"].equals(out["voiceprint"])


def test_parts_of_a_cluster_measure_the_same(clips: pd.DataFrame, checked: pd.DataFrame) -> None:
    part = vp.check_partition(clips, quality=True)
    pd.testing.assert_frame_equal(part, checked)
    printed = vp.voiceprint_partition(clips.iloc[:4], quality=True)
    pd.testing.assert_frame_equal(printed[COLUMNS], checked[COLUMNS].iloc[:4])
    assert vp.voiceprint_partition(clips.iloc[:0], quality=True).dtypes.equals(printed.dtypes)


def test_names_follow_the_prefix_and_are_not_taken(clips: pd.DataFrame, checked: pd.DataFrame) -> None:
    mine = clips.iloc[:1].assign(q_snr_db="mine")
    with pytest.raises(vp.UsageError, match="q_snr_db"):
        vp.check(mine, quality=True, prefix="q_", progress=False)
    assert vp.check(mine, prefix="q_", progress=False).q_snr_db.tolist() == ["mine"]
    found = vp.check(mine, quality=True, prefix="q_", overwrite=True, progress=False)
    assert found.q_snr_db.tolist() == checked.vp_snr_db.iloc[:1].tolist()


def test_resume_measures_as_the_run_did(
    clips: pd.DataFrame, checked: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"service": "local", "progress": False, "data_dir": tmp_path}
    out = vp.voiceprints(clips.iloc[:3], quality=True, max_new=1, **options)
    assert out.vp_status.tolist().count("canceled") == 2
    resumed = vp.resume(data_dir=tmp_path, progress=False)
    assert resumed.vp_status.tolist() == ["succeeded"] * 3
    pd.testing.assert_frame_equal(resumed[COLUMNS], checked[COLUMNS].iloc[:3])

    def unwanted(self: Embedder, samples: np.ndarray) -> np.ndarray:
        raise AssertionError("nobody asked for the quality")

    monkeypatch.setattr(Embedder, "embed_parts", unwanted)
    plain = vp.voiceprints(clips.iloc[:3], **options)
    assert not set(COLUMNS) & set(plain)


def test_calls_of_older_ledgers_are_read() -> None:
    old = {
        "prefix": "vp_",
        "fit": "error",
        "bases": ["/data"],
        "service": "local",
        "model": None,
        "compress": False,
    }
    call = Call.from_json(old, column="audio")
    assert not call.quality
    assert call.to_json() == old | {"quality": False}


def test_a_measurement_that_fails_costs_no_row(clips: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Embedder, samples: np.ndarray) -> np.ndarray:
        raise FloatingPointError("secret")

    monkeypatch.setattr(Embedder, "embed_parts", broken)
    out = vp.voiceprints(clips.iloc[:1], quality=True, **LOCAL)
    assert out.vp_status.tolist() == ["succeeded"]
    assert out[COLUMNS].isna().all(axis=None)
    assert out.vp_warning.tolist() == ["Its quality was not measured (FloatingPointError)."]


def test_only_the_stretch_that_is_used_is_measured(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, 40 * 16_000)
    noise[: 30 * 16_000] *= np.repeat(np.tile([1.0, 1e-3], 15), 16_000)
    noise[30 * 16_000 :] = np.clip(noise[30 * 16_000 :] * 100, -1, 1)
    path = tmp_path / "long.wav"
    path.write_bytes(audio.encode_wav(noise.astype(np.float32), 16_000))
    row = vp.check([str(path)], fit="head", quality=True, progress=False).iloc[0]
    assert row.vp_clipped < 0.01
    assert row.vp_speech_s == pytest.approx(15, abs=0.1)
    assert row.vp_warning.startswith("Only 0.0 s to 30.0 s")
