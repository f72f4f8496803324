"""An audio player for a cell: embedded while it is small, linked where a link works and is no secret."""

from __future__ import annotations

import base64
import html
import io
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb import audio, containers
from voiceprint_nb.contract import MAX_BYTES
from voiceprint_nb.errors import RowError
from voiceprint_nb.intake import sources
from voiceprint_nb.notebook.shown import size
from voiceprint_nb.scratch import new_folder

EXCERPT_S = 30.0
"""Longer audio is heard up to here: no clip that a service takes is longer."""

_HEAD_BYTES = 16
_SMALL_BYTES = 20_000  # an MP3 instead would save little
_LOSSLESS = ("audio/wav", "audio/flac")
_TYPES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (0, b"ID3", "audio/mpeg"),
    (4, b"ftyp", "audio/mp4"),
    (0, b"\x1aE\xdf\xa3", "audio/webm"),
    (0, b"\xff\xf1", "audio/aac"),
    (0, b"\xff\xf9", "audio/aac"),
)


@dataclass(frozen=True)
class Player:
    """What a cell of a table offers to hear.

    Attributes
    ----------
    src : str or None
        A ``data:`` address with the audio in it, or a link; None where there is nothing to play.
    note : str
        What is different from the file, or why there is no player; may be empty.
    """

    src: str | None = field(default=None, repr=False)
    note: str = ""

    def as_html(self, name: str) -> str:
        """The player, named for screen readers; nothing is loaded from elsewhere before it is pressed."""
        note = f'<div class="vp-note">{html.escape(self.note)}</div>' if self.note else ""
        if self.src is None:
            return note
        preload = "metadata" if self.src.startswith("data:") else "none"
        return (
            f'<audio controls="controls" preload="{preload}" aria-label="{html.escape(name)}" '
            f'src="{html.escape(self.src)}"></audio>{note}'
        )


