"""The REST contract of the batch API, as values: routes, limits, messages, signatures, voiceprint text.

Standard library only. The client and the local service both obey this module; nothing here does I/O.
Facts and their sources: the public reference at docs.pyannote.ai (reference version of August 2026) and
the behaviour of ``pyannoteai-sdk`` 0.4.0.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from voiceprint_nb.errors import ProtocolError, UsageError

TEST_PATH = "/v1/test"
MEDIA_INPUT_PATH = "/v1/media/input"
MEDIA_OUTPUT_PATH = "/v1/media/output"
VOICEPRINT_PATH = "/v1/voiceprint"
JOB_PATH = "/v1/jobs/{job_id}"
JOBS_PATH = "/v2/jobs"
OLD_JOBS_PATH = "/v1/jobs"

MAX_DURATION_S = 30.0
MAX_BYTES = 100 * 1024 * 1024
MAX_VOICEPRINT_CHARS = 20_000
MAX_MEDIA_KEY_CHARS = 255
MAX_URL_CHARS = 4096
MAX_WEBHOOK_CHARS = 2048
MAX_PAGE_ITEMS = 100
DEFAULT_PAGE_ITEMS = 10
OUTPUT_LIFE_S = 24 * 3600.0
MEDIA_LIFE_S = 24 * 3600.0
MEDIA_LINK_LIFE_S = 3600.0
WEBHOOK_TOLERANCE_S = 300.0
WEBHOOK_TIMEOUT_S = 10.0
WEBHOOK_MAX_REDIRECTS = 2
WEBHOOK_RETRY_DELAYS_S = (0.0, 60.0, 300.0)  # each counted from the failure before
WEBHOOK_RETRY_REASONS = (
    "http_timeout",
    "too_many_redirects",
    "connection_failed",
    "ssl_error",
    "http_error",
    "unknown_error",
)
RATE_WINDOW_S = 60.0
WRITES_PER_WINDOW = 100
READS_PER_WINDOW = 300
LEAST_BILLED_S = 20.0  # of audio, for each job that is billed by time

DEFAULT_MODEL = "precision-2"
VOICEPRINT_MODELS = ("precision-2", "precision-3")

CREATED, PENDING, RUNNING = "created", "pending", "running"
SUCCEEDED, FAILED, CANCELED = "succeeded", "failed", "canceled"
JOB_STATUSES = (PENDING, CREATED, RUNNING, SUCCEEDED, FAILED, CANCELED)
TERMINAL_STATUSES = frozenset({SUCCEEDED, FAILED, CANCELED})

MEDIA_KEY_PATTERN = re.compile(r"media://[a-zA-Z0-9\-_./]+")
JOB_URL_PATTERN = re.compile(r"(https?|media)://[!-~]+")
WEBHOOK_PATTERN = re.compile(r"https?://[!-~]+")
_FINGERPRINT = re.compile(r"[0-9a-f]{32}")
_UNIX_TIME_FROM = 1_000_000_000.0  # a larger X-RateLimit-Reset is Unix time, anything else is seconds


def is_terminal(status: str) -> bool:
    """Whether a job of this status will not change any more; unknown statuses count as running."""
    return status in TERMINAL_STATUSES


# --- requests -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FieldError:
    """One entry of ``errors`` in the body of a 400."""

    field: str
    message: str


class InvalidRequest(Exception):
    """A request body that the contract does not allow; carries the documented error entries."""

    def __init__(self, *errors: FieldError) -> None:
        super().__init__("Invalid request")
        self.errors = errors

    def to_wire(self) -> dict[str, Any]:
        """Body of the 400 answer."""
        entries = [{"field": error.field, "message": error.message} for error in self.errors]
        return {"message": "Invalid request", "errors": entries}


def _object(body: object) -> Mapping[str, Any]:
    if not isinstance(body, dict):
        raise InvalidRequest(FieldError("body", "Expected a JSON object"))
    return body


@dataclass(frozen=True)
class MediaRequest:
    """Body of ``POST /v1/media/input`` and ``/v1/media/output``: the ``media://`` key."""

    url: str

    def to_wire(self) -> dict[str, Any]:
        """JSON object of the request."""
        return {"url": self.url}

    @classmethod
    def from_wire(cls, body: object) -> MediaRequest:
        """Validate a decoded JSON body; raises `InvalidRequest`."""
        url = _object(body).get("url")
        if not isinstance(url, str) or not is_media_key(url):
            raise InvalidRequest(FieldError("url", "Invalid URL"))
        return cls(url)


