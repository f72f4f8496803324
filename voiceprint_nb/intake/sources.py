"""A cell becomes a source: pure, no I/O, never an exception but `RowError`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote, urlsplit

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voiceprint_nb import contract
from voiceprint_nb.errors import RowError
from voiceprint_nb.intake import shares

_MOST_CHANNELS = 64
_MOST_RATE_HZ = 1_000_000
_URL_CHARACTERS = "".join(map(chr, range(0x21, 0x7F)))  # stand as they are; browsers escape the others too
_CLOUD_ADDRESS = re.compile(r"(s3|gs|az)://([a-z0-9][\w.-]*)/(.*[^/])", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class PathSource:
    """A local file."""

    path: Path = field(repr=False)


@dataclass(frozen=True)
class UrlSource:
    """An http or https address, of the file itself; it may be signed, so it is never shown."""

    url: str = field(repr=False)


@dataclass(frozen=True)
class CloudSource:
    """A private object: ``s3://bucket/key``, ``gs://bucket/key`` or ``az://container/key``, literally."""

    scheme: str
    bucket: str = field(repr=False)
    key: str = field(repr=False)

    @property
    def address(self) -> str:
        """The address as it stood in the cell."""
        return f"{self.scheme}://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class MediaSource:
    """A ``media://`` key that the user has uploaded before."""

    key: str


@dataclass(frozen=True)
class BytesSource:
    """A whole audio file in memory."""

    data: bytes = field(repr=False)


@dataclass(frozen=True)
class FileSource:
    """An open binary file."""

    file: IO[bytes] = field(repr=False)


@dataclass(frozen=True)
class SamplesSource:
    """Samples ``(samples,)`` or ``(samples, channels)`` float32, with their rate."""

    samples: NDArray[np.float32] = field(repr=False)
    sample_rate_hz: int


Source = PathSource | UrlSource | CloudSource | MediaSource | BytesSource | FileSource | SamplesSource


def parse(cell: object, *, bases: Sequence[Path] = ()) -> Source:
    """Tell what a cell holds.

    Parameters
    ----------
    cell : object
        Path, address, ``media://`` key, bytes, open binary file or ``(samples, sample_rate_hz)``.
    bases : sequence of Path
        Folders for relative paths: the first in which the file exists counts, else the first.

    Raises
    ------
    RowError
        ``empty_cell``, ``unsupported_cell`` or ``unsupported_scheme``; ``url_web_page`` for share links that
        lead to no file.
    """
    if isinstance(cell, (bytes, bytearray, memoryview)):
        data = bytes(cell)
        if not data:
            raise RowError("empty_file", "The cell holds no bytes: read the file again.")
        return BytesSource(data)
    if isinstance(cell, str):
        return _parse_text(cell.strip(), bases)
    if isinstance(cell, os.PathLike):
        return PathSource(_resolved(os.fspath(cell), bases))
    if isinstance(cell, tuple) and len(cell) == 2:
        return _parse_samples(*cell)
    if hasattr(cell, "read"):
        return _parse_file(cell)
    if _is_missing(cell):
        raise RowError("empty_cell", "The cell is empty: fill in a path or an address, or drop the row.")
    raise RowError(
        "unsupported_cell",
        f"A cell of type {type(cell).__name__} holds no audio: use a path, an address, bytes, an open file "
        "or a (samples, sample_rate_hz) pair.",
    )


def _is_missing(cell: Any) -> bool:
    try:
        return cell is None or bool(pd.api.types.is_scalar(cell) and pd.isna(cell))
    except ArithmeticError:  # a signalling NaN of decimal
        return True


def _parse_text(text: str, bases: Sequence[Path]) -> Source:
    if not text:
        raise RowError("empty_cell", "The cell is empty: fill in a path or an address, or drop the row.")
    if "\0" in text:
        raise RowError("unsupported_cell", "The path holds a NUL character: correct the cell.")
    scheme = text.split("://", 1)[0].lower() if "://" in text else ""
    if scheme in ("http", "https"):
        return _parse_url(text)
    if scheme == "media":
        if not contract.is_media_key(text):
            raise RowError(
                "unsupported_cell",
                "A media:// key has at most 255 characters of a-z A-Z 0-9 - _ . /: correct the cell.",
            )
        return MediaSource(text)
    if scheme == "file":
        return _parse_file_address(text)
    if scheme in ("s3", "gs", "az"):
        return _parse_cloud(text)
    if scheme or text.lower().startswith("data:"):
        raise RowError(
            "unsupported_scheme",
            f"Addresses that start with {(scheme or 'data') + ':'!r} are not read: use a path, an http(s) "
            "link or a media:// key.",
        )
    return PathSource(_resolved(text, bases))


