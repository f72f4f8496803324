"""What the job table holds, as values."""

from __future__ import annotations

import json
import logging
import secrets
import time
import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from voiceprint_nb.contract import OUTPUT_LIFE_S, SUCCEEDED, Job, JobListItem, WebhookEvent

LINES = UPLOAD, LINK, ALONE = "upload", "link", "alone"  # in which jobs wait: see `WaitingJob`
_UPLOADS = ("media://", "file://")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WaitingJob:
    """What the work on a job needs.

    Parameters
    ----------
    seq : int
        Position in the order of arrival.
    id : str
        As callers know it.
    team : str
        Whose it is.
    line : str
        Where it waits: `UPLOAD` or `LINK`, by where its audio lies; `ALONE` if the process died twice while
        the engine had it, as it may be what kills.
    url : str
        Where its audio lies; may be a signed link.
    created_ms : int
        When it was accepted.
    """

    seq: int
    id: str
    team: str
    line: str
    url: str = field(repr=False)
    created_ms: int

    @property
    def is_linked(self) -> bool:
        """Whether its audio must be fetched before the engine can have it."""
        return line_of(self.url) == LINK

    def ended(self, how: Change) -> StoredJob:
        """The job after the change that ended it."""
        return StoredJob(self.id, how.status, self.created_ms, how.at_ms, how.output)


@dataclass(frozen=True)
class StoredJob:
    """One row as readers see it; ``output`` is JSON text."""

    id: str
    status: str
    created_ms: int
    updated_ms: int
    output: str | None = field(default=None, repr=False)

    def to_job(self, *, now_ms: int) -> Job:
        """The job as callers read it: its output is there during 24 h after its end."""
        output = self._read_output() if self._is_fresh(now_ms) else None
        return Job(self.id, self.status, timestamp(self.created_ms), timestamp(self.updated_ms), output)

    def to_item(self) -> JobListItem:
        """The job as an item of a list."""
        return JobListItem(self.id, self.status, timestamp(self.created_ms))

    def to_event(self, *, now_ms: int, status_only: bool) -> WebhookEvent:
        """The job's end as its webhook tells it."""
        told = self.status == SUCCEEDED and self._is_fresh(now_ms) and not status_only
        return WebhookEvent(self.id, self.status, self._read_output() if told else None)

    def _read_output(self) -> dict[str, Any] | None:
        try:
            output = json.loads(self.output) if self.output is not None else None
        except ValueError:
            _log.error("the stored output of a job is damaged", extra={"job": self.id})
            return None
        return output if isinstance(output, dict) else None

    def _is_fresh(self, now_ms: int) -> bool:
        return now_ms - self.updated_ms <= OUTPUT_LIFE_S * 1000


@dataclass(frozen=True)
class Delivery:
    """A webhook that is due.

    Parameters
    ----------
    seq : int
        Of its job.
    attempt : int
        0 for the first, then the number of the retry.
    reason : str or None
        Why the attempt before failed.
    team : str
        Whose secret signs it.
    url : str
        Where it goes.
    event : WebhookEvent
        What it says.
    """

    seq: int
    attempt: int
    reason: str | None
    team: str
    url: str = field(repr=False)
    event: WebhookEvent = field(repr=False)

    @property
    def host(self) -> str:
        """Where it goes, without what may be secret."""
        return host_of(self.url)


@dataclass(frozen=True)
class Change:
    """A job's new status; the link goes away with the first final one, which alone has an output.

    ``starts`` is 1 when the engine is to get the job, and -1 when it gives it back.
    """

    seq: int
    status: str
    at_ms: int
    output: str | None = field(default=None, repr=False)
    starts: int = 0


def line_of(url: str) -> str:
    """Where a new job on this address waits, as the table itself says it (`schema`)."""
    return UPLOAD if url.startswith(_UPLOADS) else LINK


def host_of(url: str) -> str:
    """The host of an address; empty if it has none.

    >>> host_of("https://user:key@Clips.example:8443/a?b")
    'clips.example'
    """
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def job_id_at(unix_ms: int, nth: int = 0) -> str:
    """A UUID of version 7 (RFC 9562): sorts by time, so any id is a position in a list.

    Parameters
    ----------
    unix_ms : int
        When the job arrives.
    nth : int
        Its number among those of this millisecond, at most 4095.

    >>> job_id_at(1763469434750, 3)[:18]
    '019a96f8-1f7e-7003'
    """
    variant = 0b10 << 62
    return str(uuid.UUID(int=unix_ms << 80 | 7 << 76 | nth << 64 | variant | secrets.randbits(62)))


def moment_of(job_id: str) -> tuple[int, int]:
    """What `job_id_at` was told; (0, 0) of ids that it did not make.

    >>> moment_of(job_id_at(1763469434750, 3))
    (1763469434750, 3)
    """
    try:
        number = uuid.UUID(job_id).int
    except ValueError:
        return 0, 0
    return (number >> 80, number >> 64 & 0xFFF) if number >> 76 & 0xF == 7 else (0, 0)


def timestamp(unix_ms: int) -> str:
    """ISO 8601 text in UTC with milliseconds and ``Z``.

    >>> timestamp(1763469434750)
    '2025-11-18T12:37:14.750Z'
    """
    seconds, rest_ms = divmod(unix_ms, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest_ms:03d}Z"
