"""The picker: its clips without widgets, its widgets without a browser, and the frame that comes out."""

from __future__ import annotations

import asyncio
import io
import os
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import voiceprint_nb as vp
from voiceprint_nb import audio
from voiceprint_nb.errors import UsageError
from voiceprint_nb.notebook.listening import held
from voiceprint_nb.notebook.picked import MOST_S, Item
from voiceprint_nb.notebook.picking import Picks, audio_files
from voiceprint_nb.notebook.waveform import Outline, as_svg, clock

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
RATE_HZ = 16_000


def voice(name: str, duration_s: float) -> np.ndarray:
    clips = [audio.read_mono(path) for path in sorted(SAMPLES.glob(f"{name}-[1-4].*"))]
    return np.resize(np.concatenate(clips), round(duration_s * RATE_HZ))


@pytest.fixture(scope="module")
def meeting(tmp_path_factory):
    """Two voices, 40 s of silence between them: 20 s, then from 60 s to 100 s."""
    path = tmp_path_factory.mktemp("long") / "meeting.wav"
    silence = np.zeros(40 * RATE_HZ, np.float32)
    samples = np.concatenate([voice("ada", 20), silence, voice("carl", 40)])
    soundfile.write(path, samples, RATE_HZ, subtype="PCM_16")
    return path


@pytest.fixture
def picker_of():
    """Makes pickers that are closed at the end."""
    made = []

    def make(*args, **options):
        made.append(vp.Picker(*args, **options))
        return made[-1]

    yield make
    for picker in made:
        picker.close()


@pytest.fixture
def read():
    """Makes a clip that was checked and read."""

    def make(cell) -> Item:
        picks = Picks([cell])
        (item,) = picks.items
        (item.outcome,) = picks.check([item])
        if item.is_cuttable:
            item.outline = item.recording.outline(item.outcome.facts)
        return item

    return make


def view_of(picker):
    return picker._view


def upload(picker, *files):
    """What the front end sends when files were chosen."""
    sent = [
        {"name": name, "type": "", "size": len(data), "last_modified": 0, "content": memoryview(data)}
        for name, data in files
    ]
    view_of(picker).upload.set_state({"value": sent})


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


def test_speech_is_found_around_the_silent_middle(read, meeting):
    outline = read(meeting).outline
    runs = outline.speech((0.0, 100.0), 20)
    assert len(runs) == 2
    assert runs[0] == (pytest.approx(0, abs=0.7), pytest.approx(20, abs=0.7))
    assert runs[1] == (pytest.approx(60, abs=0.7), pytest.approx(100, abs=0.7))
    assert outline.speech_s((22.0, 58.0)) == 0.0
    assert outline.speech_s((60.0, 100.0)) > 20.0


def test_a_long_clip_begins_with_its_best_window_as_a_proposal(read, meeting):
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
def test_edges_move_within_the_limit(read, meeting, moves, window):
    item = read(meeting)
    if "end_s" in moves[0]:
        item.outline = None  # the proposal is the beginning
    for move in moves:
        item.move(**move)
    if window is None:
        assert item.window is None or np.isfinite(item.window).all()
        return
    assert item.window == pytest.approx(window)


def test_a_short_clip_can_be_trimmed_and_taken_whole_again(read):
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


def test_a_silent_window_is_told(read, meeting):
    item = read(meeting)
    item.move(start_s=25.0)
    data, is_heard = item.recording.cut(item.window)
    item.keep(item.window, data, is_heard=is_heard)
    assert item.sentence == "Nothing can be heard in this window: choose another."
    item.move(start_s=61.0)
    assert item.state == "cut"


@pytest.mark.parametrize("suffix", ["mp3", "flac", "ogg", "wav"])
def test_windows_of_every_format_are_what_was_heard(read, tmp_path, suffix):
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


# --- cells of every kind --------------------------------------------------------------------------------


