"""Audio files as facts and samples: the only module that touches soundfile, soxr and ffmpeg."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb import containers
from voiceprint_nb.errors import RowError

Samples = NDArray[np.float32]

WORK_RATE_HZ = 16_000
SILENCE_PEAK = 1e-3
"""Peak amplitude (-60 dBFS) under which a clip counts as silent: dithered silence stays below -80 dBFS."""

_BLOCK_FRAMES = 1 << 16
_LEAST_RATE_HZ, _MOST_RATE_HZ = 1_000, 1_000_000
_MISSING_TAIL_S = 0.1  # decoders may differ by a frame of padding; more than this is a cut-off file
_FFMPEG_TIMEOUT_S = 120.0
_UNKNOWN_FRAMES = 1 << 62  # libsndfile reports 2**63 - 1 for a FLAC stream of open length


@dataclass(frozen=True)
class AudioFacts:
    """What the header of a file says.

    Attributes
    ----------
    format, subtype : str
        Names as libsndfile gives them (``WAV``, ``PCM_16``), or the container that ffmpeg read.
    duration_s : float
        Length in seconds.
    sample_rate_hz, channels : int
        As stored in the file.
    """

    format: str
    subtype: str
    duration_s: float
    sample_rate_hz: int
    channels: int


def probe(path: Path) -> AudioFacts:
    """Facts about a local audio file, from its header where the header can be trusted.

    Parameters
    ----------
    path : Path
        An existing, readable file.

    Raises
    ------
    RowError
        ``empty_file``, ``not_audio``, ``needs_ffmpeg``, ``bad_header``, ``truncated`` or ``empty_audio``.
    """
    with _opened(path) as (file, kind):
        if file.frames == 0:
            raise RowError("empty_audio", "The file is audio without a single sample: record the clip again.")
        frames = file.frames if file.frames < _UNKNOWN_FRAMES else _count_frames(file)
        facts = AudioFacts(
            kind or file.format, file.subtype, frames / file.samplerate, file.samplerate, file.channels
        )
    if not _LEAST_RATE_HZ <= facts.sample_rate_hz <= _MOST_RATE_HZ:
        raise RowError(
            "bad_header", f"The header says {facts.sample_rate_hz} Hz, which is no audio: export it again."
        )
    return facts


def read_mono(
    path: Path,
    *,
    sample_rate_hz: int = WORK_RATE_HZ,
    start_s: float = 0.0,
    max_duration_s: float | None = None,
) -> NDArray[np.float32]:
    """Decode a local file to one channel, the mean of all, at the wanted rate.

    Parameters
    ----------
    path : Path
        An existing, readable file.
    sample_rate_hz : int
        Rate of the result.
    start_s, max_duration_s : float
        The stretch to read; by default all.

    Returns
    -------
    ndarray of shape (samples,), float32
        Nominally in [-1, 1].

    Raises
    ------
    RowError
        As `probe`, and ``bad_samples`` for NaN or infinite samples.
    """
    with _opened(path) as (file, _):
        rate_hz = file.samplerate
        if start_s:
            file.seek(min(round(start_s * rate_hz), file.frames))
        wanted = None if max_duration_s is None else round(max_duration_s * rate_hz)
        blocks = list(_mono_blocks(file, wanted))
        samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
        expected = file.frames - round(start_s * rate_hz)
        if wanted is not None:
            expected = min(expected, wanted)
    known = file.frames < _UNKNOWN_FRAMES
    if known and expected - len(samples) > _MISSING_TAIL_S * rate_hz:
        raise RowError("truncated", "The file ends before its audio does: copy or download it again.")
    if not len(samples):
        raise RowError("empty_audio", "The file is audio without a single sample: record the clip again.")
    if not np.isfinite(samples).all():
        raise RowError("bad_samples", "The clip holds NaN or infinite samples: export it again.")
    return resample(samples, rate_hz, sample_rate_hz)


def mono_blocks(path: Path, *, block_s: float) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Decode a file of any length block by block: pairs of ``(samples,) float32`` and the rate in Hz."""
    with _opened(path) as (file, _):
        step = round(block_s * file.samplerate)
        for block in _mono_blocks(file, None, step):
            yield block, file.samplerate


