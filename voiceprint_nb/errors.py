"""Every error of the package, and the stable codes that rows carry.

::

    VoiceprintError
    ├── UsageError (ValueError)        the call itself is wrong; raised at once
    │   └── MissingExtra (ImportError) a feature needs an optional package
    ├── RowError                       one row; becomes columns of that row, never raised to the user
    └── ServiceError                   the service; raised when it concerns all rows
        ├── KeyRefused                 401 or 403: no row can succeed
        ├── NoCredit                   402: no row can succeed
        ├── RequestRefused             400 and other final answers to one request
        ├── RateLimited                429: wait, then try again
        ├── ServiceUnavailable         5xx, cut connections, timeouts
        └── ProtocolError              an answer outside the contract
"""

from __future__ import annotations

import functools
from typing import Any

__all__ = [
    "ROW_CODES",
    "KeyRefused",
    "MissingExtra",
    "NoCredit",
    "ProtocolError",
    "RateLimited",
    "RequestRefused",
    "RowError",
    "ServiceError",
    "ServiceUnavailable",
    "UsageError",
    "VoiceprintError",
]

ROW_CODES: dict[str, tuple[str, str]] = {
    # code: (vp_status, meaning)
    "empty_cell": ("invalid", "the cell is missing, empty or blank"),
    "unsupported_cell": ("invalid", "the cell is of a kind that holds no audio, such as a number"),
    "unsupported_scheme": ("invalid", "the address starts with a scheme that is not read"),
    "file_not_found": ("invalid", "no file at that path"),
    "is_directory": ("invalid", "the path is a folder, not a file"),
    "not_readable": ("invalid", "the file exists but may not be read"),
    "empty_file": ("invalid", "the file has no bytes"),
    "empty_audio": ("invalid", "the file is audio without a single sample"),
    "not_audio": ("invalid", "the bytes are not audio of a known format"),
    "needs_ffmpeg": ("invalid", "audio that only ffmpeg decodes, and ffmpeg is not installed"),
    "bad_header": ("invalid", "the header contradicts the file or itself"),
    "truncated": ("invalid", "the file ends before its audio does"),
    "bad_samples": ("invalid", "the samples hold NaN or infinite values"),
    "silent": ("invalid", "nothing can be heard"),
    "too_long": ("invalid", "longer than the service takes"),
    "too_large": ("invalid", "more bytes than the service takes"),
    "url_not_found": ("invalid", "the address answers that there is nothing"),
    "url_refused": ("invalid", "the address asks for a login or refuses"),
    "url_web_page": ("invalid", "the address answers with a web page instead of audio"),
    "url_redirects": ("invalid", "the address redirects too often"),
    "url_unreachable": ("invalid", "the address cannot be reached or breaks off"),
    "url_timeout": ("invalid", "the address sends too slowly or nothing at all"),
    "upload_failed": ("failed", "the clip could not be put into the service's storage"),
    "submit_unknown": ("failed", "the service may or may not have created the job"),
    "request_refused": ("failed", "the service refused this row's request"),
    "service_unavailable": ("failed", "the service did not answer, even after retries"),
    "bad_answer": ("failed", "the service answered outside its contract"),
    "job_failed": ("failed", "the service could not make a voiceprint of this clip"),
    "job_canceled": ("failed", "the service canceled the job"),
    "job_timeout": ("pending", "the job did not end in time; its id is kept and resume() asks again"),
    "job_open": ("pending", "the run ended while the job was open; its id is kept and resume() collects it"),
    "output_expired": ("failed", "the service deleted the output before it was collected"),
    "canceled": ("canceled", "the run was stopped before this row was finished"),
    "max_new": ("canceled", "the call had bought as many voiceprints as it may"),
}
"""Stable codes of ``vp_error_code``: the status that goes with each, and its meaning."""


class VoiceprintError(Exception):
    """Base of all errors of this package.

    Attributes
    ----------
    code : str
        Stable, documented identifier.
    retryable : bool
        Whether the same call may succeed later without a change.
    """

    code = "error"
    retryable = False


class UsageError(VoiceprintError, ValueError):
    """The call cannot work as written; the message names the remedy."""

    code = "usage"


class MissingExtra(UsageError, ImportError):
    """A feature needs a package that an extra installs."""

    code = "missing_extra"


class RowError(VoiceprintError):
    """One row cannot go on.

    Parameters
    ----------
    code : str
        A key of `ROW_CODES`.
    message : str
        One sentence that says what to do.

    Attributes
    ----------
    facts : AudioFacts or None
        What the header said, if it could be read before the clip was refused.
    """

    def __init__(self, code: str, message: str) -> None:
        if code not in ROW_CODES:
            raise KeyError(code)
        super().__init__(message)
        self.code = code
        self.facts: Any = None

    def __reduce__(self) -> Any:
        return type(self), (self.code, str(self)), self.__dict__

    @property
    def status(self) -> str:
        """The ``vp_status`` that goes with the code."""
        return ROW_CODES[self.code][0]


class ServiceError(VoiceprintError):
    """The service refused or failed.

    Parameters
    ----------
    message : str
        One sentence that says what to do.
    status : int, optional
        HTTP status of the answer, if there was one.

    Attributes
    ----------
    concerns_all_rows : bool
        Whether no row can go on, so that the run stops.
    partial : pandas.DataFrame or None
        What was finished before the run stopped.
    """

    code = "service_unavailable"
    concerns_all_rows = False
    partial: object = None

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class KeyRefused(ServiceError):
    """The key is missing, wrong, or lacks a permission (401, 403)."""

    code = "key_refused"


class NoCredit(ServiceError):
    """The account has no subscription or credit left (402)."""

    code = "no_credit"


class RequestRefused(ServiceError):
    """The service will never accept this request (400, 404, 413, 415)."""

    code = "request_refused"


class RateLimited(ServiceError):
    """Too many requests (429).

    Parameters
    ----------
    retry_after_s : float
        Seconds until the next request may succeed.
    """

    code = "service_unavailable"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float, status: int | None = 429) -> None:
        super().__init__(message, status=status)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> Any:
        rebuild = functools.partial(type(self), retry_after_s=self.retry_after_s)
        return rebuild, (str(self),), self.__dict__


class ServiceUnavailable(ServiceError):
    """No usable answer: 5xx, a cut connection, a timeout.

    Parameters
    ----------
    sent : bool
        Whether the request may have reached the service.
    """

    code = "service_unavailable"
    retryable = True

    def __init__(self, message: str, *, status: int | None = None, sent: bool = True) -> None:
        super().__init__(message, status=status)
        self.sent = sent


class ProtocolError(ServiceError):
    """The service answered outside the contract."""

    code = "bad_answer"