def test_cells_in_memory_stay_as_they_were(noises, picker_of):
    data = (SAMPLES / "ada-1.wav").read_bytes()
    file = io.BytesIO(b"before" + data)
    file.seek(6)
    pair = noises(1)[0]
    cells = [data, file, pair, None, 3.5, "media://key", str(SAMPLES / "ada-2.flac")]
    picker = picker_of(cells)
    assert [item.state for item in picker._picks.items] == ["ok", "ok", "ok", "bad", "bad", "ok", "ok"]
    frame = picker.frame
    assert frame.audio[0] is data
    assert frame.audio[1] is file and file.tell() == 6
    assert frame.audio[2] is pair
    assert frame.start_s.isna().all() and frame.end_s.isna().all()


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


def test_frames_keep_columns_index_and_order(manifest, picker_of):
    frame = manifest.set_index(pd.Index([7] * 12 + list(range(12)))).iloc[18:22]
    frame.attrs["mine"] = 1
    picker = picker_of(frame, "audio")
    view_of(picker).list.value = 2
    view_of(picker).best.click()
    view_of(picker).list.value = 0
    view_of(picker).remove.click()
    out = picker.frame
    assert out.index.tolist() == frame.index.tolist()[1:]
    assert out.columns.tolist() == ["audio", "speaker", "note", "start_s", "end_s"]
    assert out.attrs == {"mine": 1}
    assert [type(cell) for cell in out.audio] == [str, bytes, str]
    assert out.end_s.iloc[1] - out.start_s.iloc[1] == MOST_S
    assert frame.columns.tolist() == ["audio", "speaker", "note"]
    view_of(picker).remove.click()
    assert len(picker.frame) == 4


@pytest.mark.parametrize(
    ("index", "labels"),
    [
        ([3, 9], [3, 9, 10]),
        (["a", "b"], ["a", "b", "ada-1.wav"]),
        (pd.MultiIndex.from_tuples([("x", 1), ("y", 2)]), [("x", 1), ("y", 2), ("ada-1.wav", None)]),
    ],
)
def test_added_rows_get_labels(picker_of, index, labels):
    given = [str(SAMPLES / name) for name in ("ada-1.wav", "ada-2.flac")]
    picker = picker_of(pd.DataFrame({"clip": given, "age": [31, 44]}, index=index), "clip")
    data = (SAMPLES / "ada-1.wav").read_bytes()
    upload(picker, ("ada-1.wav", data))
    out = picker.frame
    found = [tuple(None if pd.isna(x) else x for x in n) if isinstance(n, tuple) else n for n in out.index]
    assert found == labels
    assert out["clip"].tolist() == [*given, data]
    assert out["age"].tolist()[:2] == [31, 44]
    assert out["name"].tolist() == ["ada-1.wav", "ada-2.flac", "ada-1.wav"]


def test_taken_names_are_refused_or_renamed(picker_of):
    frame = pd.DataFrame({"audio": [str(SAMPLES / "ada-1.wav")], "start_s": [0.5]})
    with pytest.raises(UsageError, match="'start_s'"):
        vp.Picker(frame)
    assert picker_of(frame, prefix="vp_").frame.columns.tolist() == [
        "audio",
        "start_s",
        "vp_start_s",
        "vp_end_s",
    ]
    assert picker_of(frame, overwrite=True).frame.start_s.isna().all()


@pytest.mark.parametrize("data", [None, [], pd.DataFrame({"audio": []})])
def test_empty_pickers(picker_of, data):
    picker = picker_of(data)
    assert picker.frame.columns.tolist() == ["audio", "start_s", "end_s"]
    assert len(picker.frame) == 0
    assert "upload files, or add a folder" in view_of(picker).head.value
    for button in ("best", "whole", "remove"):
        getattr(view_of(picker), button).click()
    upload(picker, ("ada-1.wav", (SAMPLES / "ada-1.wav").read_bytes()))
    assert picker.frame["name"].tolist() == ["ada-1.wav"]