def resample(samples: NDArray[np.float32], from_hz: int, to_hz: int) -> NDArray[np.float32]:
    """Change the rate of ``(samples,) float32`` audio with soxr at its high-quality setting."""
    if from_hz == to_hz:
        return samples
    import soxr

    return np.asarray(soxr.resample(samples, from_hz, to_hz), dtype=np.float32)


def is_silent(samples: NDArray[np.float32]) -> bool:
    """Whether nothing in ``(samples,) float32`` can be heard: the peak stays below `SILENCE_PEAK`."""
    return not len(samples) or float(np.abs(samples).max()) < SILENCE_PEAK


def encode_flac(samples: NDArray[np.float32], sample_rate_hz: int) -> bytes:
    """FLAC file (16 bit, mono) of ``(samples,) float32`` audio in [-1, 1]; louder samples are clipped."""
    import soundfile

    buffer = io.BytesIO()
    clipped = np.clip(samples, -1.0, 1.0)
    soundfile.write(buffer, clipped, sample_rate_hz, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def encode_wav(samples: NDArray[Any], sample_rate_hz: int) -> bytes:
    """WAV file (float32) of ``(samples,)`` or ``(samples, channels)`` audio, value for value."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate_hz, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


# --- opening --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, str | None]]:
    """Open a file for decoding; yields the soundfile object and the container's name if ffmpeg read it."""
    import soundfile

    with path.open("rb") as raw:
        head = raw.read(64)
    if not head:
        raise RowError("empty_file", "The file has no bytes: record, copy or download it again.")
    kind = containers.ffmpeg_kind(head)
    containers.refuse_broken(path)
    with contextlib.ExitStack() as stack:
        source: Path | IO[bytes] = path
        if kind:
            source = stack.enter_context(_transcoded(path, kind))
        elif _looks_like_mp3(head):
            source = _measurable_mp3(path)
        try:
            file = stack.enter_context(soundfile.SoundFile(source))
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise RowError(
                "not_audio", "The bytes are not audio of a known format: check the file, or export it as WAV."
            ) from error
        yield file, kind


def _looks_like_mp3(head: bytes) -> bool:
    return head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2)


def _measurable_mp3(path: Path) -> Path | io.BytesIO:
    """The file itself if its header tells its length, else a copy in memory that does."""
    data = path.read_bytes()
    facts = containers.walk_mp3(data)
    if facts is None:
        return path
    if facts.cut:
        raise RowError("truncated", "The MP3 file ends before its audio does: copy or download it again.")
    return path if facts.announced_frames else io.BytesIO(containers.with_xing(data, facts))


@contextlib.contextmanager
def _transcoded(path: Path, kind: str) -> Iterator[Path]:
    program = shutil.which("ffmpeg")
    if program is None:
        raise RowError(
            "needs_ffmpeg", f"{kind} audio needs ffmpeg: install it, or export the clip as WAV, FLAC or MP3."
        )
    with tempfile.TemporaryDirectory(prefix="voiceprint_nb-") as folder:
        target = Path(folder, "audio.wav")
        command = [program, "-nostdin", "-v", "error", "-protocol_whitelist", "file", "-i", f"file:{path}"]
        command += ["-map", "0:a:0", "-c:a", "pcm_s16le", str(target)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=_FFMPEG_TIMEOUT_S)  # noqa: S603 - fixed program, path behind file:
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise RowError(
                "not_audio", f"ffmpeg finds no audio in the {kind} file: check it, or export it as WAV."
            ) from error
        yield target


def _mono_blocks(file: Any, wanted: int | None, step: int = _BLOCK_FRAMES) -> Iterator[NDArray[np.float32]]:
    import soundfile

    read = 0
    while wanted is None or read < wanted:
        count = step if wanted is None else min(step, wanted - read)
        try:
            block = file.read(count, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            if file.frames >= _UNKNOWN_FRAMES and read:  # the end of an open FLAC stream shows like this
                return
            raise RowError(
                "truncated", "The file ends before its audio does or is damaged: copy or download it again."
            ) from error
        if not len(block):
            return
        read += len(block)
        yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)


def _count_frames(file: Any) -> int:
    frames = sum(len(block) for block in _mono_blocks(file, None))
    if not frames:
        raise RowError("empty_audio", "The file is audio without a single sample: record the clip again.")
    return frames