class Shelf:
    """Makes players, and keeps count of the bytes that they embed.

    MP3, Ogg, M4A, AAC and WebM, which browsers play, are embedded as they are when they are small, and so
    are very short WAV (8 or 16 bits) and FLAC. Of everything else the first `EXCERPT_S` seconds become an MP3
    of 16 kHz, mono, about 3 kB a second, which every browser plays: it says who speaks and what is wrong.

    Parameters
    ----------
    bases : sequence of Path
        Folders for relative paths.
    embed_bytes : int
        Largest piece of audio that is embedded; 0 embeds nothing.
    total_bytes : int
        So much is embedded in all.
    here : Path, optional
        Folder of the notebook; links to files below it work in Jupyter and in converted notebooks.
    """

    def __init__(
        self, bases: Sequence[Path], *, embed_bytes: int, total_bytes: int, here: Path | None = None
    ) -> None:
        self._bases = bases
        self._embed_bytes = embed_bytes
        self._left_bytes = total_bytes
        self._total_bytes = total_bytes
        self._here = here or _notebook_folder()

    def player(self, cell: object) -> Player:
        """A player for a cell of any kind; never an exception."""
        try:
            return self._of_source(sources.parse(cell, bases=self._bases), cell)
        except RowError as error:
            return Player(note="" if error.code == "empty_cell" else "nothing to play")
        except Exception as error:  # files, decoders and cells of other libraries fail in many ways
            return Player(note=f"cannot be played ({type(error).__name__})")

    def _of_source(self, source: sources.Source, cell: object) -> Player:
        match source:
            case sources.UrlSource(url):
                return _link_to(url, str(cell))
            case sources.PathSource(path):
                return self._of_path(path)
            case sources.BytesSource(data):
                return self._of_bytes(data)
            case sources.FileSource(file):
                return self._of_bytes(_whole(file))
            case sources.SamplesSource(samples, sample_rate_hz):
                return self._of_samples(samples, sample_rate_hz)
        return Player(note="kept elsewhere: no player")

    def _of_path(self, path: Path) -> Player:
        try:
            n_bytes = path.stat().st_size if path.is_file() else -1
        except OSError:
            n_bytes = -1
        if n_bytes < 0:
            return Player(note="no such file from here")
        if n_bytes <= self._embed_bytes:
            return self._of_bytes(path.read_bytes(), path)
        return self._of_file(path, n_bytes)

    def _of_bytes(self, data: bytes, path: Path | None = None) -> Player:
        kind = browser_type(data) if len(data) <= self._embed_bytes else None
        if kind is not None and (kind not in _LOSSLESS or len(data) <= _SMALL_BYTES):
            return self._embedded(kind, data, "", path)
        if path is not None:
            made = self._of_file(path, len(data))
        else:
            folder = new_folder()
            copy = folder / "audio"
            try:
                copy.write_bytes(data)
                made = self._of_file(copy, len(data), in_memory=True)
            finally:
                copy.unlink(missing_ok=True)
                folder.rmdir()
        if made.src is None and kind is not None:  # cut off or damaged: browsers play what there is
            return self._embedded(kind, data, "", path)
        return made

    def _of_file(self, path: Path, n_bytes: int, *, in_memory: bool = False) -> Player:
        """A smaller copy of a file that is too large, or of a kind that not all browsers play."""
        place = None if in_memory else path
        if self._embed_bytes <= 0 or self._left_bytes <= 0 or n_bytes > MAX_BYTES:
            return self._not_embedded(n_bytes, place)
        try:
            samples = audio.read_mono(path, max_duration_s=EXCERPT_S + 1)
        except RowError:
            return Player(note="nothing to play")
        return self._of_mono(samples, place)

    def _of_samples(self, samples: NDArray[np.float32], sample_rate_hz: int) -> Player:
        if self._embed_bytes <= 0 or self._left_bytes <= 0:
            return self._not_embedded(samples.nbytes, None)
        samples = samples[: round((EXCERPT_S + 1) * sample_rate_hz)]
        mono = samples if samples.ndim == 1 else samples.mean(axis=1, dtype=np.float32)
        return self._of_mono(audio.resample(mono, sample_rate_hz, audio.WORK_RATE_HZ), None)

    def _of_mono(self, samples: NDArray[np.float32], path: Path | None) -> Player:
        most = round(EXCERPT_S * audio.WORK_RATE_HZ)
        note = f"first {EXCERPT_S:.0f} s" if len(samples) > most else ""
        data = audio.encode_mp3(np.nan_to_num(samples[:most]), audio.WORK_RATE_HZ)
        if len(data) > self._embed_bytes:
            return self._not_embedded(len(data), path)
        return self._embedded("audio/mpeg", data, note, path)

    def _embedded(self, kind: str, data: bytes, note: str, path: Path | None) -> Player:
        if len(data) > self._left_bytes:
            return self._not_embedded(len(data), path)
        self._left_bytes -= len(data)
        return Player(f"data:{kind};base64,{base64.b64encode(data).decode()}", note)

    def _not_embedded(self, n_bytes: int, path: Path | None) -> Player:
        why = "the table is full" if 0 < n_bytes <= self._embed_bytes else f"embed_bytes={self._embed_bytes}"
        if path is not None and (link := self._relative(path)) is not None:
            return Player(link, f"linked ({size(n_bytes)})")
        return Player(note=f"not embedded: {size(n_bytes)}, {why}")

    def _relative(self, path: Path) -> str | None:
        """The link from the notebook to a file beside or below it; None for files elsewhere."""
        try:
            return quote(path.absolute().relative_to(self._here).as_posix())
        except (ValueError, OSError, UnicodeEncodeError):
            return None


def browser_type(data: bytes) -> str | None:
    """Media type of audio that browsers play as it is; None for all else."""
    head = data[:_HEAD_BYTES]
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "audio/wav" if _is_plain_wav(data) else None
    for offset, magic, kind in _TYPES:
        if head[offset : offset + len(magic)] == magic:
            return kind
    return "audio/mpeg" if containers.frame_of(head[:4]) else None


def _is_plain_wav(data: bytes) -> bool:
    """Whether the samples are 8 or 16 bit integers; not every browser plays 24 bits and floats."""
    try:
        for tag, offset, _ in containers.wav_chunks(io.BytesIO(data)):
            if tag == b"fmt ":
                code, _, _, _, _, bits = struct.unpack_from("<HHIIHH", data, offset)
                if code == 0xFFFE:
                    (code,) = struct.unpack_from("<H", data, offset + 24)
                return code == 1 and bits in (8, 16)
    except struct.error:
        pass
    return False


def _link_to(url: str, cell: str) -> Player:
    """A link is put into the page only if nothing in it can be a signature or a password."""
    parts = urlsplit(url)
    if parts.query or parts.fragment or parts.username is not None or "?" in cell:
        return Player(note="no player: a link with a query may be signed, so it is not put into the notebook")
    return Player(url, "plays from the web")


def _notebook_folder() -> Path:
    """Where links start from: the notebook's folder if the Jupyter server tells, else the current one."""
    told = Path(os.environ.get("JPY_SESSION_NAME", ""))
    return told.parent if told.is_absolute() and told.is_file() else Path.cwd()


def _whole(file: IO[bytes]) -> bytes:
    """What an open file holds, which stays where it stood."""
    place = file.tell()
    file.seek(0)
    data: Any = file.read(MAX_BYTES)
    file.seek(place)
    return bytes(data)
