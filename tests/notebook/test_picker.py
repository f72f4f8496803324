"""The picker: its widgets without a browser, and the frame that comes out."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import voiceprint_nb as vp
from tests.notebook.recordings import RATE_HZ, SAMPLES, voice, write_meeting
from voiceprint_nb.errors import UsageError
from voiceprint_nb.notebook.picked import MOST_S


@pytest.fixture(scope="module")
def meeting(tmp_path_factory):
    return write_meeting(tmp_path_factory.mktemp("long") / "meeting.wav")


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


def view_of(picker):
    return picker._view


def upload(picker, *files):
    """What the front end sends when files were chosen."""
    sent = [
        {"name": name, "type": "", "size": len(data), "last_modified": 0, "content": memoryview(data)}
        for name, data in files
    ]
    view_of(picker).upload.set_state({"value": sent})


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
    for button in ("best", "whole", "remove", "previous", "next"):
        getattr(view_of(picker), button).click()
    upload(picker, ("ada-1.wav", (SAMPLES / "ada-1.wav").read_bytes()))
    assert picker.frame["name"].tolist() == ["ada-1.wav"]


def test_folders(picker_of, tmp_path):
    (tmp_path / "b" / ".hidden").mkdir(parents=True)
    for name in ("b/2.FLAC", "b/1.flac", "a.flac", "b/.hidden/x.flac", ".y.flac", "notes.txt"):
        (tmp_path / name).write_bytes((SAMPLES / "ada-2.flac").read_bytes())
    names = ["a.flac", "1.flac", "2.FLAC"]
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


def test_steps_through_the_list_as_it_is_filtered(picker_of):
    picker = picker_of([str(SAMPLES / name) for name in ("ada-1.wav", "empty.wav", "ada-2.flac")])
    view = view_of(picker)
    view.filter.value = "ok"
    for button, place in ((view.next, 2), (view.next, 2), (view.previous, 0), (view.previous, 0)):
        button.click()
        assert view.list.value == place
