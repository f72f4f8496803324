"""A file becomes a clip that the service will take, or every reason why not."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb import audio, contract
from voiceprint_nb.errors import RowError
from voiceprint_nb.intake.looking import LocalFile, RemoteFile, digest_of

if TYPE_CHECKING:
    from voiceprint_nb.intake.quality import Quality

Fit = Literal["error", "best", "head"]
FITS: tuple[Fit, ...] = ("error", "best", "head")

SHORT_S = 2.0
"""Shorter clips give unreliable prints."""
FRAME_S = 0.02
"""Length of the frames in which speech is looked for."""

_ACTIVE_DB = 35.0  # frames within this of the loud ones count as speech
_LOUD_S = 1.5  # the loud ones: so much audio is louder than a few clicks, and in every clip with speech


@dataclass(frozen=True)
class Clip:
    """Audio within the limits.

    Attributes
    ----------
    file : Path or None
        The file to submit; None for a link that was only looked at, which the service fetches itself.
    n_bytes : int
        Its size.
    digest : str
        64 hex digits that name its content, and the stretch if it was cut; empty if no name was wanted.
    facts : AudioFacts
        Of the original file.
    duration_s : float
        Seconds that are submitted.
    warning : str or None
        What lowers the quality, in a sentence.
    is_cut : bool
        Whether it is a stretch of a longer file.
    url : str or None
        Link that the service can fetch in place of the file, a secret; None if the file must be sent.
    quality : Quality or None
        What was measured of it, if that was asked for.
    samples : (samples,) float32 or None
        The file as 16 kHz mono, if that was wanted and had to be decoded.
    """

    file: Path | None = field(repr=False)
    n_bytes: int
    digest: str
    facts: audio.AudioFacts
    duration_s: float
    warning: str | None = None
    is_cut: bool = False
    url: str | None = field(default=None, repr=False)
    quality: Quality | None = None
    samples: audio.Samples | None = field(default=None, repr=False, compare=False)

    @property
    def path(self) -> Path:
        """The file, where there is one."""
        if self.file is None:
            raise TypeError("a link that was only looked at has no file")
        return self.file


def admit(
    file: LocalFile,
    *,
    fit: Fit,
    scratch: Path,
    named: bool = True,
    is_wanted: Callable[[int], bool] | None = None,
) -> Clip:
    """Check a file against the limits: 30 s, 100 MiB, readable to its end, audible.

    Parameters
    ----------
    file : LocalFile
        What was found.
    fit : {"error", "best", "head"}
        For longer audio: refuse it, take the most speech-rich 30 s, or the first 30 s.
    scratch : Path
        Folder for a cut clip.
    named : bool
        Whether the clip's digest is of use, for which its file is read to the end.
    is_wanted : callable, optional
        Whether so many samples are, if they have to be decoded anyway: see `audio.inspect_and_read`.

    Raises
    ------
    RowError
        Any ``invalid`` code; with several reasons the first one's code and all sentences.
    """
    limit_s = contract.MAX_DURATION_S
    too_large = file.n_bytes > contract.MAX_BYTES
    try:
        facts, samples = audio.inspect_and_read(
            file.path,
            max_duration_s=0.0 if too_large else limit_s,
            is_wanted=is_wanted or (lambda _: False),
        )
    except RowError as error:
        if too_large and fit == "error":  # the size alone settles it, whatever else is wrong
            raise RowError("too_large", f"{_too_large(file)} {error}") from error
        raise
    try:
        if facts.duration_s > limit_s and fit != "error":
            return _cut(file, facts, fit, scratch)
        _refuse_limits(file, facts)
    except RowError as error:
        error.facts = facts
        raise
    digest = file.sha256 or (digest_of(file.path) if named else "")
    return Clip(file.path, file.n_bytes, digest, facts, facts.duration_s, _warning(facts), samples=samples)


def admit_remote(file: RemoteFile) -> Clip:
    """Check a link that was only looked at against the limits of length and size.

    Raises
    ------
    RowError
        ``too_long`` or ``too_large``.
    """
    try:
        _refuse_limits(file, file.facts)
    except RowError as error:
        error.facts = file.facts
        raise
    return Clip(None, file.n_bytes, file.identity, file.facts, file.facts.duration_s, _warning(file.facts))


def compressed(clip: Clip, scratch: Path) -> Clip:
    """The clip as 16 kHz mono FLAC, to which the service turns it anyway; itself if that is not smaller.

    Parameters
    ----------
    clip : Clip
        With a file.
    scratch : Path
        Folder for the new file.
    """
    if clip.is_cut:  # made here, in this form
        return clip
    data = audio.encode_flac(audio.read_mono(clip.path), audio.WORK_RATE_HZ)
    if len(data) >= clip.n_bytes:
        return clip
    path = scratch / uuid.uuid4().hex
    path.write_bytes(data)
    return replace(clip, file=path, n_bytes=len(data))


def _warning(facts: audio.AudioFacts) -> str | None:
    if facts.duration_s >= SHORT_S:
        return None
    return f"Only {facts.duration_s:.1f} s of audio: prints of clips under {SHORT_S:.0f} s are unreliable."


def _refuse_limits(file: LocalFile | RemoteFile, facts: audio.AudioFacts) -> None:
    limit_s = contract.MAX_DURATION_S
    reasons = []
    digits = 2 if facts.duration_s < limit_s + 0.1 else 1
    if facts.duration_s > limit_s:
        reasons.append(
            RowError(
                "too_long",
                f"The clip lasts {facts.duration_s:.{digits}f} s and the limit is {limit_s:.0f} s: cut it, "
                "or pass fit='best' or fit='head'.",
            )
        )
    if file.n_bytes > contract.MAX_BYTES:
        reasons.append(RowError("too_large", _too_large(file)))
    if reasons:
        raise RowError(reasons[0].code, " ".join(str(reason) for reason in reasons))


def _too_large(file: LocalFile | RemoteFile) -> str:
    return (
        f"The file has {file.n_bytes / 2**20:.1f} MiB and the limit is {contract.MAX_BYTES / 2**20:.0f} MiB: "
        "store it as FLAC or with fewer channels."
    )


def best_start_s(path: Path, *, window_s: float = contract.MAX_DURATION_S) -> float:
    """Start of the window with the most speech-like frames, in seconds, to a tenth.

    The earliest of equally good windows wins. Memory grows with the number of frames, not of samples.
    """
    powers, frame_s = audio.frame_powers(path, frame_s=FRAME_S)
    return start_of_most(speech_frames(powers, frame_s), frame_s, window_s=window_s)


def speech_frames(powers: NDArray[np.float64], frame_s: float) -> NDArray[np.bool_]:
    """Which frames are speech-like, by their mean squares.

    A frame counts as speech when its level is within 35 dB of the loud frames' and nearer to it than to the
    background's, the 10th percentile.
    """
    if not len(powers):
        return np.zeros(0, bool)
    level_db = 10 * np.log10(np.nan_to_num(powers) + 1e-12)
    rank = min(len(level_db) // 20, round(_LOUD_S / frame_s))
    loud = np.sort(level_db)[-1 - rank]
    return np.asarray(level_db > max(loud - _ACTIVE_DB, (loud + np.percentile(level_db, 10)) / 2))


def start_of_most(
    active: NDArray[np.bool_], frame_s: float, *, window_s: float = contract.MAX_DURATION_S
) -> float:
    """Start of the window with the most active frames, in seconds, to a tenth; of equals, the earliest."""
    if not len(active):
        return 0.0
    count = np.concatenate([[0], np.cumsum(active)])
    width = max(1, min(round(window_s / frame_s), len(active)))
    start = int(np.argmax(count[width:] - count[:-width]))
    return int(start * frame_s * 10) / 10


def stretch(path: Path, *, start_s: float, duration_s: float) -> audio.Samples:
    """At most so many seconds of a file as 16 kHz mono, ``(samples,) float32``.

    Raises
    ------
    RowError
        As `audio.read_mono`.
    """
    samples = audio.read_mono(path, start_s=start_s, max_duration_s=duration_s)
    return samples[: round(duration_s * audio.WORK_RATE_HZ)]


def _cut(file: LocalFile, facts: audio.AudioFacts, fit: Fit, scratch: Path) -> Clip:
    limit_s = contract.MAX_DURATION_S
    start_s = best_start_s(file.path) if fit == "best" else 0.0
    samples = stretch(file.path, start_s=start_s, duration_s=limit_s)
    audio.refuse_silence(samples)
    data = audio.encode_flac(samples, audio.WORK_RATE_HZ)
    path = scratch / uuid.uuid4().hex
    path.write_bytes(data)
    duration_s = len(samples) / audio.WORK_RATE_HZ
    content = file.sha256 or digest_of(file.path)
    digest = hashlib.sha256(f"{content} {start_s:.1f}+{limit_s:.1f}".encode()).hexdigest()
    warning = (
        f"Only {start_s:.1f} s to {start_s + duration_s:.1f} s of {facts.duration_s:.1f} s is used "
        f"(fit={fit!r})."
    )
    return Clip(path, len(data), digest, facts, duration_s, warning, is_cut=True)
