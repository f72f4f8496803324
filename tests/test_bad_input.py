"""One frame with everything that can be wrong with a clip, between good rows."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import struct
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

import voiceprint_nb as vp

RATE_HZ = 16_000
CHECK_COLUMNS = [
    *("vp_status", "vp_error_code", "vp_error", "vp_warning", "vp_duration_s"),
    *("vp_sample_rate_hz", "vp_channels", "vp_format", "vp_n_bytes"),
]
RUN_COLUMNS = [
    *("voiceprint", "vp_status", "vp_error_code", "vp_error", "vp_warning"),
    *("vp_job_id", "vp_duration_s", "vp_source"),
]


def voice(duration_s: float, *, seed: int, rate_hz: int = RATE_HZ) -> np.ndarray:
    """A buzzing, breathing tone in syllables, another one for every seed."""
    t = np.arange(round(duration_s * rate_hz)) / rate_hz
    tones = sum(np.sin(2 * np.pi * (100 + 17 * seed) * k * t) / k for k in range(1, 9))
    noise = np.random.default_rng(seed).normal(0, 0.3, len(t))
    return (0.1 * (tones + noise) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))).astype(np.float32)


def encoded(samples: np.ndarray, rate_hz: int = RATE_HZ, **options: Any) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, **{"format": "WAV", **options})
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        kind = self.path.split("?")[0].strip("/")
        if kind == "nothing":
            self.close_connection = True
        elif kind == "endless":
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(bytes(1 << 20))
        elif kind == "loop":
            self.answer(302, b"", Location="/loop")
        elif kind == "page":
            self.answer(200, b"<!DOCTYPE html><html>", **{"Content-Type": "text/html"})
        elif kind == "good":
            self.answer(200, self.server.audio)  # type: ignore[attr-defined]
        else:
            self.answer(404, b"no such thing")

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.audio = encoded(voice(2.4, seed=90))  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@dataclass(frozen=True)
class Row:
    """A cell, the code it must get (None: accepted), and a word of its sentence's remedy."""

    cell: object
    code: str | None = None
    remedy: str = ""
    duration_s: float | None = None