def _parse_file_address(text: str) -> Source:
    try:
        parts = urlsplit(text)
        path = Path(unquote(parts.path)) if parts.netloc in ("", "localhost") else None
    except ValueError:
        path = None
    if path is None:
        raise RowError(
            "unsupported_scheme", "A file: address must name a file of this machine: use its path instead."
        )
    return PathSource(path)


def _parse_url(text: str) -> Source:
    try:
        host = urlsplit(text).hostname
    except ValueError:
        host = None
    scheme, rest = text.split("://", 1)
    quoted = quote(f"{scheme.lower()}://{rest}", safe=_URL_CHARACTERS, errors="replace")
    if not host or not contract.is_job_url(quoted):
        raise RowError("url_unreachable", "The address is not a valid link: copy it again from its source.")
    return UrlSource(shares.direct(quoted))


def _parse_cloud(text: str) -> Source:
    match = _CLOUD_ADDRESS.fullmatch(text)
    if match is None:
        raise RowError(
            "unsupported_cell",
            "The address names no object of a bucket: write it as s3://bucket/folder/clip.wav.",
        )
    return CloudSource(match[1].lower(), match[2], match[3])


def _parse_samples(samples: Any, sample_rate_hz: Any) -> Source:
    try:
        array = np.asarray(samples)
        rate = float(sample_rate_hz)
    except Exception:  # of whatever library the cell's objects come from
        array, rate = np.zeros(0, dtype=object), 0.0
    numeric = array.dtype.kind in "iuf" and array.ndim in (1, 2)
    if not numeric or not rate.is_integer():
        raise RowError(
            "unsupported_cell",
            "A pair must be (samples, sample_rate_hz): an array (samples,) or (samples, channels) of "
            "numbers, and a whole number of hertz.",
        )
    if array.dtype.kind in "iu":
        info = np.iinfo(array.dtype)
        middle = 0 if array.dtype.kind == "i" else (info.max + 1) // 2
        array = (array.astype(np.float64) - middle) / (info.max - middle + 1)
    if not array.size:
        raise RowError("empty_audio", "The array holds no samples: record the clip again.")
    if not 0 < rate <= _MOST_RATE_HZ:
        raise RowError("bad_header", "The sample rate must be 1 to 1,000,000 hertz: correct the pair.")
    if array.ndim == 2 and array.shape[1] > min(_MOST_CHANNELS, max(array.shape[0], 2)):
        raise RowError(
            "unsupported_cell",
            f"The array has {array.shape[1]} channels: pass (samples, channels), so transpose it.",
        )
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, which is refused later
        return SamplesSource(np.ascontiguousarray(array, dtype=np.float32), int(rate))


def _parse_file(cell: Any) -> Source:
    if getattr(cell, "closed", False):
        raise RowError("not_readable", "The file in the cell is closed: open it again, or pass its path.")
    if hasattr(cell, "encoding"):
        raise RowError("unsupported_cell", "The file is open as text: open it with mode 'rb'.")
    return FileSource(cell)


def _resolved(text: str | bytes, bases: Sequence[Path]) -> Path:
    name = os.fsdecode(text)
    if name.startswith("~"):
        with suppress(UnicodeEncodeError):  # half a character is in nobody's name
            name = os.path.expanduser(name)  # noqa: PTH111 - Path's raises for unknown users
    path = Path(name)
    if os.path.isabs(name) or not bases:  # noqa: PTH117 - as Path's, in half the time
        return path
    candidates = [base / path for base in bases]
    found = (candidate for candidate in candidates if os.path.exists(candidate))  # noqa: PTH110 - never raises
    return next(found, candidates[0])
