"""Audio files as facts and samples: the only module that touches soundfile, soxr and ffmpeg."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
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

_PLAIN_BYTES, _PLAIN_MORE_BYTES = 4096, 64 * 1024  # 0.1 s of mono speech, then another 2 s
_PCM_NAMES = {2: "PCM_16", 3: "PCM_24", 4: "PCM_32"}
_HEARD_STEPS = 2 * SILENCE_PEAK * 32768 + 2  # of 16 bits; each may be off by one
_MOMENT_FRAMES = 4096  # in which most recordings are heard; a frame of FLAC
_TAIL_FRAMES = 4096  # that are looked for behind the frames that a header tells of
_BLOCK_VALUES = 1 << 18  # of all channels together, so that memory does not grow with their number
_LEAST_RATE_HZ, _MOST_RATE_HZ = 1_000, 1_000_000
_MOST_CHANNELS = 1024  # that libsndfile reads
_MISSING_TAIL_S = 0.1  # decoders may differ by a frame of padding; more than this is a cut-off file
_FFMPEG_TIMEOUT_S = 120.0
_UNKNOWN_FRAMES = 1 << 62  # libsndfile reports 2**63 - 1 for a FLAC stream of open length


@dataclass(frozen=True, slots=True)
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
        facts = _facts(file, kind)
        _refuse_missing_end(file)
        return facts


def inspect(path: Path, *, max_duration_s: float) -> AudioFacts:
    """Facts about a clip, and that it can be heard: as `probe`, with as little decoding as that takes.

    An integer or lossy clip is decoded until it is heard, a float one to its end, for it may hold NaN
    anywhere. A clip longer than ``max_duration_s`` is not decoded. Of an ordinary WAV file that is heard from
    the beginning a few kilobytes are read, in a tenth of the time that libsndfile takes.

    Raises
    ------
    RowError
        As `probe`, and ``silent`` or ``bad_samples``; its ``facts`` say what the header told.
    """
    return inspect_and_read(path, max_duration_s=max_duration_s, is_wanted=lambda _: False)[0]


def inspect_and_read(
    path: Path, *, max_duration_s: float, is_wanted: Callable[[int], bool]
) -> tuple[AudioFacts, Samples | None]:
    """As `inspect`, with what `read_mono` returns: decoded once, where both would decode the beginning.

    Parameters
    ----------
    path : Path
        An existing, readable file.
    max_duration_s : float
        Seconds that a clip may last.
    is_wanted : callable
        Whether so many samples are.

    Returns
    -------
    AudioFacts
        What the header says.
    ndarray of shape (samples,), float32, or None
        16 kHz mono. None if they are not wanted, the clip is too long, or, as in an ordinary WAV file,
        nothing needs to be decoded to hear it.

    Raises
    ------
    RowError
        As `inspect`.
    """
    if (plain := _plain_and_heard(path)) is not None:
        return plain, None
    with _opened(path) as (file, kind):
        facts = _facts(file, kind)
        fits = facts.duration_s <= max_duration_s
        if not fits or not is_wanted(round(facts.duration_s * WORK_RATE_HZ)):
            _refuse_faults(file, facts, heard=fits)
            return facts, None
        if (samples := _whole_and_heard(file)) is not None:
            return facts, resample(samples, facts.sample_rate_hz, WORK_RATE_HZ)
    return inspect(path, max_duration_s=max_duration_s), None  # says what is wrong with it


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
        start = min(round(start_s * rate_hz), file.frames)
        wanted = None if max_duration_s is None else round(max_duration_s * rate_hz)
        samples = _samples(file, start, wanted)
    return resample(samples, rate_hz, sample_rate_hz)


def read_stored(path: Path) -> tuple[Samples, int]:
    """Decode a local file to one channel as `read_mono`, but at its own rate, and that rate in Hz."""
    with _opened(path) as (file, _):
        return _samples(file, 0, None), int(file.samplerate)


def frame_powers(path: Path, *, frame_s: float) -> tuple[NDArray[np.float64], float]:
    """Mean square of every frame of a file of any length, decoded block by block.

    Parameters
    ----------
    path : Path
        An existing, readable file.
    frame_s : float
        Wanted length of a frame in seconds.

    Returns
    -------
    ndarray of shape (frames,), float64
        Mean squares of the mean of all channels; what is left after the last whole frame is dropped.
    float
        The frames' exact length in seconds, a whole number of samples.
    """
    with _opened(path) as (file, _):
        powers = [_mean_squares(block) for block in _framed_blocks(file, frame_s)]
        exact_s = _frame_samples(file, frame_s) / file.samplerate
    return (np.concatenate(powers) if powers else np.zeros(0)), exact_s


@dataclass(frozen=True)
class Envelope:
    """What is needed to draw a recording and to find its speech: three numbers a frame.

    Attributes
    ----------
    powers : ndarray of shape (frames,), float64
        As `frame_powers`.
    lows, highs : ndarray of shape (frames,), float32
        Least and greatest sample of each frame.
    frame_s : float
        The frames' exact length in seconds.
    """

    powers: NDArray[np.float64]
    lows: Samples
    highs: Samples
    frame_s: float


def envelope(path: Path, *, frame_s: float, tick: Callable[[float], None] | None = None) -> Envelope:
    """As `frame_powers`, with the extremes of every frame.

    Parameters
    ----------
    path, frame_s
        As in `frame_powers`.
    tick : callable, optional
        Hears after each block how many seconds were read; what it raises ends the reading.
    """
    powers, lows, highs = [np.zeros(0)], [np.zeros(0, np.float32)], [np.zeros(0, np.float32)]
    with _opened(path) as (file, _):
        exact_s = _frame_samples(file, frame_s) / file.samplerate
        n_frames = 0
        for block in _framed_blocks(file, frame_s):
            powers.append(_mean_squares(block))
            lows.append(block.min(axis=1))
            highs.append(block.max(axis=1))
            n_frames += len(block)
            if tick is not None:
                tick(n_frames * exact_s)
    return Envelope(np.concatenate(powers), np.concatenate(lows), np.concatenate(highs), exact_s)


def write_copy(path: Path, target: Path, *, tick: Callable[[float], None] | None = None) -> None:
    """Write a file of any length as 16 kHz mono WAV (16 bit), in which a stretch is found at once.

    MP3 and what ffmpeg decodes would have to be decoded from their beginning for each stretch. Memory does
    not grow with the length; an hour takes 115 MB on disk.

    Parameters
    ----------
    path : Path
        An existing, readable file.
    target : Path
        The new file.
    tick : callable, optional
        As in `envelope`.
    """
    import soundfile
    import soxr

    options = {"samplerate": WORK_RATE_HZ, "channels": 1, "format": "WAV", "subtype": "PCM_16"}
    with _opened(path) as (file, _), soundfile.SoundFile(target, "w", **options) as copy:
        stream = soxr.ResampleStream(file.samplerate, WORK_RATE_HZ, 1, dtype="float32")
        n_samples = 0
        for block in _mono_blocks(file, None):
            copy.write(np.clip(np.nan_to_num(stream.resample_chunk(block)), -1.0, 1.0))
            n_samples += len(block)
            if tick is not None:
                tick(n_samples / file.samplerate)
        copy.write(np.clip(stream.resample_chunk(np.zeros(0, np.float32), last=True), -1.0, 1.0))


def resample(samples: NDArray[np.float32], from_hz: int, to_hz: int) -> NDArray[np.float32]:
    """Change the rate of ``(samples,) float32`` audio with soxr at its high-quality setting."""
    if from_hz == to_hz:
        return samples
    import soxr

    return np.asarray(soxr.resample(samples, from_hz, to_hz), dtype=np.float32)


def is_silent(samples: NDArray[np.float32]) -> bool:
    """Whether nothing in ``(samples,) float32`` can be heard.

    The distance of all samples from their mean stays below `SILENCE_PEAK`: a constant offset is no sound.
    """
    if not len(samples):
        return True
    middle = float(samples.mean(dtype=np.float64))
    return max(float(samples.max()) - middle, middle - float(samples.min())) < SILENCE_PEAK


def refuse_silence(samples: NDArray[np.float32]) -> None:
    """Raise `RowError` ``silent`` if nothing in ``(samples,) float32`` can be heard."""
    if is_silent(samples):
        raise _silent()


def encode_flac(samples: NDArray[np.float32], sample_rate_hz: int) -> bytes:
    """FLAC file (16 bit, mono) of ``(samples,) float32`` audio in [-1, 1]; louder samples are clipped."""
    import soundfile

    buffer = io.BytesIO()
    clipped = np.clip(samples, -1.0, 1.0)
    soundfile.write(buffer, clipped, sample_rate_hz, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def encode_mp3(samples: NDArray[np.float32], sample_rate_hz: int) -> bytes:
    """MP3 file (mono, about 3 kB a second) of ``(samples,) float32`` audio, for listening only."""
    import soundfile

    buffer = io.BytesIO()
    clipped = np.clip(samples, -1.0, 1.0)
    soundfile.write(
        buffer, clipped, sample_rate_hz, format="MP3", bitrate_mode="VARIABLE", compression_level=0.9
    )
    return buffer.getvalue()


def encode_wav(samples: NDArray[Any], sample_rate_hz: int) -> bytes:
    """WAV file (float32) of ``(samples,)`` or ``(samples, channels)`` audio, value for value."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate_hz, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


