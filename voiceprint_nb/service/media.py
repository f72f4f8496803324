"""Storage for ``media://`` keys, and the presigned links that fill it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from voiceprint_nb import scratch
from voiceprint_nb.contract import MAX_BYTES, MEDIA_LINK_LIFE_S

MEDIA_LINK_PATH = "/media/{token}"

MEDIA_KEPT_S = 36 * 3600.0  # promised are 24 to 48 h: a job submitted in the last hour has time to be done

_SPARE_BYTES = 256 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024  # the event loop gets a turn between pieces
_SECRET_BYTES = 32
_log = logging.getLogger(__name__)


class BadLink(Exception):
    """A media link that this store did not sign for this method, or that is too old."""


class MediaTooLarge(Exception):
    """An upload beyond the size cap."""


class StorageFull(Exception):
    """The disk has no room for uploads."""


class MediaStore:
    """A folder of uploads, each under the hash of its team and key.

    Parameters
    ----------
    folder : Path
        Made with mode 0700 if it is not there; files have mode 0600.
    max_bytes : int
        Cap of one upload.
    clock : callable
        Unix time in seconds.
    """

    def __init__(
        self, folder: Path, *, max_bytes: int = MAX_BYTES, clock: Callable[[], float] = time.time
    ) -> None:
        self.max_bytes = max_bytes
        self._clock = clock
        self._replacement = threading.Lock()
        self._objects = folder / "objects"
        self._incoming = folder / "incoming"
        for part in (folder, self._objects, self._incoming):
            part.mkdir(mode=0o700, exist_ok=True)
        self._secret = _kept_secret(folder / "link.secret")

    def link(self, method: str, team: str, key: str, *, base_url: str) -> str:
        """Absolute link, good for one hour, that carries its own permission for one method and upload."""
        expires_s = int(self._clock() + MEDIA_LINK_LIFE_S)
        claim = base64.urlsafe_b64encode(f"{expires_s}:{team}:{key}".encode()).decode().rstrip("=")
        token = f"{claim}.{self._signature(method, claim)}"
        return base_url.rstrip("/") + MEDIA_LINK_PATH.format(token=token)

    def opened(self, method: str, token: str) -> tuple[str, str]:
        """The team and key for which this link was signed.

        Raises
        ------
        BadLink
            Signed for another method, by somebody else, or too long ago.
        """
        claim, _, signature = token.partition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(method, claim).encode()):
            raise BadLink("signature does not match")
        try:
            text = base64.urlsafe_b64decode(claim + "=" * (-len(claim) % 4)).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise BadLink("unreadable claim") from error
        expires_s, team, key = text.split(":", 2)
        if self._clock() > int(expires_s):
            raise BadLink("link has expired")
        return team, key

    async def write(self, team: str, key: str, chunks: AsyncIterable[bytes]) -> int:
        """Store an upload under its key, replacing an earlier one only when complete; its size.

        Raises
        ------
        MediaTooLarge
            More bytes than the cap; nothing is kept.
        StorageFull
            Too little would be left of the disk, which the table of jobs needs too.
        """
        size_bytes = 0
        if shutil.disk_usage(self._objects).free < self.max_bytes + _SPARE_BYTES:
            raise StorageFull
        with self._replacing(team, key) as file:
            async for chunk in chunks:
                size_bytes += len(chunk)
                if size_bytes > self.max_bytes:
                    raise MediaTooLarge(f"more than {self.max_bytes} bytes")
                for start in range(0, len(chunk), _PIECE_BYTES):
                    if start:
                        await asyncio.sleep(0)
                    file.write(memoryview(chunk)[start : start + _PIECE_BYTES])
        return size_bytes

    def path(self, team: str, key: str) -> Path:
        """Where a team's upload of this key lies, if there is one."""
        return self._objects / hashlib.sha256(f"{team}:{key}".encode()).hexdigest()

    def expire(self) -> int:
        """Delete what was uploaded too long ago; how many uploads."""
        before_s = self._clock() - MEDIA_KEPT_S
        return sum(self._deleted_if_older(path, before_s) for path in self._objects.iterdir())

    def discard_partial(self) -> None:
        """Delete what interrupted uploads of an earlier service left."""
        for leftover in self._incoming.iterdir():
            leftover.unlink()

    def _deleted_if_older(self, path: Path, than_s: float) -> bool:
        try:
            with self._replacement:  # what came just now under an old key stays
                is_older = path.stat().st_mtime < than_s
                if is_older:
                    path.unlink()
        except OSError as error:  # the others go all the same
            _log.warning("an old upload cannot be deleted: %s", error.strerror)
            return False
        return is_older

    @contextmanager
    def _replacing(self, team: str, key: str) -> Iterator[BinaryIO]:
        descriptor, name = tempfile.mkstemp(dir=self._incoming)  # mode 0600
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
            now_s = self._clock()
            os.utime(temporary, (now_s, now_s))
            with self._replacement:
                temporary.replace(self.path(team, key))
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _signature(self, method: str, claim: str) -> str:
        return hmac.new(self._secret, f"{method}\n{claim}".encode(), hashlib.sha256).hexdigest()


def _kept_secret(path: Path) -> bytes:
    """The link secret of this folder: links outlive a restart."""
    if path.exists() and len(kept := path.read_bytes()) == _SECRET_BYTES:
        return kept  # an empty one, left by a power cut, would sign for everybody
    secret = secrets.token_bytes(_SECRET_BYTES)
    scratch.write_private(path, secret)
    return secret