def test_folders(picker_of, tmp_path):
    (tmp_path / "b" / ".hidden").mkdir(parents=True)
    for name in ("b/2.FLAC", "b/1.flac", "a.flac", "b/.hidden/x.flac", ".y.flac", "notes.txt"):
        (tmp_path / name).write_bytes((SAMPLES / "ada-2.flac").read_bytes())
    names = ["a.flac", "1.flac", "2.FLAC"]
    assert [path.name for path in audio_files(tmp_path)] == names
    picker = picker_of(tmp_path)
    assert picker.frame["name"].tolist() == names
    view = view_of(picker)
    view.folder.value = f" {tmp_path} "
    view.add.click()
    assert "0 clips added" in view.note.value
    for wrong in ("", "no such", "\0", "x" * 5000, "~nobody-here/x", str(tmp_path / "b" / ".hidden")):
        view.folder.value = wrong
        view.add.click()
        assert "There is no folder" in view.note.value or "1 clip added" in view.note.value
    single = picker_of(str(SAMPLES / "ada-1.wav"))
    assert [item.state for item in single._picks.items] == ["ok"]
    assert [item.state for item in picker_of("no-such")._picks.items] == ["bad"]


# --- widgets --------------------------------------------------------------------------------------------


def test_clicks_and_sliders(picker_of, meeting):
    picker = picker_of([str(meeting), str(SAMPLES / "ada-1.wav"), str(SAMPLES / "empty.wav")])
    view = view_of(picker)
    assert "too long" in view.status.value and "proposed" in view.picture.value
    assert view.player.value.startswith("<audio controls")
    assert (view.start.max, view.end.max) == (100.0, 100.0)
    view.start_slider.value = 62.0
    assert (view.start.value, view.end.value, view.end_slider.value) == (62.0, 92.0, 92.0)
    view.end.value = 70.0
    assert "1:02.0 to 1:10.0 is used, 8.0 s." in view.status.value
    played = view.player.value
    view.best.click()
    assert view.end.value - view.start.value == pytest.approx(MOST_S)
    assert view.player.value != played
    view.filter.value = "ok"
    assert [place for _, place in view.list.options] == [0, 1]  # the current clip stays
    view.list.value = 1
    assert "whole clip" in view.picture.value
    assert [place for _, place in view.list.options] == [1]
    view.filter.value = ""
    view.list.value = 2
    assert "has no bytes" in view.status.value
    assert (view.picture.value, view.player.value) == ("", "")
    assert view.start.disabled and view.best.disabled and not view.remove.disabled
    view.list.value = 0
    view.whole.click()
    assert view.whole.disabled and picker.frame.start_s.isna().all()


def test_the_frame_is_what_voiceprints_takes(picker_of, meeting):
    picker = picker_of(pd.DataFrame({"audio": [str(meeting), str(SAMPLES / "carl-1.wav")]}))
    view_of(picker).start.value = 65.0
    upload(picker, ("ada-2.flac", (SAMPLES / "ada-2.flac").read_bytes()), ("bad.wav", b"no audio"))
    assert "not audio" in view_of(picker).list.options[3][0]
    out = vp.voiceprints(picker.frame, "audio", service="local", ledger=False, progress=False)
    assert out.vp_status.tolist() == ["succeeded"] * 3 + ["invalid"]
    assert out.vp_duration_s.tolist()[:2] == [30.0, pytest.approx(3.0, abs=0.1)]
    assert out.start_s.tolist()[0] == 65.0
    cosines = vp.compare(out).to_numpy()
    assert cosines[0, 1] > 0.8 > cosines[0, 2]  # the window holds the second voice


def test_uploads_are_kept_once_and_can_come_again(picker_of):
    picker = picker_of()
    data = (SAMPLES / "ada-1.wav").read_bytes()
    for n in range(3):
        upload(picker, ("same.wav", data))
        assert view_of(picker).upload.value == ()
        assert view_of(picker).list.value == n
    assert len(picker.frame) == 3


EVIL = "<script>alert('x')</script>\" onload=x &\n\u202egnp\udcff.wav"


