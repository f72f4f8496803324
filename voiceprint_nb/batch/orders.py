"""Steps 4 to 8 of a row: ledger, upload, submission, waiting, result. Nothing is bought twice."""

from __future__ import annotations

import asyncio
import ipaddress
from datetime import datetime
from typing import Self
from urllib.parse import urlsplit

from voiceprint_nb import contract
from voiceprint_nb.batch.outcomes import Outcome, Service
from voiceprint_nb.batch.store import Entry, Ledger
from voiceprint_nb.client import jobs, uploads
from voiceprint_nb.errors import RequestRefused, RowError, ServiceError, ServiceUnavailable
from voiceprint_nb.intake.clips import Clip
from voiceprint_nb.intake.sources import UrlSource

_JOB_TIMEOUT_S = 300.0
_CLAIM_POLL_S = 0.1
_CLOCK_SKEW_S = 120.0  # between this machine and the service
_MOST_PAGES = 50


class Orders:
    """One run's dealings with the service and the ledger; an async context manager.

    Parameters
    ----------
    service : Service
        Where to ask.
    ledger : Ledger
        What is known, and where results are kept first.
    model : str or None
        Model to ask for.
    """

    def __init__(self, service: Service, ledger: Ledger, model: str | None) -> None:
        self._service = service
        self._ledger = ledger
        self._model = model
        self._api = service.open_api()
        self._waiter = jobs.Waiter(self._api, interval_s=service.poll_s)
        self._key_check: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._api.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._key_check is not None:
            self._key_check.cancel()
        await self._waiter.close()
        await self._api.__aexit__(*exc)

    def waiting_for_limit(self) -> int:
        """Requests that wait for the service's rate limit."""
        return self._api.waiting_for_limit

    async def known(self, key: str) -> Outcome | None:
        """Step 4: the outcome of a request that the ledger knows; None if it must be submitted.

        Raises
        ------
        RowError
            ``submit_unknown`` if an earlier submission was cut off and may have been billed.
        """
        while (entry := self._ledger.find(key)) is not None:
            if entry.state == "succeeded":
                return Outcome(
                    "succeeded", entry.voiceprint, warning=entry.warning, job_id=entry.job_id, source="reused"
                )
            if entry.state == "open":
                await self.check_key()
                if (outcome := await self._wait(key, entry.job_id, source="reused")) is None:
                    self._ledger.drop(
                        key, entry
                    )  # a service that was started anew: the job is gone, unbilled
                return outcome
            if entry.orphaned:
                await self._refuse_if_created(key, entry)
                self._ledger.drop(key, entry)
                return None
            await asyncio.sleep(_CLAIM_POLL_S)  # another run submits the same clip right now
        return None

    async def reach(self, source: object, clip: Clip) -> str:
        """Step 5: an address that the service can fetch: the row's own, or an upload's."""
        if isinstance(source, UrlSource) and not clip.is_cut:
            host = urlsplit(source.url).hostname or ""
            if self._service.sees_private_hosts or not _is_private(host):
                return source.url
        return await uploads.put(self._api, clip.path, n_bytes=clip.n_bytes, digest=clip.digest)

    async def submit(self, key: str, url: str) -> str | None:
        """Step 6: create the job; the ledger knows its id before anything waits.

        Returns
        -------
        str or None
            The job's id; None if another run was faster, so that the ledger is to be asked again.
        """
        if not self._ledger.claim(key):
            return None
        try:
            created = await jobs.submit(self._api, contract.VoiceprintRequest(url, self._model))
        except ServiceUnavailable as error:
            if error.sent and (entry := self._ledger.find(key)) is not None:
                await self._refuse_if_created(key, entry)
            self._ledger.drop(key)
            raise
        except RequestRefused as error:
            self._ledger.drop(key)
            raise RowError("request_refused", f"{error} Correct the row's address or the model.") from error
        except ServiceError:
            self._ledger.drop(key)
            raise
        self._ledger.opened(key, created.job_id, created.warning)
        return created.job_id

    async def collect(self, key: str, job_id: str) -> Outcome:
        """Steps 7 and 8: wait for a job of this run, and keep its result."""
        outcome = await self._wait(key, job_id, source="new")
        if outcome is None:
            self._ledger.drop(key)
            raise RowError("bad_answer", "The service does not know the job it has just created: run again.")
        return outcome

    async def check_key(self) -> None:
        """Ask once a run, before anything is sent, whether the service is there and takes the key."""
        if self._key_check is None:
            self._key_check = asyncio.create_task(self._api.check_key())
        try:
            await asyncio.shield(self._key_check)
        except ServiceError as error:
            error.concerns_all_rows = True
            raise

    async def _wait(self, key: str, job_id: str, *, source: str) -> Outcome | None:
        job = await self._waiter.wait(job_id, timeout_s=_JOB_TIMEOUT_S)
        if job is None:
            return None
        if job.status == contract.SUCCEEDED and job.voiceprint:
            self._ledger.succeeded(key, voiceprint=job.voiceprint, warning=job.warning)
            return Outcome("succeeded", job.voiceprint, warning=job.warning, job_id=job_id, source=source)
        self._ledger.drop(key)
        raise _job_error(job)

    async def _refuse_if_created(self, key: str, entry: Entry) -> None:
        """Raise if the job list shows a job that nobody here knows: it may be this one."""
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = await jobs.page(self._api, cursor)
            for item in page.items:
                if _unix_s(item.created_at) < entry.claimed_at - _CLOCK_SKEW_S:
                    return
                if not self._ledger.knows_job(item.id):
                    self._ledger.drop(key, entry)
                    raise RowError(
                        "submit_unknown",
                        "The connection or the process ended during the submission, and the service may have "
                        "created (and billed) this job: run the line again to submit it once more.",
                    )
            cursor = page.next_cursor
            if cursor is None:
                return


def _job_error(job: contract.Job) -> RowError:
    said = f": {job.error.rstrip('.')}." if job.error else "."
    if job.status == contract.SUCCEEDED:
        return RowError(
            "output_expired",
            "The service deleted the output (it keeps outputs for 24 h): run the line again for a new print.",
        )
    if job.status == contract.CANCELED:
        return RowError("job_canceled", f"The service canceled the job{said} Run the line again.")
    return RowError("job_failed", f"The service could not use the clip{said} Listen to it, or replace it.")


def _unix_s(timestamp: str) -> float:
    try:
        return datetime.fromisoformat(timestamp).timestamp()
    except ValueError:
        return float("inf")  # unreadable: treated as recent, so that nothing is bought twice


def _is_private(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".localhost", ".lan"))