@dataclass(frozen=True)
class VoiceprintRequest:
    """Body of ``POST /v1/voiceprint``.

    Parameters
    ----------
    url : str
        Direct ``http(s)`` link or ``media://`` key, at most 4096 characters.
    model : str or None
        One of `VOICEPRINT_MODELS`; None means the default.
    webhook : str or None
        Address that receives the terminal event, at most 2048 characters.
    webhook_status_only : bool
        Leave the output out of the event.
    """

    url: str = field(repr=False)  # may be a signed link
    model: str | None = None
    webhook: str | None = field(default=None, repr=False)
    webhook_status_only: bool = False

    def to_wire(self) -> dict[str, Any]:
        """JSON object of the request, without fields at their default."""
        body: dict[str, Any] = {"url": self.url}
        if self.model is not None:
            body["model"] = self.model
        if self.webhook is not None:
            body["webhook"] = self.webhook
        if self.webhook_status_only:
            body["webhookStatusOnly"] = True
        return body

    @classmethod
    def from_wire(
        cls, body: object, *, files: bool = False, plain_webhooks: bool = False
    ) -> VoiceprintRequest:
        """Validate a decoded JSON body; raises `InvalidRequest` with every field at fault.

        With ``files``, a ``file://`` address is allowed too: for a service inside the user's own process.
        With ``plain_webhooks``, events may go to ``http://`` addresses: the hosted service takes https only.
        """
        data, errors = _object(body), []
        url, model = data.get("url"), data.get("model")
        webhook, status_only = data.get("webhook"), data.get("webhookStatusOnly", False)
        if not isinstance(url, str) or not (is_job_url(url) or (files and is_file_url(url))):
            errors.append(FieldError("url", "Invalid URL"))
        if model is not None and model not in VOICEPRINT_MODELS:
            errors.append(FieldError("model", f"Expected one of {', '.join(VOICEPRINT_MODELS)}"))
        if "webhook" in data and not (isinstance(webhook, str) and is_webhook_url(webhook)):
            errors.append(FieldError("webhook", "Invalid URL"))
        elif isinstance(webhook, str) and not (plain_webhooks or webhook.startswith("https://")):
            errors.append(FieldError("webhook", "Expected an https address"))
        if not isinstance(status_only, bool):
            errors.append(FieldError("webhookStatusOnly", "Expected a boolean"))
        if errors:
            raise InvalidRequest(*errors)
        return cls(str(url), model, webhook, bool(status_only))


def is_media_key(url: str) -> bool:
    """Whether the contract allows this text as a ``media://`` key."""
    return len(url) <= MAX_MEDIA_KEY_CHARS and MEDIA_KEY_PATTERN.fullmatch(url) is not None


def is_job_url(url: str) -> bool:
    """Whether the contract allows this text as the ``url`` of a job."""
    return len(url) <= MAX_URL_CHARS and JOB_URL_PATTERN.fullmatch(url) is not None


def is_file_url(url: str) -> bool:
    """Whether this is the address of a local file, short enough to be sent."""
    return url.startswith("file:///") and len(url) <= MAX_URL_CHARS


def is_webhook_url(url: str) -> bool:
    """Whether the contract allows this text as the ``webhook`` of a job."""
    return len(url) <= MAX_WEBHOOK_CHARS and WEBHOOK_PATTERN.fullmatch(url) is not None


# --- answers --------------------------------------------------------------------------------------------


def _text(body: object, key: str, *, where: str) -> str:
    value = body.get(key) if isinstance(body, dict) else None
    if not isinstance(value, str):
        raise ProtocolError(f"The service's answer to {where} has no text field {key!r}.")
    return _writable(value)