def test_hostile_names_are_text(picker_of, tmp_path, meeting):
    upload(
        picker := picker_of([EVIL, f"https://host.invalid/{EVIL}?sig=secret"]), (EVIL, meeting.read_bytes())
    )
    view = view_of(picker)
    for place in range(3):
        view.list.value = place
        for widget in (view.head, view.status, view.picture, view.note, view.player):
            assert "<script" not in widget.value and "secret" not in widget.value
            assert "\n" not in widget.value and "\u202e" not in widget.value
            widget.value.encode()
    assert 'aria-label="&lt;script&gt;' in view.picture.value
    "".join(label for label, _ in view.list.options).encode()
    name = os.fsencode(str(tmp_path)) + b"/\xff<b>.wav"
    Path(os.fsdecode(name)).write_bytes((SAMPLES / "ada-1.wav").read_bytes())
    (item,) = picker_of(tmp_path)._picks.items
    assert (item.name, item.state) == ("\ufffd<b>.wav", "ok")


def test_files_that_go_or_break_are_told(picker_of, tmp_path, meeting):
    path = tmp_path / "goes.wav"
    path.write_bytes(meeting.read_bytes())
    picker = picker_of([str(path)])
    view = view_of(picker)
    view.best.click()
    path.unlink()
    view.start.value = 60.0
    assert "cannot be opened any more" in view.status.value
    out = picker.frame
    assert out.audio.tolist() == [str(path)] and out.start_s.isna().all()
    noisy = tmp_path / "nan.wav"
    samples = voice("ada", 40)
    samples[20 * RATE_HZ] = np.nan
    soundfile.write(noisy, samples, RATE_HZ, subtype="FLOAT")
    view = view_of(picker_of([str(noisy)]))
    view.end.value = 35.0
    assert "NaN" in view.status.value


def test_closing_leaves_nothing(meeting, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    picker = vp.Picker([meeting.read_bytes()])
    assert list(tmp_path.iterdir())
    bundle = picker._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == view_of(picker).root.model_id
    assert "1 too long" in bundle["text/plain"] and "shows no widgets" in bundle["text/plain"]
    parts = [view_of(picker).list, view_of(picker).list.layout, view_of(picker).best.style]
    picker.close()
    picker.close()
    assert all(part.comm is None for part in parts)
    assert list(picker._repr_mimebundle_()) == ["text/plain"]
    assert list(tmp_path.iterdir()) == []
    assert len(picker.frame) == 1


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


async def until(is_so):
    """Let the loop turn until something is so."""
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110 - what waits for a user sets no event
            await asyncio.sleep(0)


def test_the_loop_goes_on_while_a_recording_is_read(meeting):
    """In a running loop, as a kernel has it, work is done beside it and results come back to its thread."""

    async def use() -> None:
        picker = vp.Picker([str(meeting), *[str(SAMPLES / "ada-1.wav")] * 70])
        items, view = picker._picks.items, view_of(picker)
        assert items[0].state == items[70].state == "checking"
        drawn = []
        view.picture.observe(lambda _: drawn.append(threading.current_thread()), names="value")
        await until(lambda: "<svg" in view.picture.value and "<audio" in view.player.value)
        await until(lambda: all(item.outcome is not None for item in items))
        assert set(drawn) == {threading.main_thread()}
        assert "70 ok, 1 too long" in repr(picker)
        view.best.click()
        await until(lambda: items[0]._cut is not None)
        picker.close()

    asyncio.run(use())


def test_leaving_a_recording_ends_its_reading(meeting):
    async def use() -> None:
        picker = vp.Picker([str(meeting), str(SAMPLES / "ada-1.wav")])
        first, view = picker._picks.items[0], view_of(picker)
        await until(lambda: first.outcome is not None)
        view.list.value = 1
        await until(lambda: "ada-1.wav" in view.picture.value)
        assert first.trouble is None
        view.list.value = 0
        await until(lambda: "meeting.wav" in view.picture.value)
        picker.close()

    asyncio.run(use())


# --- pictures -------------------------------------------------------------------------------------------


def test_pictures_are_small_and_tell_themselves(read, meeting):
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
