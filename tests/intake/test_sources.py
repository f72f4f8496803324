"""Any cell becomes a source or a row error, whatever it holds."""

from __future__ import annotations

import datetime
import decimal
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from voiceprint_nb.errors import RowError
from voiceprint_nb.intake import sources

EXAMPLES = settings(max_examples=300, deadline=None, database=None)


def code_of(cell: object, **options: Any) -> str:
    with pytest.raises(RowError) as caught:
        sources.parse(cell, **options)
    assert str(caught.value).endswith(".") and ": " in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize(
    "cell",
    [
        None,
        "",
        "  \n\t",
        np.nan,
        float("nan"),
        pd.NA,
        pd.NaT,
        np.float32("nan"),
        np.datetime64("NaT"),
        decimal.Decimal("NaN"),
    ],
)
def test_missing_cells(cell: object) -> None:
    assert code_of(cell) == "empty_cell"


@pytest.mark.parametrize(
    "cell",
    [0, 1.5, True, np.int64(3), np.bool_(False), [], ["a.wav"], {"a": 1}, {1}, (), (1, 2, 3), object(), int,
     pd.Timestamp("2026-01-01"), datetime.date(2026, 1, 1), np.zeros(100), pd.Series([1.0]), 1j, "a\0b"],
)  # fmt: skip
def test_cells_of_other_kinds(cell: object) -> None:
    assert code_of(cell) == "unsupported_cell"


class Odd:
    def __array__(self, *args: object, **kwargs: object) -> np.ndarray:
        raise RuntimeError("requires grad")


RATES = st.one_of(
    st.integers(), st.floats(), st.none(), st.text(max_size=3), st.just(10**400), st.just(np.int32(16_000))
)
ARRAYS = st.one_of(
    npst.arrays(
        st.sampled_from(["f4", "f8", "f2", "i2", "i4", "u1", "i8", "u8", "?", "c8", "O", "U2", "M8[s]"]),
        npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    st.lists(st.floats() | st.integers() | st.lists(st.integers(), max_size=2), max_size=5),
    st.just(Odd()),
)
CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.decimals(),
    st.dates(),
    st.text(st.characters()),
    st.text(st.characters(), max_size=20).map(lambda text: text + "://" + text),
    st.sampled_from(
        ["file", "http", "https", "media", "s3", "data:", "FILE", "~", "~root", "~nobody-here", "[", "%00"]
    ).flatmap(lambda head: st.text(st.characters(), max_size=20).map(lambda tail: f"{head}://{tail}")),
    st.text(st.characters(), max_size=8).map("~{}".format),
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1).map(Path),
    st.binary(max_size=20),
    st.binary(max_size=20).map(bytearray),
    st.binary(max_size=20).map(memoryview),
    st.binary(max_size=20).map(lambda data: memoryview(data)[::-1]),
    npst.from_dtype(np.dtype("f2")),
    npst.from_dtype(np.dtype("M8[s]")),
    npst.from_dtype(np.dtype("m8[s]")),
    st.sampled_from(
        [pd.NaT, pd.NA, np.nan, object(), int, Ellipsis, io.BytesIO(b"x"), io.StringIO("x"), Odd()]
    ),
    st.tuples(ARRAYS, RATES),
    st.tuples(RATES, ARRAYS),
    st.lists(st.integers(), max_size=3).map(tuple),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


@given(cell=CELLS)
@example(cell="~\ud800")
@settings(EXAMPLES, max_examples=1000)
def test_parse_never_crashes(cell: object) -> None:
    for bases in ((), (Path("/"),), (Path("/nowhere"), Path.cwd())):
        try:
            source = sources.parse(cell, bases=bases)
        except RowError as error:
            assert error.status == "invalid"
            assert str(error).endswith(".")
            str(error).encode()  # a sentence that any file and terminal takes
        else:
            assert isinstance(source, sources.Source)  # type: ignore[misc, arg-type]


# --- text -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["clip.wav", " clip.wav\n", "\tclip.wav "])
def test_space_around_a_path_is_dropped(cell: str, tmp_path: Path) -> None:
    assert sources.parse(cell) == sources.PathSource(Path("clip.wav"))
    assert sources.parse(cell, bases=[tmp_path]) == sources.PathSource(tmp_path / "clip.wav")