def _optional_text(body: Mapping[str, Any], key: str) -> str | None:
    value = body.get(key)
    return _writable(value) if isinstance(value, str) else None


def _writable(text: str) -> str:
    """The text without halves of surrogate pairs, which JSON may hold, but no file and no database."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _remark(body: Mapping[str, Any]) -> str | None:
    told = _optional_text(body, "warning")
    return None if told is None else scrubbed(told)


@dataclass(frozen=True)
class MediaTicket:
    """Answer of ``POST /v1/media/input`` (201): a presigned link, which is itself a secret."""

    url: str = field(repr=False)

    def to_wire(self) -> dict[str, Any]:
        """JSON object of the answer."""
        return {"url": self.url}

    @classmethod
    def from_wire(cls, body: object) -> MediaTicket:
        """Read a decoded answer; raises `ProtocolError`."""
        return cls(_text(body, "url", where="the upload request"))


@dataclass(frozen=True)
class JobCreated:
    """Answer of a submit call (200)."""

    job_id: str
    status: str = CREATED
    warning: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """JSON object of the answer."""
        body: dict[str, Any] = {"jobId": self.job_id, "status": self.status}
        if self.warning is not None:
            body["warning"] = self.warning
        return body

    @classmethod
    def from_wire(cls, body: object) -> JobCreated:
        """Read a decoded answer; raises `ProtocolError`."""
        job_id = _text(body, "jobId", where="the submission")
        status = _text(body, "status", where="the submission")
        return cls(job_id, status, _remark(body) if isinstance(body, dict) else None)


@dataclass(frozen=True)
class Job:
    """Answer of ``GET /v1/jobs/{jobId}``.

    ``output`` is there for succeeded jobs during 24 h, and carries ``error`` for failed and canceled ones.
    """

    job_id: str
    status: str
    created_at: str
    updated_at: str | None = None
    output: Mapping[str, Any] | None = field(default=None, repr=False)  # holds the voiceprint

    @property
    def voiceprint(self) -> str | None:
        """The voiceprint text, if the answer carries one."""
        return _optional_text(self.output or {}, "voiceprint")

    @property
    def warning(self) -> str | None:
        """The service's remark on the job, fit to be shown."""
        return _remark(self.output or {})

    @property
    def error(self) -> str | None:
        """The service's reason for a failure."""
        return _optional_text(self.output or {}, "error")

    def to_wire(self) -> dict[str, Any]:
        """JSON object of the answer."""
        body: dict[str, Any] = {
            "jobId": self.job_id,
            "status": self.status,
            "createdAt": self.created_at,
            "updatedAt": self.updated_at,
        }
        if self.output is not None:
            body["output"] = dict(self.output)
        return body

    @classmethod
    def from_wire(cls, body: object) -> Job:
        """Read a decoded answer; raises `ProtocolError`."""
        job_id = _text(body, "jobId", where="the job request")
        status = _text(body, "status", where="the job request")
        data = body if isinstance(body, dict) else {}
        output = data.get("output")
        return cls(
            job_id,
            status,
            _optional_text(data, "createdAt") or "",
            _optional_text(data, "updatedAt"),
            output if isinstance(output, dict) else None,
        )


@dataclass(frozen=True)
class JobListItem:
    """One job in a list; the key is ``id`` here and ``jobId`` elsewhere."""

    id: str
    status: str
    created_at: str = ""

    def to_wire(self) -> dict[str, Any]:
        """JSON object of the item."""
        return {"id": self.id, "status": self.status, "createdAt": self.created_at}


@dataclass(frozen=True)
class JobPage:
    """Answer of ``GET /v2/jobs``: newest first, without output."""

    items: tuple[JobListItem, ...]
    next_cursor: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """JSON object of the answer."""
        return {"items": [item.to_wire() for item in self.items], "nextCursor": self.next_cursor}

    @classmethod
    def from_wire(cls, body: object) -> JobPage:
        """Read a decoded answer; items that are not jobs raise `ProtocolError`."""
        items = body.get("items") if isinstance(body, dict) else None
        if not isinstance(items, list) or not isinstance(body, dict):
            raise ProtocolError("The service's answer to the job list has no list field 'items'.")
        jobs = tuple(
            JobListItem(
                _text(item, "id", where="the job list"),
                _text(item, "status", where="the job list"),
                _optional_text(item, "createdAt") or "",
            )
            for item in items
        )
        return cls(jobs, _optional_text(body, "nextCursor"))