def _files(folder: Path) -> dict[str, Row]:
    """Rows that are files, by a name that tells what is wrong with them."""

    def put(name: str, data: bytes) -> str:
        (folder / name).write_bytes(data)
        return str(folder / name)

    clip = encoded(voice(3.0, seed=1))
    flac = encoded(voice(3.0, seed=2), format="FLAC")
    mp3 = encoded(voice(3.0, seed=3), format="MP3", bitrate_mode="VARIABLE")
    unfinished = bytearray(clip)
    unfinished[40:44] = bytes(4)
    hours = bytearray(clip)
    hours[40:44] = struct.pack("<I", 3600 * 5 * RATE_HZ * 2)
    flac_hours = bytearray(flac)
    flac_hours[22:26] = struct.pack(">I", 3600 * 5 * RATE_HZ)
    streamed = bytearray(encoded(voice(4.0, seed=4), format="FLAC"))
    streamed[21], streamed[22:26] = streamed[21] & 0xF0, bytes(4)
    zero_hz = bytearray(clip)
    zero_hz[24:28] = bytes(4)
    nan = voice(3.0, seed=5)
    nan[777] = np.nan
    eight = np.stack([voice(3.0, seed=6)] * 8, axis=1)
    large = put("large.wav", clip)
    os.truncate(large, 101 << 20)
    return {
        "missing": Row(str(folder / "gone.wav"), "file_not_found", "correct the path"),
        "folder": Row(str(folder), "is_directory", "name a file"),
        "empty": Row(put("empty.wav", b""), "empty_file", "record, copy or download"),
        "text": Row(
            put("text.wav", b"Dear all,\nplease find attached\n" * 90), "not_audio", "export it as WAV"
        ),
        "cut WAV": Row(put("cut.wav", clip[: len(clip) // 2]), "truncated", "copy or download it again"),
        "cut FLAC": Row(put("cut.flac", flac[: len(flac) // 2]), "truncated", "copy or download it again"),
        "cut MP3": Row(put("cut.mp3", mp3[: len(mp3) // 2]), "truncated", "copy or download it again"),
        "hours WAV": Row(put("hours.wav", bytes(hours)), "truncated", "copy or download it again"),
        "hours FLAC": Row(put("hours.flac", bytes(flac_hours)), "truncated", "copy or download it again"),
        "size 0": Row(put("unfinished.wav", bytes(unfinished)), "bad_header", "save it again"),
        "open FLAC": Row(put("streamed.flac", bytes(streamed)), duration_s=4.0),
        "bare VBR": Row(put("bare.mp3", _without_xing(voice(5.0, seed=7))), duration_s=5.0),
        "31 s": Row(put("31.wav", encoded(voice(31.0, seed=8))), "too_long", "cut it, or pass fit=", 31.0),
        "30 s": Row(put("30.wav", encoded(voice(30.0, seed=9))), duration_s=30.0),
        "101 MiB": Row(large, "too_large", "store it as FLAC"),
        "silence": Row(
            put("silence.wav", encoded(np.zeros(3 * RATE_HZ))), "silent", "check the microphone", 3.0
        ),
        "NaN": Row(put("nan.wav", encoded(nan, subtype="FLOAT")), "bad_samples", "export it again", 3.0),
        "0 Hz": Row(put("0hz.wav", bytes(zero_hz)), "bad_header", "export the clip again"),
        "8 channels": Row(put("8.wav", encoded(eight)), duration_s=3.0),
        "384 kHz": Row(
            put("384.wav", encoded(voice(2.5, seed=10, rate_hz=384_000), 384_000)), duration_s=2.5
        ),
    }


def _without_xing(samples: np.ndarray) -> bytes:
    mp3 = encoded(samples, format="MP3", bitrate_mode="VARIABLE", compression_level=0.4)
    return mp3[mp3.index(mp3[:2], 4) :]


def _cells(address: str) -> dict[str, Row]:
    cell, address_ = "fill in a path", "check the address"
    return {
        "NaN cell": Row(np.nan, "empty_cell", cell),
        "None": Row(None, "empty_cell", cell),
        "blank": Row("  ", "empty_cell", cell),
        "number": Row(3.5, "unsupported_cell", "use a path"),
        "404": Row(f"{address}/gone?key=s3cr3t", "url_not_found", address_),
        "page": Row(f"{address}/page?key=s3cr3t", "url_web_page", "use the direct link"),
        "endless": Row(f"{address}/endless?key=s3cr3t", "too_large", "cut it, or store it compressed"),
        "nothing": Row(f"{address}/nothing?key=s3cr3t", "url_unreachable", address_),
        "loop": Row(f"{address}/loop?key=s3cr3t", "url_redirects", "use the direct link"),
        "good address": Row(f"{address}/good?key=s3cr3t", duration_s=2.4),
    }


@pytest.fixture(scope="module")
def rows(address: str) -> Iterator[dict[str, Row]]:
    folder = Path(tempfile.mkdtemp(prefix="voiceprint-nb-test-"))
    folder.chmod(0o755)
    bad = {**_files(folder), **_cells(address)}
    mixed: dict[str, Row] = {}
    for number, (name, row) in enumerate(bad.items()):
        mixed[name] = row
        if number % 3 == 0:
            duration_s = 2.1 + number / 100
            path = folder / f"good {number}.wav"
            path.write_bytes(encoded(voice(duration_s, seed=50 + number)))
            good: object = path if number % 2 else (voice(duration_s, seed=50 + number), RATE_HZ)
            mixed[f"good {number}"] = Row(good, duration_s=duration_s)
    yield mixed
    shutil.rmtree(folder)


@pytest.fixture
def frame(rows: dict[str, Row]) -> pd.DataFrame:
    """All rows, on an index in which every label occurs twice."""
    cells = pd.Series([row.cell for row in rows.values()], dtype=object).to_numpy()
    return pd.DataFrame(
        {"audio": cells, "name": list(rows), "n": range(len(rows))}, index=[n // 2 for n in range(len(rows))]
    )


def _assert_rows(out: pd.DataFrame, rows: dict[str, Row], *, accepted: str) -> None:
    wanted = {name: (accepted if row.code is None else "invalid", row.code) for name, row in rows.items()}
    codes = out.vp_error_code.astype(object).where(out.vp_error_code.notna(), None)
    assert dict(zip(out.name, zip(out.vp_status, codes, strict=True), strict=True)) == wanted
    for name, sentence, duration_s in zip(out.name, out.vp_error, out.vp_duration_s, strict=True):
        row = rows[name]
        if row.code is None:
            assert pd.isna(sentence), name
        else:
            assert sentence.endswith(".") and row.remedy in sentence, (name, sentence)
            assert "s3cr3t" not in sentence
        if row.duration_s is not None:
            tolerance = 0.12 if name == "bare VBR" else 1e-9
            assert duration_s == pytest.approx(row.duration_s, abs=tolerance), name


def _assert_around(out: pd.DataFrame, frame: pd.DataFrame, before: pd.DataFrame) -> None:
    pd.testing.assert_index_equal(out.index, frame.index)
    assert list(out.n) == list(range(len(frame)))
    assert list(frame.columns) == ["audio", "name", "n"]
    for now, then in zip(frame.audio, before.audio, strict=True):
        assert now is then


def test_check_says_what_is_wrong_with_every_row(frame: pd.DataFrame, rows: dict[str, Row]) -> None:
    before = frame.copy(deep=False)
    out = vp.check(frame, "audio", progress=False)
    assert list(out.columns) == ["audio", "name", "n", *CHECK_COLUMNS]
    _assert_rows(out, rows, accepted="ok")
    _assert_around(out, frame, before)
    facts = out.set_index("name")
    assert facts.vp_channels["8 channels"] == 8
    assert facts.vp_sample_rate_hz["384 kHz"] == 384_000
    assert facts.vp_format["bare VBR"] == "MP3 MPEG_LAYER_III"


@pytest.mark.parametrize("ledger", [True, False])
def test_a_run_gives_every_good_row_its_print(
    frame: pd.DataFrame, rows: dict[str, Row], tmp_path: Path, ledger: bool
) -> None:
    before = frame.copy(deep=False)
    out = vp.voiceprints(
        frame, "audio", service="local", ledger=ledger, data_dir=tmp_path if ledger else None, progress=False
    )
    assert list(out.columns) == ["audio", "name", "n", *RUN_COLUMNS]
    _assert_rows(out, rows, accepted="succeeded")
    _assert_around(out, frame, before)
    good = (out.vp_status == "succeeded").astype(bool)
    assert out["voiceprint"].notna().equals(good)
    assert out.vp_job_id.notna().equals(good)
    assert out["voiceprint"][good].nunique() == good.sum()
    cosines = vp.compare(out)
    assert cosines.shape == (good.sum(), good.sum())
    assert np.allclose(np.diag(cosines), 1.0, atol=1e-5)
    if not ledger:
        assert not list(tmp_path.iterdir())


def test_a_file_that_may_not_be_read() -> None:
    folder = Path(tempfile.mkdtemp(prefix="voiceprint-nb-test-"))
    folder.chmod(0o755)
    path = folder / "private.wav"
    path.write_bytes(encoded(voice(2.0, seed=1)))
    path.chmod(0)
    vp.check([], progress=False)  # starts the loop and imports what root alone may read
    vp.check([str(folder / "gone.wav")], progress=False)
    is_root = os.geteuid() == 0
    try:
        if is_root:
            os.seteuid(65534)
        out = vp.check([str(path)], progress=False)
    finally:
        if is_root:
            os.seteuid(0)
        path.unlink()
        folder.rmdir()
    assert out.vp_error_code.tolist() == ["not_readable"]
    assert "change its permissions" in out.vp_error[0]


# --- calls that cannot work -----------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [vp.check, vp.voiceprints, vp.submit])
@pytest.mark.parametrize(
    ("data", "options", "remedy"),
    [
        (pd.DataFrame({"a": [], "b": []}), {"column": "c"}, r"no column 'c'.*'a', 'b'"),
        (pd.DataFrame({"a": [], "b": []}), {}, r"no column 'audio'.*name the one"),
        (
            pd.DataFrame([["x", "y"]], columns=["a", "a"]),
            {"column": "a"},
            r"several columns named 'a': rename",
        ),
        (pd.DataFrame({"audio": ["x"], "vp_status": ["mine"]}), {}, r"'vp_status'.*overwrite=True.*prefix="),
        (["x.wav"], {"fit": "middle"}, r"fit='middle': use 'error', 'best' or 'head'"),
        ("x.wav", {}, r"a list of clips; for a single clip use voiceprint\(clip\)"),
        (Path("x.wav"), {}, r"voiceprint\(clip\)"),
        (b"RIFF", {}, r"voiceprint\(clip\)"),
        (7, {}, r"Pass a DataFrame"),
    ],
)
def test_wrong_calls_say_so_at_once(
    verb: Any, data: object, options: dict[str, Any], remedy: str, tmp_path: Path
) -> None:
    if verb is not vp.check:
        options = {**options, "service": "local", "data_dir": tmp_path}
    with pytest.raises(vp.UsageError, match=remedy):
        verb(data, progress=False, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", [vp.voiceprints, vp.submit])
def test_an_unknown_service_is_refused(verb: Any, tmp_path: Path) -> None:
    with pytest.raises(vp.UsageError, match="'local', 'pyannoteai' or an address"):
        verb(["x.wav"], service="lokal", data_dir=tmp_path, progress=False)


def test_a_collision_may_be_wanted() -> None:
    frame = pd.DataFrame({"audio": ["gone.wav"], "vp_status": ["mine"]})
    assert vp.check(frame, overwrite=True, progress=False).vp_status.tolist() == ["invalid"]
    out = vp.check(frame, prefix="x_", progress=False)
    assert (out.vp_status.tolist(), out.x_status.tolist()) == (["mine"], ["invalid"])


@pytest.mark.parametrize("empty", [pd.DataFrame({"audio": []}), pd.DataFrame({"audio": [], "k": []}), []])
def test_an_empty_frame_gives_an_empty_frame_with_the_columns(empty: Any) -> None:
    own = list(empty.columns) if isinstance(empty, pd.DataFrame) else ["audio"]
    assert list(vp.check(empty, progress=False).columns) == [*own, *CHECK_COLUMNS]
    out = vp.voiceprints(empty, service="local", ledger=False, progress=False)
    assert (len(out), list(out.columns)) == (0, [*own, *RUN_COLUMNS])
