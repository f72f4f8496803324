"""Dask DataFrames: lazy, of the types that pandas frames have, refused at once where the call is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from voices import prints, voices

import voiceprint_nb as vp
from voiceprint_nb.errors import UsageError

Noises = Callable[..., list[tuple[np.ndarray, int]]]


@pytest.fixture(autouse=True)
def own_cells() -> Iterator[None]:
    """Dask leaves cells and dtypes as they are; else it makes text of whatever is in a column of objects."""
    with dask.config.set({"dataframe.convert-string": False}):
        yield


@pytest.fixture
def lazy(manifest: pd.DataFrame) -> dd.DataFrame:
    return dd.from_pandas(manifest, npartitions=4)


def test_voiceprints_are_those_of_pandas(manifest: pd.DataFrame, lazy: dd.DataFrame) -> None:
    expected = vp.voiceprints(manifest, "audio", service="local", ledger=False, progress=False)
    out = vp.voiceprints(lazy, "audio", service="local")
    assert isinstance(out, dd.DataFrame)
    assert out.npartitions == 4
    assert out.known_divisions
    found = out.compute()
    pd.testing.assert_series_equal(out.dtypes, found.dtypes)
    own = ["vp_job_id", "vp_source"]  # there are no jobs, and what is equal is seen within a part
    pd.testing.assert_frame_equal(found.drop(columns=own), expected.drop(columns=own))
    assert found.dtypes.equals(expected.dtypes)


def test_checks_are_those_of_pandas(manifest: pd.DataFrame, lazy: dd.DataFrame) -> None:
    out = vp.check(lazy, "audio", prefix="c_")
    found = out.compute()
    pd.testing.assert_series_equal(out.dtypes, found.dtypes)
    pd.testing.assert_frame_equal(found, vp.check(manifest, "audio", prefix="c_", progress=False))


@pytest.mark.parametrize("converted", [True, False])
def test_paths_survive_what_dask_does_to_texts(manifest: pd.DataFrame, converted: bool) -> None:
    frame = manifest.assign(
        audio=[Path(cell) if row % 3 else cell for row, cell in enumerate(manifest.audio)]
    )
    frame.loc[0, "audio"] = None
    with dask.config.set({"dataframe.convert-string": converted}):
        out = vp.check(dd.from_pandas(frame, npartitions=3), "audio")
        found = out.compute()
    pd.testing.assert_series_equal(out.dtypes, found.dtypes)
    expected = vp.check(frame, "audio", progress=False)
    new = [name for name in expected if name.startswith("vp_")]
    pd.testing.assert_frame_equal(found[new], expected[new])
    assert found["vp_error_code"].iloc[0] == "empty_cell"


def test_audio_in_memory_travels_to_the_workers(noises: Noises, manifest: pd.DataFrame) -> None:
    cells = [*noises(2), Path(manifest.audio[0]).read_bytes(), None]
    frame = pd.DataFrame({"audio": pd.Series(cells, dtype=object)})
    found = vp.voiceprints(dd.from_pandas(frame, npartitions=2), service="local").compute()
    assert found["vp_status"].tolist() == ["succeeded"] * 3 + ["invalid"]
    pd.testing.assert_frame_equal(found, vp.voiceprint_partition(frame))


def test_nothing_is_read_before_it_is_asked_for(manifest: pd.DataFrame, tmp_path: Path) -> None:
    frame = pd.DataFrame({"audio": ["late.wav"]})
    out = vp.voiceprints(dd.from_pandas(frame, npartitions=1), service="local", base=tmp_path)
    shutil.copy(manifest.audio[0], tmp_path / "late.wav")
    assert out.compute()["vp_status"].tolist() == ["succeeded"]


def test_relative_paths_start_where_the_call_was_made(
    manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(manifest.audio[0], tmp_path / "here.wav")
    monkeypatch.chdir(tmp_path)
    out = vp.check(dd.from_pandas(pd.DataFrame({"audio": ["here.wav"]}), npartitions=1))
    monkeypatch.chdir("/")
    assert out.compute()["vp_status"].tolist() == ["ok"]


def test_a_series_becomes_a_frame(manifest: pd.DataFrame, lazy: dd.DataFrame) -> None:
    found = vp.check(lazy.audio).compute()
    pd.testing.assert_frame_equal(found, vp.check(manifest.audio, progress=False))


def test_matches_are_those_of_pandas() -> None:
    embeddings, speakers = voices(30, 6, noise=0.9)
    names = [f"s{number}" for number in speakers]
    frame = pd.DataFrame({"voiceprint": pd.array(prints(embeddings), dtype="string"), "speaker": names})
    calibration = vp.calibrate(frame, enrolled=3)
    library = vp.Library.from_frame(frame.groupby("speaker").head(3).head(45))
    frame.loc[:49, "voiceprint"] = None
    options = {"calibration": calibration, "false_name_rate": 0.2}
    expected = vp.match(frame, library, **options)
    out = vp.match(dd.from_pandas(frame, npartitions=6), library, **options)
    found = out.compute()
    pd.testing.assert_series_equal(out.dtypes, found.dtypes)
    assert found.dtypes.equals(expected.dtypes)
    pd.testing.assert_frame_equal(found, expected, atol=1e-6)  # products of parts round otherwise
    assert set(expected["vp_decision"].dropna()) == {"match", "unsure", "unknown"}
    assert found.iloc[:30, 2:].isna().all(axis=None)  # a whole part without prints
    assert found.attrs == expected.attrs
    assert found.attrs["voiceprint_nb_match"]["vp_"]["false_name_rate"] == 0.2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"column": "sound"}, "no column 'sound'"),
        ({"fit": "tail"}, "Unknown fit"),
        ({"prefix": ""}, "'status'"),
        ({"service": "pyannoteai", "api_key": "k-1"}, "pass service='local'"),
        ({"service": "http://127.0.0.1:8000"}, "pass service='local'"),
        ({"api_key": "k-1"}, "pass service='local'"),
        ({"max_new": 0}, "max_new="),
        ({"compress": True}, "compress="),
        ({"data_dir": "elsewhere"}, "data_dir="),
    ],
)
def test_what_is_wrong_with_the_call_is_said_at_once(
    lazy: dd.DataFrame, options: dict[str, object], sentence: str
) -> None:
    column = options.pop("column", "audio")
    with pytest.raises(UsageError, match=sentence):
        vp.voiceprints(lazy.assign(status=1), column, **({"service": "local"} | options))


def test_a_key_in_the_environment_asks_for_a_choice(
    lazy: dd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYANNOTEAI_API_KEY", "k-1")
    with pytest.raises(UsageError, match="limits"):
        vp.voiceprints(lazy, "audio")
    assert vp.voiceprints(lazy, "audio", service="local").npartitions == 4


def test_match_says_at_once_what_is_wrong(lazy: dd.DataFrame) -> None:
    library = vp.Library()
    library.add("ada", prints(voices(1, 1, noise=0)[0]))
    with pytest.raises(UsageError, match="voiceprint"):
        vp.match(lazy, library, threshold=0.8)
    printed = vp.voiceprints(lazy, "audio", service="local")
    with pytest.raises(UsageError, match="threshold"):
        vp.match(printed, library)
    with pytest.raises(UsageError, match="empty"):
        vp.match(printed, vp.Library(), threshold=0.8)
    with pytest.raises(UsageError, match="'vp_label'"):
        vp.match(printed.assign(vp_label="x"), library, threshold=0.8)


@pytest.mark.parametrize("verb", [vp.submit, vp.plan, vp.show])
def test_other_verbs_name_the_way_out(lazy: dd.DataFrame, verb: Callable[..., object]) -> None:
    with pytest.raises(UsageError, match=r"ddf\.compute\(\)"):
        verb(lazy, "audio")
