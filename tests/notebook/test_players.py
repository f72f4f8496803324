"""The players of a table: of kinds that browsers play, small, and bounded."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.notebook.pages import Page, embedded, page, write
from voiceprint_nb.notebook.tables import TOTAL_BYTES


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("a.wav", {"subtype": "PCM_16"}, "audio/mpeg"),
        ("a.wav", {"subtype": "PCM_24"}, "audio/mpeg"),
        ("a.wav", {"subtype": "FLOAT"}, "audio/mpeg"),
        ("short.wav", {"subtype": "PCM_U8", "seconds": 0.5}, "audio/wav"),
        ("short.wav", {"subtype": "PCM_24", "seconds": 0.3}, "audio/mpeg"),
        ("a.aiff", {}, "audio/mpeg"),
        ("a.flac", {}, "audio/mpeg"),
        ("a.mp3", {}, "audio/mpeg"),
        ("a.ogg", {}, "audio/ogg"),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}, "audio/ogg"),
    ],
)
def test_every_player_is_of_a_kind_that_browsers_play(tmp_path, name, options, kind):
    path = write(tmp_path / name, **options)
    for cell in (path, Path(path).read_bytes()):
        ((found, data),) = embedded(page([cell]))
        assert found == kind
        heard = soundfile.info(io.BytesIO(data))
        assert heard.duration == pytest.approx(soundfile.info(path).duration, abs=0.1)


def test_audio_in_memory(noises, tmp_path):
    path = write(tmp_path / "a.flac")
    with Path(path).open("rb") as file:
        file.seek(7)
        stereo = (np.zeros((8000, 2), np.float32), 8000)
        text = page([*noises(1), file, stereo])
        assert file.tell() == 7
    assert len(embedded(text)) == 3
    assert "32,000 samples" in text


def test_damaged_files_play_as_far_as_they_go(tmp_path):
    path = Path(write(tmp_path / "a.wav"))
    path.write_bytes(path.read_bytes()[:30_000])
    ((kind, data),) = embedded(page([path]))
    assert (kind, len(data)) == ("audio/wav", 30_000)


def test_large_audio_is_cut_linked_or_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b#").mkdir()
    long = write(Path("a b#") / "long.wav", seconds=40)
    text = page([long])
    ((_, data),) = embedded(text)
    assert "first 30 s" in text
    assert soundfile.info(io.BytesIO(data)).duration == pytest.approx(30, abs=0.1)
    assert Page(page([long], embed_bytes=0)).sources == ["a%20b%23/long.wav"]
    monkeypatch.chdir("/")
    elsewhere = page([tmp_path / long], embed_bytes=50_000)
    assert Page(elsewhere).sources == [str(tmp_path / long)[1:].replace(" ", "%20").replace("#", "%23")]
    monkeypatch.chdir(tmp_path / "a b#")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    outside = page([tmp_path / long], embed_bytes=0)
    assert Page(outside).sources == []
    assert "not embedded: 1.3 MB, embed_bytes=0" in outside
    (tmp_path / "a.ipynb").touch()
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "a.ipynb"))  # as the Jupyter server sets it
    assert Page(page([tmp_path / long], embed_bytes=0)).sources == ["a%20b%23/long.wav"]
    assert "no such file from here" in page(["gone.wav"])


def test_one_table_embeds_a_bounded_number_of_bytes(tmp_path):
    path = write(tmp_path / "a.ogg", seconds=20)
    n_bytes = Path(path).stat().st_size
    assert n_bytes < 100_000
    text = page([path] * 50)
    found = embedded(text)
    assert sum(len(data) for _, data in found) <= TOTAL_BYTES
    assert len(found) == TOTAL_BYTES // n_bytes
    assert "the table is full" in text
