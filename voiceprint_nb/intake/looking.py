"""A source becomes a local file with a size and a digest."""

from __future__ import annotations

import hashlib
import stat
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from voiceprint_nb import audio, contract, fetching
from voiceprint_nb.errors import RowError
from voiceprint_nb.intake import shares
from voiceprint_nb.intake.sources import BytesSource, FileSource, PathSource, SamplesSource, UrlSource

if TYPE_CHECKING:
    import httpx

DOWNLOAD_TIMEOUT_S = 120.0

Lookable = PathSource | BytesSource | FileSource | SamplesSource


@dataclass(frozen=True)
class LocalFile:
    """Audio bytes on this machine.

    Attributes
    ----------
    path : Path
        Where they are.
    n_bytes : int
        How many.
    sha256 : str or None
        Digest of the content, 64 hex digits; None of files that were not read through: those over the size
        limit, of which a stretch may be used, and those of a mere check.
    """

    path: Path = field(repr=False)
    n_bytes: int
    sha256: str | None


@dataclass(frozen=True)
class RemoteFile:
    """Audio behind a link, of which only the header was fetched.

    Attributes
    ----------
    n_bytes : int
        Its size.
    identity : str
        64 hex digits that name link and version, as `ranges.look` says.
    facts : AudioFacts
        What the header says.
    """

    n_bytes: int
    identity: str
    facts: audio.AudioFacts


def look_local(source: Lookable, scratch: Path, *, named: bool = True) -> LocalFile:
    """Find a file's size and digest; what is in memory is written to the scratch folder first.

    Parameters
    ----------
    source : PathSource, BytesSource, FileSource or SamplesSource
        What the cell holds.
    scratch : Path
        Folder for new files.
    named : bool
        Whether the digest is of use.

    Raises
    ------
    RowError
        ``file_not_found``, ``is_directory``, ``not_readable``, ``empty_file`` or ``too_large``.
    """
    match source:
        case PathSource(path):
            return _look_at_path(path, named=named)
        case BytesSource(data):
            return _write(data, hashlib.sha256(data).hexdigest(), scratch)
        case FileSource(file):
            return _read_open_file(file, scratch)
        case SamplesSource(samples, sample_rate_hz):
            return _write_samples(samples, sample_rate_hz, scratch)
        case _:
            assert_never(source)


async def look_remote(source: UrlSource, scratch: Path, client: httpx.AsyncClient) -> LocalFile:
    """Copy a web address into the scratch folder.

    Raises
    ------
    RowError
        As `fetching.download`, and ``not_audio`` for a Git LFS pointer.
    """
    target = scratch / uuid.uuid4().hex
    copy = await fetching.download(
        source.url, target, max_bytes=contract.MAX_BYTES, timeout_s=DOWNLOAD_TIMEOUT_S, client=client
    )
    try:
        with target.open("rb") as file:
            shares.refuse_pointer(file.read(64))
    except RowError:
        target.unlink()
        raise
    return LocalFile(copy.path, copy.n_bytes, copy.sha256)


def digest_of(path: Path) -> str:
    """SHA-256 of a file's content, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _look_at_path(path: Path, *, named: bool) -> LocalFile:
    try:
        facts = path.stat()
        if stat.S_ISDIR(facts.st_mode):
            raise RowError("is_directory", f"{path.name!r} is a folder: name a file in it.")
        if not stat.S_ISREG(facts.st_mode):
            raise RowError("not_readable", f"{path.name!r} is not a regular file: copy the audio to one.")
        if facts.st_size == 0:
            raise RowError("empty_file", f"{path.name!r} has no bytes: record, copy or download it again.")
        if facts.st_size > contract.MAX_BYTES:
            path.open("rb").close()
            return LocalFile(path, facts.st_size, None)
        if not named:
            return LocalFile(path, facts.st_size, None)
        return LocalFile(path, facts.st_size, digest_of(path))
    except PermissionError as error:
        raise RowError("not_readable", f"{path.name!r} may not be read: change its permissions.") from error
    except (OSError, ValueError) as error:
        shown, has_query, _ = str(path).partition("?")  # what follows may be a signature
        name, folder = Path(shown).name + ("?…" if has_query else ""), str(Path(shown).parent)
        remedy = "correct the path, or pass base= for its folder" + "; a link begins with https://" * bool(
            has_query
        )
        raise RowError("file_not_found", f"No file {name!r} in {folder!r}: {remedy}.") from error


def _read_open_file(file: object, scratch: Path) -> LocalFile:
    try:
        data = file.read(contract.MAX_BYTES + 1)  # type: ignore[attr-defined]
    except Exception as error:  # any object with a read method may be in the cell
        raise RowError(
            "not_readable", f"The open file cannot be read ({type(error).__name__}): pass its path."
        ) from error
    if isinstance(data, (bytearray, memoryview)):
        data = bytes(data)
    if not isinstance(data, bytes):
        raise RowError("unsupported_cell", "The file is open as text: open it with mode 'rb'.")
    if not data:
        raise RowError(
            "empty_file", "The open file has no bytes left: rewind it with seek(0), or pass its path."
        )
    if len(data) > contract.MAX_BYTES:
        raise RowError("too_large", "The open file holds more than 100 MiB: cut it, or pass its path.")
    return _write(data, hashlib.sha256(data).hexdigest(), scratch)


def _write_samples(samples: audio.Samples, sample_rate_hz: int, scratch: Path) -> LocalFile:
    digest = hashlib.sha256(f"samples {samples.shape} {sample_rate_hz}".encode())
    digest.update(samples.tobytes())  # not the file's: libsndfile puts the time into float WAV headers
    return _write(audio.encode_wav(samples, sample_rate_hz), digest.hexdigest(), scratch)


def _write(data: bytes, sha256: str, scratch: Path) -> LocalFile:
    path = scratch / uuid.uuid4().hex
    path.write_bytes(data)
    return LocalFile(path, len(data), sha256)