# --- plain WAV files ------------------------------------------------------------------------------------


def _plain_and_heard(path: Path) -> AudioFacts | None:
    """The facts of a plain WAV file whose beginning is audible; None leaves it to the decoder."""
    try:
        number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError):
        return None
    try:
        head = os.read(number, _PLAIN_BYTES)
        wav = containers.plain_wav(head, os.fstat(number).st_size)
        if wav is None or not _LEAST_RATE_HZ <= wav.sample_rate_hz <= _MOST_RATE_HZ:
            return None
        if wav.channels > _MOST_CHANNELS:
            return None
        if not _is_heard_at_once(wav, head):
            head += os.read(number, _PLAIN_MORE_BYTES)
            if not _is_heard_at_once(wav, head):
                return None
    finally:
        os.close(number)
    name = "WAVEX" if wav.is_extensible else "WAV"
    duration_s = wav.frames / wav.sample_rate_hz
    subtype = _PCM_NAMES[wav.sample_bytes]
    return AudioFacts(name, subtype, duration_s, wav.sample_rate_hz, wav.channels)


def _is_heard_at_once(wav: containers.PlainWav, head: bytes) -> bool:
    """Whether the first second is not silent, certainly, by the upper 16 bits of the samples that are here.

    Samples farther apart than twice `SILENCE_PEAK` are not both within it of the second's mean.
    """
    n_bytes, channels = wav.sample_bytes, wav.channels
    frames = min((len(head) - wav.start) // (n_bytes * channels), wav.sample_rate_hz)
    if frames <= 0:
        return False
    strides = (n_bytes * channels, n_bytes)
    words: NDArray[Any] = np.ndarray((frames, channels), "<i2", head, wav.start + n_bytes - 2, strides)
    mono = words[:, 0] if channels == 1 else words.sum(axis=1)
    return int(mono.max()) - int(mono.min()) > _HEARD_STEPS * channels


# --- opening --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, str | None]]:
    """Open a file for decoding; yields the soundfile object and the container's name if ffmpeg read it."""
    import soundfile

    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(_open_raw(path))
        head = raw.read(64)
        if not head:
            raise RowError("empty_file", "The file has no bytes: record, copy or download it again.")
        kind = containers.ffmpeg_kind(head)
        containers.refuse_broken(raw)
        source: IO[bytes] = raw
        if kind:
            source = stack.enter_context(_transcoded(path, kind))
        elif _looks_like_mp3(head):
            source = _measurable_mp3(raw)
        source.seek(0)
        # A descriptor instead of a name: names may be no UTF-8, and their endings make libsndfile guess.
        by_number = not isinstance(source, io.BytesIO)
        try:
            file = _forward_file()(source.fileno() if by_number else source, closefd=False)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise RowError(
                "not_audio", "The bytes are not audio of a known format: check the file, or export it as WAV."
            ) from error
        yield stack.enter_context(file), kind


@functools.cache
def _forward_file() -> Any:
    import soundfile

    class ForwardFile(soundfile.SoundFile):  # type: ignore[misc]
        """Reads forward only: soundfile seeks after each read of a file that it thinks seekable.

        Such a seek fails at the end of a FLAC stream of open length, and makes libmpg123 decode again from
        the middle of its bit reservoir, with complaints on the user's terminal.
        """

        def seekable(self) -> bool:
            return False

    return ForwardFile


def _open_raw(path: Path) -> IO[bytes]:
    try:
        return path.open("rb", buffering=0)
    except PermissionError as error:
        raise RowError("not_readable", f"{path.name!r} may not be read: change its permissions.") from error
    except (OSError, ValueError) as error:
        raise RowError(
            "not_readable", f"{path.name!r} cannot be opened any more: look whether it was moved or locked."
        ) from error


def _looks_like_mp3(head: bytes) -> bool:
    return head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2)