@dataclass(frozen=True)
class JobSlice:
    """Answer of the older ``GET /v1/jobs``: newest first, without output."""

    items: tuple[JobListItem, ...]
    total: int

    def to_wire(self) -> dict[str, Any]:
        """JSON object of the answer."""
        return {"items": [item.to_wire() for item in self.items], "total": self.total}


@dataclass(frozen=True)
class WebhookEvent:
    """Body of a webhook: a job's terminal status, with the output of a succeeded one if that is wanted."""

    job_id: str
    status: str
    output: Mapping[str, Any] | None = field(default=None, repr=False)  # holds the voiceprint

    def to_wire(self) -> dict[str, Any]:
        """JSON object of the event."""
        body: dict[str, Any] = {"jobId": self.job_id, "status": self.status}
        if self.output is not None:
            body["output"] = dict(self.output)
        return body


@dataclass(frozen=True)
class ApiError:
    """Body of every error answer but 400."""

    request_id: str
    message: str

    def to_wire(self) -> dict[str, Any]:
        """JSON object of the body."""
        return {"requestId": self.request_id, "message": self.message}


def error_text(body: object) -> str:
    """The readable part of any error body: empty and non-JSON ones give an empty text."""
    if not isinstance(body, dict):
        return ""
    message = _optional_text(body, "message") or ""
    entries = body.get("errors")
    details = [
        ": ".join(filter(None, (_optional_text(entry, "field"), _optional_text(entry, "message"))))
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict)
    ]
    told = "; ".join(filter(None, details))
    return f"{message} ({told})".strip() if told else message


