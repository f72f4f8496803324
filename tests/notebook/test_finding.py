"""`vp.find_audio`: from folder trees of every kind to a frame."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

import voiceprint_nb as vp
from voiceprint_nb.errors import UsageError

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"


def tree(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def names(frame, root):
    return [Path(path).relative_to(root).as_posix() for path in frame.audio]


def test_the_samples_are_found_as_the_manifest_lists_them():
    found = vp.find_audio(SAMPLES, speaker_from="name")
    manifest = pd.read_csv(SAMPLES / "manifest.csv")
    assert set(names(found, SAMPLES)) == {Path(path).name for path in manifest.audio}
    assert set(found.speaker) >= set(manifest.speaker.dropna())
    out = vp.check(found[:3], progress=False)
    assert out.vp_status.tolist() == ["ok"] * 3


def test_natural_order_and_suffixes_in_any_case(tmp_path):
    tree(
        tmp_path,
        "b/take10.wav",
        "b/take9.WAV",
        "a10/x.Flac",
        "a9/x.mp3",
        "B/take1.opus",
        "c.m4a",
        "notes.txt",
    )
    assert names(vp.find_audio(tmp_path), tmp_path) == [
        "a9/x.mp3", "a10/x.Flac", "B/take1.opus", "b/take9.WAV", "b/take10.wav", "c.m4a",
    ]  # fmt: skip
    assert list(vp.find_audio(tmp_path).columns) == ["audio"]


def test_hidden_files_and_folders_are_left_out(tmp_path):
    tree(tmp_path, "a.wav", ".b.wav", "._a.wav", ".cache/c.wav", "d/.e/f.wav")
    assert names(vp.find_audio(tmp_path), tmp_path) == ["a.wav"]


def test_what_is_taken_can_be_narrowed_and_widened(tmp_path):
    tree(tmp_path, "a_mic1.wav", "a_mic2.wav", "b/c_mic1.flac", "d.raw")
    assert names(vp.find_audio(tmp_path, pattern="*_mic1.*"), tmp_path) == ["a_mic1.wav", "b/c_mic1.flac"]
    assert names(vp.find_audio(tmp_path, recursive=False), tmp_path) == ["a_mic1.wav", "a_mic2.wav"]
    for raw in (["raw"], [".RAW"], "*.raw"):
        assert names(vp.find_audio(tmp_path, suffixes=raw), tmp_path) == ["d.raw"]


@pytest.mark.parametrize(
    ("speaker_from", "speakers"),
    [
        ("parent", ["ann", "ann", "top"]),
        ("name", ["01", "anna", "x"]),
        (re.compile(r"^(\w+)/"), ["ann", "ann", None]),
        (re.compile(r"[a-z]+"), ["ann", "ann", "x"]),
        (lambda path: path.stem.upper(), ["01 HELLO", "ANNA-2", "X.Y"]),
        (lambda path: None, [None, None, None]),
    ],
)
def test_speakers(tmp_path, speaker_from, speakers):
    root = tree(tmp_path / "top", "ann/01 hello.wav", "ann/anna-2.wav", "x.y.wav")
    found = vp.find_audio(root, speaker_from=speaker_from).speaker
    assert [None if pd.isna(name) else name for name in found] == speakers


def test_relative_folders_stay_relative(tmp_path, monkeypatch):
    tree(tmp_path, "in/a.wav")
    monkeypatch.chdir(tmp_path / "in")
    assert vp.find_audio(".", speaker_from="parent").to_numpy().tolist() == [["a.wav", "in"]]
    monkeypatch.chdir(tmp_path)
    assert vp.find_audio("in").audio.tolist() == [os.path.join("in", "a.wav")]  # noqa: PTH118 - as text


def test_links_are_followed_once(tmp_path):
    root = tree(tmp_path / "root", "a/x.wav")
    tree(tmp_path, "elsewhere/y.wav")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "self").symlink_to("self")
    (root / "other").symlink_to(tmp_path / "elsewhere")
    (root / "gone.wav").symlink_to(tmp_path / "nothing")
    (root / "again.wav").symlink_to(root / "a" / "x.wav")
    assert names(vp.find_audio(root), root) == ["a/x.wav", "again.wav", "gone.wav", "other/y.wav"]


def test_pipes_are_no_audio(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(UsageError, match="There is no audio"):
        vp.find_audio(tmp_path)


def test_unreadable_folders_are_named(tmp_path):
    root = tree(tmp_path, "a.wav", "closed/b.wav")
    (root / "closed").chmod(0)
    with as_nobody(tmp_path), pytest.warns(UserWarning, match=r"cannot be read: '.*closed'\.$"):
        found = vp.find_audio(root)
    with as_nobody(tmp_path), pytest.raises(UsageError, match=r"no audio in .*Without what is in .*closed"):
        vp.find_audio(root, pattern="b*")
    (root / "closed").chmod(0o700)
    assert names(found, root) == ["a.wav"]


@contextmanager
def as_nobody(place):
    """Without the rights of root, which reads every folder."""
    if os.geteuid() != 0:
        yield
        return
    closed = [folder for folder in (place, *place.parents) if ~folder.stat().st_mode & 0o055]
    modes = [folder.stat().st_mode for folder in closed]
    for folder, mode in zip(closed, modes, strict=True):
        folder.chmod(mode | 0o055)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for folder, mode in zip(closed, modes, strict=True):
            folder.chmod(mode)


def test_nothing_found_says_what_was_looked_for(tmp_path):
    tree(tmp_path, "notes.txt", "a/b.wav")
    with pytest.raises(
        UsageError, match=r"no audio in .* and the folders below it: looked for files with \.raw"
    ):
        vp.find_audio(tmp_path, suffixes=["raw"])
    with pytest.raises(UsageError, match=r"recursive=True looks below\): .* known endings such as \.wav"):
        vp.find_audio(tmp_path, recursive=False)
    with pytest.raises(UsageError, match=r"whose name fits 'z\*'"):
        vp.find_audio(tmp_path, pattern="z*")


def test_calls_that_cannot_work(tmp_path):
    with pytest.raises(UsageError, match="is not there"):
        vp.find_audio(tmp_path / "no")
    tree(tmp_path, "a.wav")
    with pytest.raises(UsageError, match="is a file"):
        vp.find_audio(tmp_path / "a.wav")
    with pytest.raises(UsageError, match="Unknown speaker_from='folder'"):
        vp.find_audio(tmp_path, speaker_from="folder")


def test_names_that_are_no_text_survive(tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9\x1b.wav"
    try:
        Path(os.fsdecode(name)).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (path,) = vp.find_audio(tmp_path, speaker_from="name").audio
    assert os.fsencode(path) == name