def _measurable_mp3(raw: IO[bytes]) -> IO[bytes]:
    """The file itself if it is frames and nothing else and tells their number, else a copy that is so.

    libsndfile finds the first frame behind a plain ID3v2 tag only, not behind a footer or padding, and
    libmpg123 complains on the terminal about tags behind the last one.
    """
    raw.seek(0)
    data = raw.read()
    facts = containers.walk_mp3(data)
    if facts is None:
        return raw
    if facts.cut:
        raise RowError("truncated", "The MP3 file ends before its audio does: copy or download it again.")
    if not facts.is_measured:
        return io.BytesIO(containers.with_xing(data, facts))
    if facts.start == 0 and facts.end == len(data):
        return raw
    return io.BytesIO(data[facts.start : facts.end])


@contextlib.contextmanager
def _transcoded(path: Path, kind: str) -> Iterator[IO[bytes]]:
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
        with target.open("rb", buffering=0) as decoded:
            yield decoded


def _mono_blocks(file: Any, wanted: int | None, step: int | None = None) -> Iterator[NDArray[np.float32]]:
    import soundfile

    step = step or max(1, _BLOCK_VALUES // file.channels)
    read = 0
    while wanted is None or read < wanted:
        count = min(step, max(file.frames - read, _TAIL_FRAMES) if wanted is None else wanted - read)
        try:
            block = file.read(count, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise RowError(
                "truncated", "The file ends before its audio does or is damaged: copy or download it again."
            ) from error
        if not len(block):
            return
        read += len(block)
        with np.errstate(over="ignore", invalid="ignore"):  # infinite samples are refused by their value
            mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)
        yield mono


def _frame_samples(file: Any, frame_s: float) -> int:
    return max(1, round(frame_s * int(file.samplerate)))


def _framed_blocks(file: Any, frame_s: float) -> Iterator[NDArray[np.float32]]:
    """Blocks of whole frames, ``(frames, samples)``; a last frame that is not whole is dropped."""
    step = _frame_samples(file, frame_s)
    count = max(1, _BLOCK_VALUES // (step * file.channels)) * step
    for block in _mono_blocks(file, None, count):
        whole = block[: len(block) // step * step]
        if len(whole):
            yield whole.reshape(-1, step)


def _mean_squares(block: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(np.mean(np.square(block, dtype=np.float64), axis=1))


def _skip(file: Any, frames: int) -> None:
    """Go to a frame: by decoding up to it where a seek is inexact (MP3) or impossible (open length)."""
    import soundfile

    if file.format == "MP3" or file.frames >= _UNKNOWN_FRAMES:
        for _ in _mono_blocks(file, frames):
            pass
    elif frames:
        try:
            file.seek(frames)
        except soundfile.LibsndfileError as error:
            raise _ends_early() from error


def _refuse_faults(file: Any, facts: AudioFacts, *, heard: bool) -> None:
    try:
        _refuse_missing_end(file)
        if heard:
            _refuse_unheard(file)
    except RowError as error:
        error.facts = facts
        raise


def _whole_and_heard(file: Any) -> Samples | None:
    """All samples, of one channel, unless anything is wrong with them."""
    try:
        samples = _samples(file, 0, None)
    except RowError:
        return None
    if file.format == "FLAC" and len(samples) < file.frames < _UNKNOWN_FRAMES:
        return None
    rate_hz = file.samplerate
    seconds = (samples[start : start + rate_hz] for start in range(0, len(samples), rate_hz))
    if _is_certainly_heard(samples[: min(_MOMENT_FRAMES, rate_hz)]) or not all(map(is_silent, seconds)):
        return samples
    return None


def _refuse_missing_end(file: Any) -> None:
    """Look for the last frame that a FLAC header announces; other containers are walked instead."""
    import soundfile

    if file.format != "FLAC" or file.frames >= _UNKNOWN_FRAMES:
        return
    try:
        file.seek(file.frames - 1)
        there = len(file.read(1))
        file.seek(0)
    except soundfile.LibsndfileError as error:
        raise _ends_early() from error
    if not there:
        raise _ends_early()


def _refuse_unheard(file: Any) -> None:
    """Decode until something is heard, if not in the first moment then second by second; a float file all."""
    to_the_end = file.subtype in ("FLOAT", "DOUBLE")
    moment = _block(file, min(_MOMENT_FRAMES, file.samplerate))
    if not to_the_end and _is_certainly_heard(moment):
        _refuse_odd_values(moment)
        return
    second = np.concatenate([moment, _block(file, file.samplerate - len(moment))])
    audible, n_samples = False, 0
    for block in chain([second], _mono_blocks(file, None, file.samplerate)):
        n_samples += len(block)
        _refuse_odd_values(block)
        audible = audible or not is_silent(block)
        if audible and not to_the_end:
            return
    if not n_samples:
        raise _without_samples()
    if not audible:
        raise _silent()


def _block(file: Any, frames: int) -> Samples:
    return next(_mono_blocks(file, frames, frames), np.zeros(0, np.float32))


def _is_certainly_heard(samples: Samples) -> bool:
    """Whether no clip with these samples is silent: they are too far apart, whatever its mean."""
    return len(samples) > 0 and float(samples.max()) - float(samples.min()) > 2 * SILENCE_PEAK


def _refuse_odd_values(samples: Samples) -> None:
    if not np.isfinite(samples).all():
        raise RowError("bad_samples", "The clip holds NaN or infinite samples: export it again.")


def _silent() -> RowError:
    return RowError("silent", "Nothing can be heard in the clip: check the microphone or the export.")


def _without_samples() -> RowError:
    return RowError("empty_audio", "The file is audio without a single sample: record the clip again.")


def _ends_early() -> RowError:
    return RowError("truncated", "The file ends before its audio does: copy or download it again.")


def _facts(file: Any, kind: str | None) -> AudioFacts:
    if file.frames <= 0:
        raise _without_samples()
    if not _LEAST_RATE_HZ <= file.samplerate <= _MOST_RATE_HZ:
        raise RowError(
            "bad_header", f"The header says {file.samplerate} Hz, which is no audio: export it again."
        )
    frames = file.frames if file.frames < _UNKNOWN_FRAMES else _count_frames(file)
    return AudioFacts(
        kind or file.format, file.subtype, frames / file.samplerate, file.samplerate, file.channels
    )


def _samples(file: Any, start: int, wanted: int | None) -> Samples:
    _skip(file, start)
    blocks = list(_mono_blocks(file, wanted))
    samples = blocks[0] if len(blocks) == 1 else np.concatenate([np.zeros(0, np.float32), *blocks])
    if not len(samples):
        raise _without_samples()
    expected = file.frames - start if wanted is None else min(file.frames - start, wanted)
    if file.frames < _UNKNOWN_FRAMES and expected - len(samples) > _MISSING_TAIL_S * file.samplerate:
        raise _ends_early()
    _refuse_odd_values(samples)
    return samples


def _count_frames(file: Any) -> int:
    """Length of a FLAC stream of open length, by decoding it; the file stands at its start afterwards."""
    frames = sum(len(block) for block in _mono_blocks(file, None))
    if not frames:
        raise _without_samples()
    file.seek(0)
    return frames
