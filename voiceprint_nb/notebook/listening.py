"""A cell's audio, to be drawn and cut: as a file that stretches are read from, whatever the cell holds."""

from __future__ import annotations

import contextlib
import shutil
import threading
import uuid
import weakref
from collections.abc import Callable
from pathlib import Path

from voiceprint_nb import audio, contract, fetching, scratch
from voiceprint_nb.batch.bridge import loop_thread
from voiceprint_nb.errors import RowError
from voiceprint_nb.intake import clips, cloud, looking, shares, sources
from voiceprint_nb.notebook.waveform import Outline, Window

_QUICK_FORMATS = {"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG"}
_COPIED_S = (60.0, 6 * 3600.0)  # shorter ones are decoded at once; longer ones would fill the disk

Tick = Callable[[float], None]


class Workroom:
    """A private folder for copies, made on first use and removed by `close` or with its owner.

    Parameters
    ----------
    bases : tuple of Path
        Folders for relative paths.
    sign : callable, optional
        As for `voiceprint_nb.check`.
    """

    def __init__(self, bases: tuple[Path, ...], sign: Callable[[str], str] | None = None) -> None:
        self.bases = bases
        self.sign = cloud.Signer(sign)
        self._folder: Path | None = None
        self._lock = threading.Lock()

    def new_path(self) -> Path:
        """Where a copy may be written."""
        with self._lock:
            if self._folder is None:
                self._folder = scratch.new_folder()
                self._removed = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            return self._folder / uuid.uuid4().hex

    def close(self) -> None:
        """Remove the folder; what needs it again makes a new one."""
        with self._lock:
            if self._folder is not None:
                self._removed()
                self._folder = None


class Recording:
    """The audio of one cell; its methods take a while and may run in threads.

    Parameters
    ----------
    cell : object
        As in a frame; an open file is given as its bytes.
    room : Workroom
        For copies.
    """

    def __init__(self, cell: object, room: Workroom) -> None:
        self._cell = cell
        self._room = room
        self._path: Path | None = None
        self._lock = threading.Lock()  # two threads make no two copies

    def outline(self, facts: audio.AudioFacts, *, tick: Tick | None = None) -> Outline:
        """Read the whole recording, block by block.

        Memory grows by 16 bytes for each 20 ms while this goes on, 6 MB for two hours. A long MP3, and a long
        recording that only ffmpeg reads, is first copied as WAV to the private folder, 115 MB an hour, for no
        stretch of it could be read without decoding all before.

        Parameters
        ----------
        facts : AudioFacts
            From its check.
        tick : callable, optional
            Hears the share that is read, from 0 to 1; what it raises ends the reading.

        Raises
        ------
        RowError
            The recording cannot be had or read.
        """
        path = self._found()
        share = (lambda read_s: tick(min(1.0, read_s / facts.duration_s))) if tick is not None else None
        if facts.format not in _QUICK_FORMATS and _COPIED_S[0] < facts.duration_s <= _COPIED_S[1]:
            path = self._copied(path, share)
        return Outline.of(audio.envelope(path, frame_s=clips.FRAME_S, tick=share))

    def cut(self, window: Window) -> tuple[bytes, bool]:
        """A stretch as 16 kHz mono FLAC, and whether anything can be heard in it.

        Raises
        ------
        RowError
            The recording cannot be had or read.
        """
        samples = clips.stretch(self._found(), start_s=window[0], duration_s=window[1] - window[0])
        return audio.encode_flac(samples, audio.WORK_RATE_HZ), not audio.is_silent(samples)

    def _found(self) -> Path:
        with self._lock:
            if self._path is None or not self._path.exists():
                self._path = self._find(sources.parse(self._cell, bases=self._room.bases))
            return self._path

    def _find(self, source: sources.Source) -> Path:
        if isinstance(source, sources.PathSource):
            return source.path
        if isinstance(source, sources.MediaSource):
            raise RowError("unsupported_cell", "A media:// key can be heard by the service only.")
        folder = self._room.new_path().parent
        if isinstance(source, sources.UrlSource):
            return _downloaded(source.url, folder)
        if isinstance(source, sources.CloudSource):
            try:
                return _downloaded(self._room.sign(source), folder)
            except RowError as error:
                raise cloud.explained(error) from None
        return looking.look_local(source, folder).path

    def _copied(self, path: Path, tick: Tick | None) -> Path:
        target = self._room.new_path()
        try:
            audio.write_copy(path, target, tick=tick)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        with self._lock:
            self._path = target
        return target


def held(cell: object) -> tuple[object, object]:
    """The cell as it stays in the frame, and as it can be read again and again.

    An open file is read once and put back to where it stood; one that cannot be put back stays as its bytes.
    """
    if not hasattr(cell, "read"):
        return cell, cell
    position = None
    with contextlib.suppress(Exception):  # any object with a read method may be in the cell
        position = cell.tell()  # type: ignore[attr-defined]
    try:
        data = cell.read(contract.MAX_BYTES + 1)
    except Exception:  # its check says what is wrong
        return cell, cell
    if not isinstance(data, (bytes, bytearray, memoryview)):
        return cell, cell
    try:
        cell.seek(position)  # type: ignore[attr-defined]
    except Exception:  # a pipe, say
        return bytes(data), bytes(data)
    return cell, bytes(data)


def _downloaded(url: str, folder: Path) -> Path:
    import httpx

    async def fetch() -> Path:
        async with fetching.new_client(httpx.AsyncClient) as client:
            return (await looking.look_remote(sources.UrlSource(url), folder, client)).path

    try:
        return loop_thread().start(fetch()).wait()
    except RowError as error:
        raise shares.explained(error, url) from None