_MOST_CHARACTERS = 2000  # of a text, to look through
_SECRETS = (
    (re.compile(r"\b[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE), "<address>"),  # which may be signed
    (re.compile(r"(?<![^\s?])[^\s?]*\?[^\s=?]+=\S*"), "<address>"),
    (re.compile(r"\bBearer\s+(?=\S*\d)\S+", re.IGNORECASE), "Bearer <key>"),
    (re.compile(r"[\w+/=-]{100,}"), "<data>"),
)


def scrubbed(text: str) -> str:
    """What a service says, fit to be shown: without what may be a secret or a voiceprint, and not too long.

    >>> scrubbed("Bearer sk_1 may not read https://host/a.wav?sig=2 nor /b.wav?sig=2")
    'Bearer <key> may not read <address> nor <address>'
    """
    for pattern, stand_in in _SECRETS:
        text = pattern.sub(stand_in, text[:_MOST_CHARACTERS])
    return text[:300]


# --- rate limit headers ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class RateFacts:
    """What an answer's headers tell about the limit of its endpoint."""

    limit: int | None = None
    remaining: int | None = None
    reset_s: float | None = None
    retry_after_s: float | None = None

    @classmethod
    def from_headers(cls, headers: Mapping[str, str], *, now_unix_s: float) -> RateFacts:
        """Read ``X-RateLimit-*`` and ``Retry-After``; what is absent or malformed is None.

        A reset above 1 000 000 000 is Unix time, anything else is seconds from now.
        """
        lower = {key.lower(): value for key, value in headers.items()}

        def number(key: str) -> float | None:
            try:
                value = float(lower[key])
            except (KeyError, ValueError):
                return None
            return value if 0 <= value < float("inf") else None

        limit, remaining = number("x-ratelimit-limit"), number("x-ratelimit-remaining")
        reset = number("x-ratelimit-reset")
        if reset is not None and reset > _UNIX_TIME_FROM:
            reset = max(0.0, reset - now_unix_s)
        return cls(
            None if limit is None else int(limit),
            None if remaining is None else int(remaining),
            reset,
            number("retry-after"),
        )


# --- webhook signatures ---------------------------------------------------------------------------------


class BadSignature(Exception):
    """A webhook that does not come from the service, or is too old."""


def sign_webhook(secret: str, timestamp: str, body: bytes) -> str:
    """Value of ``X-Signature``: lowercase hex of HMAC-SHA256 over ``v0:timestamp:body``."""
    return _webhook_digest(secret, timestamp, body).hex()


def verify_webhook(
    secret: str,
    timestamp: str,
    signature: str,
    body: bytes,
    *,
    now_unix_s: float,
    tolerance_s: float = WEBHOOK_TOLERANCE_S,
) -> None:
    """Check a webhook's signature, in hex or base64, then the age of its timestamp.

    Raises
    ------
    BadSignature
        The signature does not match, or the timestamp is no number or too far from now.
    """
    if not (timestamp.isascii() and signature.isascii()):
        raise BadSignature("signature or timestamp holds characters that none has")
    digest = _webhook_digest(secret, timestamp, body)
    given = signature.strip().removeprefix("v0=").encode()
    as_hex = hmac.compare_digest(given, digest.hex().encode())
    as_base64 = hmac.compare_digest(given, base64.b64encode(digest))
    if not (as_hex or as_base64):
        raise BadSignature("signature does not match")
    if not re.fullmatch(r"[0-9]{1,12}", timestamp) or abs(now_unix_s - int(timestamp)) > tolerance_s:
        raise BadSignature("timestamp outside the allowed window")


def _webhook_digest(secret: str, timestamp: str, body: bytes) -> bytes:
    return hmac.new(secret.encode(), b"v0:" + timestamp.encode() + b":" + body, hashlib.sha256).digest()


# --- voiceprint text ------------------------------------------------------------------------------------

_MAGIC = b"VPNB"
_VERSION = 1
_HEAD = struct.Struct("<4sB16sH")


@dataclass(frozen=True)
class VoiceprintRecord:
    """What the text of a local voiceprint holds.

    Parameters
    ----------
    fingerprint : str
        32 hex digits that name network and feature recipe.
    vector : bytes
        The embedding, float32 little endian, L2-normalised.
    """

    fingerprint: str
    vector: bytes = field(repr=False)


def encode_voiceprint(fingerprint: str, vector: bytes) -> str:
    """Base64 text of a record: magic, version, fingerprint, dimensions, float32 little-endian values."""
    if not _FINGERPRINT.fullmatch(fingerprint) or len(vector) % 4 or not 0 < len(vector) // 4 < 65536:
        raise ValueError("expected a fingerprint of 32 hex digits and 1 to 65535 float32 values")
    head = _HEAD.pack(_MAGIC, _VERSION, bytes.fromhex(fingerprint), len(vector) // 4)
    return base64.b64encode(head + vector).decode("ascii")


def decode_voiceprint(text: str) -> VoiceprintRecord:
    """Read a local voiceprint's text.

    Raises
    ------
    UsageError
        The text is a hosted (opaque) voiceprint, damaged, or of a newer format.
    """
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        data = b""
    if not data.startswith(_MAGIC):
        raise UsageError(
            "This voiceprint is opaque (made by the hosted service) or not a voiceprint: it cannot be "
            "compared on this machine. Make local prints of the same clips with service='local', or let the "
            "service's identify endpoint compare."
        )
    version = data[len(_MAGIC)] if len(data) > len(_MAGIC) else _VERSION
    if version > _VERSION:
        raise UsageError(f"This voiceprint has format version {version}; upgrade voiceprint_nb to read it.")
    damaged = UsageError("This voiceprint is damaged (cut short or edited): make it again from its clip.")
    if len(data) < _HEAD.size or version != _VERSION:
        raise damaged
    _, _, fingerprint, dimensions = _HEAD.unpack_from(data)
    vector = data[_HEAD.size :]
    if len(vector) != 4 * dimensions or not dimensions:
        raise damaged
    return VoiceprintRecord(fingerprint.hex(), vector)
