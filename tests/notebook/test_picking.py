"""The clips of a picker: checked, read, cut and drawn, without a widget."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
import soundfile

import voiceprint_nb as vp
from tests.notebook.recordings import RATE_HZ, SAMPLES, read, voice, write_meeting
from voiceprint_nb import audio
from voiceprint_nb.notebook.listening import held
from voiceprint_nb.notebook.picked import MOST_S
from voiceprint_nb.notebook.picking import Picks
from voiceprint_nb.notebook.waveform import Outline, as_svg, clock


@pytest.fixture(scope="module")
def meeting(tmp_path_factory):
    return write_meeting(tmp_path_factory.mktemp("long") / "meeting.wav")


# --- clips ----------------------------------------------------------------------------------------------


def test_the_manifest(manifest):
    picks = Picks(manifest, "audio")
    assert picks.counts() == {"checking": 24}
    for item, outcome in zip(picks.items, picks.check(picks.items), strict=True):
        item.outcome = outcome
    assert picks.counts() == {"ok": 20, "long": 1, "bad": 3}
    labels = "\n".join(item.label for item in picks.items)
    assert "\u2713 ada-1.wav \u00b7 ok, 0:03.7" in labels
    assert "! ben-long.opus \u00b7 too long, 0:31.0" in labels
    assert "\u2717 not-audio.wav \u00b7 not audio" in labels
    checked = vp.check(manifest, "audio", progress=False)
    for item, said in zip(picks.items, checked.vp_error, strict=True):
        assert item.state != "bad" or item.sentence == said


def test_speech_is_found_around_the_silent_middle(meeting):
    outline = read(meeting).outline
    runs = outline.speech((0.0, 100.0), 20)
    assert len(runs) == 2
    assert runs[0] == (pytest.approx(0, abs=0.7), pytest.approx(20, abs=0.7))
    assert runs[1] == (pytest.approx(60, abs=0.7), pytest.approx(100, abs=0.7))
    assert outline.speech_s((22.0, 58.0)) == 0.0
    assert outline.speech_s((60.0, 100.0)) > 20.0


def test_a_long_clip_begins_with_its_best_window_as_a_proposal(meeting):
    item = read(meeting)
    assert (item.state, item.window) == ("long", None)
    assert item.shown[0] >= 59.0 and item.shown[1] - item.shown[0] == MOST_S
    assert item.used() is item.cell
    item.choose_best()
    assert (item.state, item.window) == ("cut", item.shown)
    samples, rate_hz = soundfile.read(io.BytesIO(item.used()), dtype="float32")
    start = round(item.window[0] * RATE_HZ)
    assert (rate_hz, len(samples)) == (RATE_HZ, 30 * RATE_HZ)
    assert np.abs(samples - audio.read_mono(meeting)[start : start + len(samples)]).max() < 1e-3
    item.use_whole()
    assert item.used() is item.cell


@pytest.mark.parametrize(
    ("moves", "window"),
    [
        ([{"start_s": 10.0}], (10.0, 40.0)),  # the end comes along
        ([{"start_s": 10.0}, {"start_s": 12.34}], (12.3, 40.0)),  # and stays where the length allows it
        ([{"start_s": 10.0}, {"start_s": 9.0}], (9.0, 39.0)),
        ([{"start_s": 99.9}], (99.0, 100.0)),
        ([{"start_s": -5.0}], (0.0, 30.0)),
        ([{"end_s": 45.0}], (15.0, 45.0)),
        ([{"end_s": 45.0}, {"end_s": 20.0}], (15.0, 20.0)),
        ([{"end_s": 45.0}, {"end_s": 20.0}, {"end_s": 80.0}], (75.0, 80.0)),
        ([{"end_s": 0.0}], (0.0, 1.0)),
        ([{"end_s": 1e9}], (70.0, 100.0)),
        ([{"start_s": float("nan")}, {"end_s": float("inf")}], None),
    ],
)
def test_edges_move_within_the_limit(meeting, moves, window):
    item = read(meeting)
    if "end_s" in moves[0]:
        item.outline = None  # the proposal is the beginning
    for move in moves:
        item.move(**move)
    if window is None:
        assert item.window is None or np.isfinite(item.window).all()
        return
    assert item.window == pytest.approx(window)


def test_a_short_clip_can_be_trimmed_and_taken_whole_again():
    item = read(str(SAMPLES / "ada-1.wav"))
    item.move(start_s=1.0)
    assert item.window == (1.0, item.duration_s)
    item.move(end_s=2.5)
    assert item.window == (1.0, 2.5)
    assert "under 2 s are unreliable" in item.sentence
    item.choose_best()
    assert (item.window, item.state) == (None, "ok")
    item.move(end_s=item.duration_s + 1)
    assert item.window is None


def test_a_silent_window_is_told(meeting):
    item = read(meeting)
    item.move(start_s=25.0)
    data, is_heard = item.recording.cut(item.window)
    item.keep(item.window, data, is_heard=is_heard)
    assert item.sentence == "Nothing can be heard in this window: choose another."
    item.move(start_s=61.0)
    assert item.state == "cut"


@pytest.mark.parametrize("suffix", ["mp3", "flac", "ogg", "wav"])
def test_windows_of_every_format_are_what_was_heard(tmp_path, suffix):
    samples = np.concatenate([voice("ada", 40), voice("ben", 50)])
    path = tmp_path / f"long.{suffix}"
    soundfile.write(path, samples, RATE_HZ)
    item = read(path)
    item.move(start_s=50.0)
    cut, _ = soundfile.read(io.BytesIO(item.used()), dtype="float32")
    start_s, end_s = item.window
    assert start_s == 50.0
    wanted = audio.read_mono(path, start_s=start_s, max_duration_s=end_s - start_s)
    assert np.corrcoef(cut, wanted)[0, 1] > 0.999


# --- cells -------------------------------------------------------------------------------------------------


def test_a_pipe_is_read_once():
    class Pipe(io.BytesIO):
        def seek(self, *_):
            raise io.UnsupportedOperation

        tell = seek

    assert held(Pipe(b"abc")) == (b"abc", b"abc")
    broken = Pipe(b"")
    broken.close()
    assert held(broken) == (broken, broken)
    text = io.StringIO("abc")
    assert held(text) == (text, text)


# --- long recordings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3"])
def test_memory_does_not_hold_the_recording(tmp_path, suffix):
    rate_hz, minutes = (44_100, 2) if suffix == "mp3" else (48_000, 10)
    path = tmp_path / f"long.{suffix}"
    minute = np.random.default_rng(0).normal(0, 0.05, 60 * rate_hz).astype(np.float32)
    with soundfile.SoundFile(path, "w", rate_hz, 1) as file:
        for _ in range(minutes):
            file.write(minute)
    picks = Picks([path])
    (item,) = picks.items
    (item.outcome,) = picks.check([item])
    shares = []
    tracemalloc.start()
    try:
        item.outline = item.recording.outline(item.outcome.facts, tick=shares.append)
        item.choose_best()
        item.used()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    decoded = 4 * rate_hz * 60 * minutes
    assert peak < decoded / 4 and peak < 24 * 2**20
    assert shares[-1] == pytest.approx(1.0, abs=0.01)
    assert item.outline.lows.nbytes + item.outline.highs.nbytes + item.outline.active.nbytes < 100_000
    picks.close()


# --- pictures -------------------------------------------------------------------------------------------


def test_pictures_are_small_and_tell_themselves(meeting):
    outline = read(meeting).outline
    picture = as_svg(outline, span=(0.0, 100.0), window=(60.0, 90.0), title='a "title"')
    assert len(picture) < 30_000
    assert 'role="img" aria-label="a &quot;title&quot;"' in picture
    assert "stroke-dasharray" not in picture
    assert "stroke-dasharray" in as_svg(outline, span=(0.0, 9.0), window=(1.0, 9.0), title="", chosen=False)
    assert ">1:00</text>" in picture


@pytest.mark.parametrize("n_frames", [0, 1, 2, 359, 361])
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1e30])
def test_odd_recordings_can_be_drawn(n_frames, value):
    extremes = np.full(n_frames, value, np.float32)
    outline = Outline.of(audio.Envelope(np.full(n_frames, value), -extremes, extremes, 0.02))
    picture = as_svg(outline, span=(0.0, n_frames * 0.02), window=(0.0, 5.0), title="")
    assert "nan" not in picture and "inf" not in picture
    assert 0.0 <= outline.best_start_s(30.0) <= n_frames * 0.02


def test_clock():
    assert [clock(at_s) for at_s in (0, 59.96, 3599.99)] == ["0:00.0", "1:00.0", "1:00:00.0"]