def test_bases_are_tried_in_order(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    (second / "b.wav").touch()
    assert sources.parse("b.wav", bases=[first, second]) == sources.PathSource(second / "b.wav")
    (first / "b.wav").touch()
    assert sources.parse("b.wav", bases=[first, second]) == sources.PathSource(first / "b.wav")
    assert sources.parse("c.wav", bases=[first, second]) == sources.PathSource(first / "c.wav")
    assert sources.parse(Path("b.wav"), bases=[second]) == sources.PathSource(second / "b.wav")
    assert sources.parse("/b.wav", bases=[second]) == sources.PathSource(Path("/b.wav"))


@pytest.mark.parametrize("name", ["x" * 300, "~no-such-user-here/a.wav", "a\ud800.wav", "x/" * 3000])
def test_names_that_no_file_can_have_are_still_paths(name: str, tmp_path: Path) -> None:
    assert isinstance(sources.parse(name, bases=[tmp_path]), sources.PathSource)


def test_a_tilde_is_the_home_folder() -> None:
    assert sources.parse("~/a.wav") == sources.PathSource(Path.home() / "a.wav")
    assert sources.parse(os.fsencode("a.wav")) == sources.BytesSource(b"a.wav")


@pytest.mark.parametrize(
    "cell", ["file:///data/a%20b.wav", "FILE:///data/a b.wav", "file://localhost/data/a%20b.wav"]
)
def test_file_addresses_are_paths(cell: str) -> None:
    assert sources.parse(cell) == sources.PathSource(Path("/data/a b.wav"))


@pytest.mark.parametrize(
    "cell",
    ["file://server/share/a.wav", "file://[", "ftp://h/a", "data:audio/wav;base64,AAAA", "HDFS://h/a"],
)
def test_schemes_that_are_not_read(cell: str) -> None:
    assert code_of(cell) == "unsupported_scheme"


@pytest.mark.parametrize(
    ("cell", "source"),
    [
        ("s3://bucket/a.wav", ("s3", "bucket", "a.wav")),
        (" S3://my.bucket-1/a b/\u00e4+%20#?.wav\n", ("s3", "my.bucket-1", "a b/\u00e4+%20#?.wav")),
        ("gs://b/a", ("gs", "b", "a")),
        ("az://b/c/d", ("az", "b", "c/d")),
    ],
)
def test_objects_are_taken_literally(cell: str, source: tuple[str, str, str]) -> None:
    found = sources.parse(cell)
    assert found == sources.CloudSource(*source)
    assert (
        isinstance(found, sources.CloudSource) and found.address == f"{source[0]}://{source[1]}/{source[2]}"
    )
    assert repr(found) == f"CloudSource(scheme={source[0]!r})"


@pytest.mark.parametrize(
    "cell", ["s3://", "s3://bucket", "s3://bucket/", "s3:///a.wav", "s3://b/folder/", "gs://b u/a"]
)
def test_addresses_that_name_no_object(cell: str) -> None:
    assert code_of(cell) == "unsupported_cell"


@pytest.mark.parametrize(
    ("cell", "url"),
    [
        ("https://host/a.wav?x=1#y", "https://host/a.wav?x=1#y"),
        (" HTTP://host:8000/a b.wav\n", "http://host:8000/a%20b.wav"),
        ("https://host/ä.wav", "https://host/%C3%A4.wav"),
        ("https://host/%C3%A4.wav", "https://host/%C3%A4.wav"),
    ],
)
def test_web_addresses(cell: str, url: str) -> None:
    source = sources.parse(cell)
    assert source == sources.UrlSource(url)
    assert "host" not in repr(source)


@pytest.mark.parametrize("cell", ["http://", "https:///a.wav", "http://[::1/a", "http://h/" + "a" * 5000])
def test_web_addresses_that_are_none(cell: str) -> None:
    assert code_of(cell) == "url_unreachable"


def test_media_keys() -> None:
    assert sources.parse("media://voices/ada.wav") == sources.MediaSource("media://voices/ada.wav")
    assert (
        code_of("media://a b") == code_of("media://") == code_of("media://" + "k" * 300) == "unsupported_cell"
    )


# --- bytes, files, samples ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes(kind: Any) -> None:
    assert sources.parse(kind(b"RIFF")) == sources.BytesSource(b"RIFF")
    assert code_of(kind(b"")) == "empty_file"
    assert "RIFF" not in repr(sources.parse(kind(b"RIFF")))


def test_open_files(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF")
    with path.open("rb") as file:
        assert sources.parse(file) == sources.FileSource(file)
    assert code_of(file) == "not_readable"
    with path.open() as text:
        assert code_of(text) == "unsupported_cell"
    assert isinstance(sources.parse(io.BytesIO(b"x")), sources.FileSource)


@pytest.mark.parametrize(
    ("samples", "wanted"),
    [
        (np.array([0, 16384, -32768], "i2"), [0, 0.5, -1]),
        (np.array([128, 192, 0], "u1"), [0, 0.5, -1]),
        (np.array([0, 2**30, -(2**31)], "i4"), [0, 0.5, -1]),
        (np.array([0, 0.5, -1], "f8"), [0, 0.5, -1]),
        (np.array([0, 0.5, -1], "f4")[::-1][::-1], [0, 0.5, -1]),
        ([0.0, 0.5, -1.0], [0, 0.5, -1]),
        (np.array([[0, 1], [0.5, 0], [-1, 1]]), [[0, 1], [0.5, 0], [-1, 1]]),
        (np.array([[0], [64], [-128]], "i1"), [[0], [0.5], [-1]]),
    ],
)
@pytest.mark.parametrize("rate", [16_000, 16_000.0, np.int64(16_000), "16000"])
def test_samples_of_any_type_are_brought_to_float32(samples: Any, wanted: Any, rate: Any) -> None:
    source = sources.parse((samples, rate))
    assert isinstance(source, sources.SamplesSource)
    assert source.samples.dtype == np.float32 and source.samples.flags.c_contiguous
    assert np.array_equal(source.samples, np.array(wanted, "f4"))
    assert source.sample_rate_hz == 16_000
    assert repr(source) == "SamplesSource(sample_rate_hz=16000)"


@pytest.mark.parametrize(
    ("pair", "code"),
    [
        ((np.zeros(0), 16_000), "empty_audio"),
        ((np.zeros((0, 2)), 16_000), "empty_audio"),
        ((np.zeros(9), 0), "bad_header"),
        ((np.zeros(9), -16_000), "bad_header"),
        ((np.zeros(9), 10**12), "bad_header"),
        ((np.zeros(9), 10**400), "unsupported_cell"),
        ((np.zeros(9), 16_000.5), "unsupported_cell"),
        ((np.zeros(9), np.nan), "unsupported_cell"),
        ((np.zeros(9), np.inf), "unsupported_cell"),
        ((np.zeros(9), None), "unsupported_cell"),
        ((16_000, np.zeros(9)), "unsupported_cell"),
        ((np.zeros((2, 3, 4)), 16_000), "unsupported_cell"),
        ((np.zeros((2, 16_000)), 16_000), "unsupported_cell"),
        ((np.zeros((1, 16_000)), 16_000), "unsupported_cell"),
        ((np.zeros((16_000, 65)), 16_000), "unsupported_cell"),
        (([[1.0], [1.0, 2.0]], 16_000), "unsupported_cell"),
        ((np.array(["a"]), 16_000), "unsupported_cell"),
        ((np.zeros(9, complex), 16_000), "unsupported_cell"),
        ((np.zeros(9, bool), 16_000), "unsupported_cell"),
        ((Odd(), 16_000), "unsupported_cell"),
        (("a.wav", "b.wav"), "unsupported_cell"),
    ],
)
def test_pairs_that_are_no_audio(pair: tuple[object, object], code: str) -> None:
    assert code_of(pair) == code


def test_a_transposed_array_is_told_to_be_one() -> None:
    with pytest.raises(RowError, match=r"16000 channels.*transpose"):
        sources.parse((np.zeros((2, 16_000)), 16_000))


def test_values_beyond_float32_become_infinite_without_a_warning() -> None:
    source = sources.parse((np.array([1e300, 0.0]), 16_000))
    assert isinstance(source, sources.SamplesSource) and np.isinf(source.samples[0])
