"""DataFrames in and out: what is kept, what is added, what the ledger gets."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceprint_nb.analysis.prints import voiceprint_column
from voiceprint_nb.batch.outcomes import Kept, Outcome, Outcomes
from voiceprint_nb.errors import UsageError
from voiceprint_nb.notebook import frames

NAMES = frames.result_names("vp_")
DTYPES = dict.fromkeys(NAMES.values(), "string") | {"vp_duration_s": "float64"}
DONE = Outcome("succeeded", "secret", job_id="j", source="new", duration_s=2.5)


def identical(left: pd.DataFrame, right: pd.DataFrame) -> bool:
    pd.testing.assert_frame_equal(left, right, check_exact=True)
    return left.attrs == right.attrs


labels = st.one_of(
    st.integers(-3, 3),
    st.sampled_from(["a", "b"]),
    st.none(),
    st.just(pd.Timestamp("2026-01-01")),
    st.floats(0, 1),
)


@given(st.lists(labels, max_size=8), st.data())
def test_index_and_order_survive(index, data):
    frame = pd.DataFrame(
        {"audio": [f"{n}.wav" for n in range(len(index))]}, index=pd.Index(index, dtype=object)
    )
    done = data.draw(st.sets(st.integers(0, max(0, len(index) - 1)))) if index else set()
    before = frame.copy()
    out = frames.with_outcomes(frame, Outcomes(len(frame), dict.fromkeys(done, DONE).items()), NAMES)
    assert identical(frame, before)
    assert identical(out[["audio"]], before)
    assert [status == "succeeded" for status in out.vp_status] == [n in done for n in range(len(index))]
    restored, column = frames.unpack(frames.pack(frame, "audio"))
    assert column == "audio"
    assert identical(restored, before)


@pytest.mark.parametrize(
    "index",
    [
        [7, 7, 7],
        pd.MultiIndex.from_tuples([("a", 1), ("a", 1), ("b", 2)], names=["who", "take"]),
        pd.date_range("2026-01-01", periods=3, tz="UTC"),
        pd.CategoricalIndex(["x", "y", "x"]),
    ],
)
def test_any_index_is_kept(index):
    frame = pd.DataFrame({"audio": ["a.wav", b"RIFF", None]}, index=index)
    out = frames.with_outcomes(frame, Outcomes(3, [(0, DONE), (2, DONE)]), NAMES)
    pd.testing.assert_index_equal(out.index, frame.index)
    assert out.vp_status.tolist() == ["succeeded", "pending", "succeeded"]
    restored, _ = frames.unpack(frames.pack(frame, "audio"))
    pd.testing.assert_index_equal(restored.index, frame.index)
    assert [type(cell) for cell in restored.audio] == [str, Kept, type(None)]


@pytest.mark.parametrize("n_rows", [0, 2])
def test_new_columns_have_the_documented_dtypes(n_rows):
    frame = pd.DataFrame(
        {"audio": ["a.wav"] * n_rows, "speaker": pd.Series(["s"] * n_rows, dtype="category")}
    )
    out = frames.with_outcomes(frame, Outcomes(n_rows, [(0, DONE)] if n_rows else []), NAMES)
    assert {name: str(out[name].dtype) for name in DTYPES} == DTYPES
    assert list(out) == ["audio", "speaker", *NAMES.values()]
    assert str(out.speaker.dtype) == "category"
    checked = frames.with_outcomes(frame, Outcomes(n_rows), frames.check_names("vp_"))
    assert {str(checked[f"vp_{name}"].dtype) for name in ("sample_rate_hz", "channels", "n_bytes")} == {
        "Int64"
    }


def test_changing_the_result_does_not_change_the_input():
    frame = pd.DataFrame({"audio": ["a.wav", "b.wav"], "n": [1, 2]})
    out = frames.with_outcomes(frames.without_kept(frame, "audio"), Outcomes(len(frame)), NAMES)
    out.loc[0, "n"] = 99
    out.loc[0, "audio"] = "other"
    assert (frame.n[0], frame.audio[0]) == (1, "a.wav")


@pytest.mark.parametrize("dtype", ["object", "string", "category", "str", "string[pyarrow]"])
def test_the_audio_columns_dtype_is_kept(dtype):
    frame = pd.DataFrame({"audio": pd.Series(["a.wav", "b.wav", None], dtype=dtype)})
    cells = frames.cells_of(frame, "audio")
    expected = list(frame.audio)
    assert [(type(cell), str(cell)) for cell in cells] == [(type(cell), str(cell)) for cell in expected]
    frame.loc[0, "audio"] = "b.wav"
    assert (len(cells), cells[0]) == (3, "a.wav")
    out = frames.with_outcomes(frames.without_kept(frame, "audio"), Outcomes(len(frame)), NAMES)
    assert out.audio.dtype == frame.audio.dtype
    restored, _ = frames.unpack(frames.pack(frame, "audio"))
    assert identical(restored, frame)


@pytest.mark.parametrize("column", [0, 1.5, ("a", "b"), pd.Timestamp("2026-01-01"), None, "ton", Path("x")])
def test_columns_of_any_name(column):
    frame = pd.DataFrame({"other": [1], "audio": ["a.wav"]}).set_axis(
        pd.Index(["other", column], dtype=object, tupleize_cols=False), axis="columns"
    )
    if column is not None:
        assert frames.as_frame(frame, column)[1] == column
    restored, name = frames.unpack(frames.pack(frame, column))
    assert name == column
    assert list(restored.columns) == ["other", column]


def test_two_columns_of_one_name_beside_the_audio():
    frame = pd.DataFrame([["a", "x.wav", "b"], ["c", b"RIFF", "d"]], columns=["n", "audio", "n"])
    assert frames.as_frame(frame, "audio")[0] is frame
    restored, _ = frames.unpack(frames.pack(frame, "audio"))
    assert list(restored.columns) == ["n", "audio", "n"]
    cleaned = frames.with_outcomes(frames.without_kept(restored, "audio"), Outcomes(len(restored)), NAMES)
    assert cleaned.iloc[:, :3].values.tolist() == [["a", "x.wav", "b"], ["c", None, "d"]]
    with pytest.raises(UsageError, match="several columns named 'n'"):
        frames.as_frame(frame, "n")


@pytest.mark.parametrize(
    ("data", "column", "name"),
    [
        (pd.Series(["a.wav"], name="talk"), None, "talk"),
        (pd.Series(["a.wav"]), None, "audio"),
        (pd.Series(["a.wav"], name="talk"), "clip", "clip"),
        (["a.wav"], None, "audio"),
        ((path for path in ["a.wav"]), "clip", "clip"),
        (np.array(["a.wav"]), None, "audio"),
        (pd.DataFrame({"only": ["a.wav"]}), None, "only"),
        (pd.DataFrame({"x": [1], "audio": ["a.wav"]}), None, "audio"),
    ],
)
def test_series_lists_and_default_columns(data, column, name):
    frame, found = frames.as_frame(data, column)
    assert (found, list(frames.cells_of(frame, found))) == (name, ["a.wav"])


def test_a_list_of_pairs_has_a_row_each():
    frame, _ = frames.as_frame([(np.zeros(3), 16_000), (np.zeros(3), 16_000)], None)
    assert frame.shape == (2, 1)


@pytest.mark.parametrize(
    "data",
    [
        "a.wav",
        b"RIFF",
        bytearray(b"x"),
        Path("a.wav"),
        3,
        None,
        {"audio": []},
        np.zeros(9),
        (np.zeros(9), 16_000),
    ],
)
def test_one_clip_is_no_table(data):
    with pytest.raises(UsageError, match="single clip use voiceprint"):
        frames.as_frame(data, None)


def test_an_open_file_is_no_table(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"line\nline\n")
    with path.open("rb") as file, pytest.raises(UsageError, match="single clip"):
        frames.as_frame(file, None)


@pytest.mark.parametrize("column", ["sound", ["audio"], 0])
def test_a_missing_column_names_what_is_there(column):
    frame = pd.DataFrame({"audio": [], "speaker": []})
    with pytest.raises(UsageError, match=r"has no column .*'audio', 'speaker'"):
        frames.as_frame(frame, column)


def test_collisions_name_both_remedies():
    frame = pd.DataFrame({"audio": ["a"], "vp_error": [1]})
    with pytest.raises(UsageError, match=r"already has 'vp_error': pass overwrite=True .* prefix="):
        frames.without_taken(frame, "audio", NAMES, overwrite=False)
    assert list(frames.without_taken(frame, "audio", NAMES, overwrite=True)) == ["audio"]
    assert frames.without_taken(frame[["audio"]], "audio", NAMES, overwrite=False) is not None
    with pytest.raises(UsageError, match="replace the audio column 'vp_error'"):
        frames.without_taken(frame, "vp_error", NAMES, overwrite=True)


def test_prefixes():
    assert list(frames.result_names("a_").values())[:2] == ["a_voiceprint", "a_status"]
    assert next(iter(NAMES.values())) == "voiceprint"


def test_memory_is_left_out_of_the_ledger(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"loud" * 9)
    with path.open("rb") as file:
        cells = [
            b"loud" * 9,
            bytearray(b"loud" * 9),
            (np.ones(9), 8),
            file,
            "a.wav",
            Path("b"),
            None,
            np.nan,
            3,
            [1],
        ]
        frame = pd.DataFrame({"audio": pd.Series(cells, dtype=object)})
        data = frames.pack(frame, "audio")
    assert b"loud" not in data
    restored, _ = frames.unpack(data)
    kinds = [Kept, Kept, Kept, Kept, str, type(Path()), type(None), float, int, Kept]
    assert [type(cell) for cell in restored.audio] == kinds
    assert [cell is None for cell in frames.without_kept(restored, "audio").audio[:5]] == [True] * 4 + [False]


class Unpicklable:
    def __reduce__(self):
        raise RuntimeError("not today")


@pytest.mark.parametrize("where", ["cell", "attrs", "size"])
def test_a_frame_that_cannot_be_kept_leaves_its_audio_column(where, monkeypatch):
    frame = pd.DataFrame({"x": [1], "audio": ["a.wav"]}, index=["row"])
    if where == "cell":
        frame["x"] = pd.Series([Unpicklable()], index=["row"], dtype=object)
    elif where == "attrs":
        frame.attrs["x"] = Unpicklable
        frame.attrs["y"] = lambda: None
    else:
        monkeypatch.setattr(frames, "_MOST_FRAME_BYTES", 100)
    restored, column = frames.unpack(frames.pack(frame, "audio"))
    assert (column, restored.index.tolist(), list(restored), restored.audio.tolist()) == (
        "audio",
        ["row"],
        ["audio"],
        ["a.wav"],
    )


@pytest.mark.parametrize("data", [None, b"", b"no pickle", pickle.dumps(3), pickle.dumps((3, 0))])
def test_what_cannot_be_unpacked_says_what_to_do(data):
    with pytest.raises(UsageError, match=r"call voiceprints\(\)"):
        frames.unpack(data)


def test_the_voiceprint_column_is_found():
    frame = pd.DataFrame({"a_voiceprint": ["x"], "audio": ["y"]})
    assert voiceprint_column(frame) == "a_voiceprint"
    frame.attrs["voiceprint_nb"] = {"column": "audio"}
    assert voiceprint_column(frame) == "audio"
    frame.attrs["voiceprint_nb"] = 3
    assert voiceprint_column(frame.assign(voiceprint="z")) == "voiceprint"
    with pytest.raises(UsageError, match="pass the result"):
        voiceprint_column(frame.assign(b_voiceprint="z"))


def test_bases_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert frames.bases_of(None) == (tmp_path,)
    assert frames.bases_of("x") == (tmp_path / "x",)
    assert frames.bases_of(["x", Path("/y")]) == (tmp_path / "x", Path("/y"))


def test_fits():
    assert [frames.fit_of(fit) for fit in ("error", "best", "head")] == ["error", "best", "head"]
    with pytest.raises(UsageError, match="use 'error', 'best' or 'head'"):
        frames.fit_of("tail")
