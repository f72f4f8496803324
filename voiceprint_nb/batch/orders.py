"""Steps 4 to 8 of a row: ledger, upload, submission, waiting, result. Nothing is bought twice."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from datetime import UTC, datetime
from typing import Self
from urllib.parse import urlsplit

from voiceprint_nb import contract
from voiceprint_nb.batch.outcomes import Outcome, Service
from voiceprint_nb.batch.store import Entry, Ledger
from voiceprint_nb.client import jobs, uploads
from voiceprint_nb.errors import (
    KeyRefused,
    NoCredit,
    ProtocolError,
    RateLimited,
    RequestRefused,
    RowError,
    ServiceError,
    ServiceUnavailable,
)
from voiceprint_nb.intake.clips import Clip
from voiceprint_nb.intake.sources import MediaSource, Source

_CLAIM_POLL_S = 0.1
_CLOCK_SKEW_S = 120.0  # between this machine and the service
_MOST_PAGES = 50
_MOST_REPEATS = 2  # of a submission that the service has failed to carry out
_GRACE_S = 0.3  # a stopped run waits so long for the answer to a submission that has left
_SIBLINGS_S = 10.0


class _Taken(Exception):
    """Another run was faster."""


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
        self._waiter = jobs.Waiter(self._api, interval_s=service.poll_s, events=service.receiver)
        self._webhook = service.receiver.webhook_url if service.receiver else None
        self._key_check: asyncio.Task[None] | None = None
        self._sending: dict[str, asyncio.Task[Entry]] = {}  # submissions that have left, by request
        self._repeats: Counter[str] = Counter()
        self._unknown: list[tuple[str, float]] = []  # claims of unknown fate, of which rows of this run tell

    async def __aenter__(self) -> Self:
        await self._api.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if exc[0] is None:  # the run's rows tell of them: the user decides, and a next run may submit again
            for key, claimed_at in self._unknown:
                self._ledger.drop(key, claimed_at=claimed_at)
        tasks = [*self._sending.values(), *([self._key_check] if self._key_check else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._waiter.close()
        await self._api.__aexit__(*exc)

    def waiting_for_limit(self) -> int:
        """Requests that wait for the service's rate limit."""
        return self._api.waiting_for_limit

    def notice(self) -> str:
        """What holds all rows up right now, or empty."""
        if self._api.is_down:
            return "the service is failing, waiting for it"
        receiver = self._service.receiver
        return (receiver.problem or "") if receiver else ""

    async def known(self, key: str) -> Outcome | None:
        """Step 4: the outcome of a request that the ledger knows; None if it must be submitted.

        Raises
        ------
        RowError
            ``submit_unknown`` if an earlier submission was cut off and may have been billed.
        """
        deadline_s = asyncio.get_running_loop().time() + self._service.job_timeout_s
        while (entry := self._ledger.find(key)) is not None:
            if entry.state == "succeeded":
                return Outcome(
                    "succeeded", entry.voiceprint, warning=entry.warning, job_id=entry.job_id, source="reused"
                )
            if entry.state == "open":
                await self.check_key()
                if (outcome := await self._wait(key, entry, source="reused")) is None:
                    # a service that was started anew: the job is gone, unbilled
                    self._ledger.drop(key, job_id=entry.job_id)
                return outcome
            if entry.orphaned:
                await self.check_key()
                await self._refuse_if_created(key, entry)
                self._ledger.drop(key, claimed_at=entry.claimed_at)
                return None
            if asyncio.get_running_loop().time() > deadline_s:
                raise RowError(
                    "job_timeout", "Another run has been submitting this clip for long: resume() asks again."
                )
            await asyncio.sleep(_CLAIM_POLL_S)  # another run submits the same clip right now
        return None

    async def reach(self, source: Source, clip: Clip | None) -> str:
        """Step 5: an address that the service can fetch: the row's own, or an upload's."""
        if isinstance(source, MediaSource):
            return source.key
        if clip is None:
            raise TypeError("only media keys come without a clip")
        if clip.url is not None:
            return clip.url
        if self._service.sees_files and contract.is_file_url(address := clip.path.absolute().as_uri()):
            return address
        return await uploads.put(self._api, clip.path, n_bytes=clip.n_bytes, digest=clip.digest)

    async def submit(self, key: str, url: str) -> Entry | None:
        """Step 6: create the job; the ledger knows its id before anything waits.

        A run that is stopped while the request is on its way still waits a moment for the job's id.

        Returns
        -------
        Entry or None
            The open job; None if the ledger is to be asked again: another run was faster, or the service
            failed, and its job list shows that there is no job.

        Raises
        ------
        RowError
            ``request_refused``, or ``submit_unknown`` if there may be a job of unknown id.
        """
        sending = asyncio.create_task(self._send(key, url))
        try:
            return await asyncio.shield(sending)
        except _Taken:
            return None
        except asyncio.CancelledError:
            if key in self._sending:
                await asyncio.wait([sending], timeout=_GRACE_S)
            raise
        except RequestRefused as error:
            raise RowError("request_refused", f"{error} Correct the row's address or the model.") from error
        except (ServiceUnavailable, ProtocolError) as error:
            if (entry := self._ledger.find(key)) is None or not entry.orphaned:
                raise
            await self._look_for(key, entry)
            self._repeats[key] += 1
            if error.status is None or self._repeats[key] > _MOST_REPEATS:
                raise  # the claim stays abandoned: a later run looks for the job again
            await asyncio.sleep(self._service.settle_s)
            return None
        finally:
            if not sending.done():
                sending.cancel()
                await asyncio.wait([sending])
            if not sending.cancelled():
                sending.exception()  # marks it as seen

    async def _send(self, key: str, url: str) -> Entry:
        """Claim, post, and keep the job's id; the claim is as short as the request."""
        task = asyncio.current_task()

        def claim() -> None:
            if key in self._sending:
                self._ledger.renew(key)
            elif not self._ledger.claim(key):
                raise _Taken
            elif task is not None:
                self._sending[key] = task

        try:
            request = contract.VoiceprintRequest(url, self._model, self._webhook)
            created = await jobs.submit(self._api, request, before=claim)
            return self._ledger.opened(key, created.job_id, created.warning)
        except BaseException as error:
            if key in self._sending:
                if _was_refused(error):
                    self._ledger.drop(key)
                else:
                    self._ledger.abandon(key)
            raise
        finally:
            if self._sending.get(key) is task:
                del self._sending[key]

    async def collect(self, key: str, entry: Entry) -> Outcome:
        """Steps 7 and 8: wait for a job of this run, and keep its result."""
        outcome = await self._wait(key, entry, source="new")
        if outcome is None:  # the ledger keeps it: the next run asks again before it submits anything
            return _left_open("The service does not know the job it has just created", entry.job_id)
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

    async def _wait(self, key: str, entry: Entry, *, source: str) -> Outcome | None:
        """How an open job ended; whatever leaves it open leaves it in the ledger."""
        job_id = entry.job_id
        try:
            timeout_s, earlier = self._service.job_timeout_s, source == "reused"  # its event may be long gone
            job = await self._waiter.wait(job_id, timeout_s=timeout_s, look_first=earlier)
        except RowError as error:
            return Outcome.of_error(error, job_id=job_id)
        except (KeyRefused, NoCredit):
            raise
        except ServiceError as error:
            return _left_open(str(error).rstrip("."), job_id)
        if job is None:
            return None
        if job.status == contract.SUCCEEDED and job.voiceprint:
            self._ledger.succeeded(key, voiceprint=job.voiceprint, warning=job.warning)
            warning = job.warning or entry.warning
            return Outcome("succeeded", job.voiceprint, warning=warning, job_id=job_id, source=source)
        if job.status == contract.SUCCEEDED and self._ledger.age_s(entry) < contract.OUTPUT_LIFE_S:
            return _left_open("The service says that the job has succeeded, but sent no voiceprint", job_id)
        self._ledger.drop(key, job_id=job_id)
        return Outcome.of_error(_job_error(job), job_id=job_id)

    async def _look_for(self, key: str, entry: Entry) -> None:
        """`_refuse_if_created` right after a submission: a service that cannot be asked is no comfort."""
        try:
            await self._refuse_if_created(key, entry)
        except (KeyRefused, NoCredit):
            raise
        except ServiceError as error:
            raise _submit_unknown() from error

    async def _refuse_if_created(self, key: str, entry: Entry) -> None:
        """Raise if the job list shows a job that nobody here knows: it may be this one.

        The same if there is no list, or no end of it within reach.
        """
        try:
            created = await self._may_be_listed(entry)
        except RequestRefused:
            created = True
        if created:
            self._unknown.append((key, entry.claimed_at))
            raise _submit_unknown()

    async def _may_be_listed(self, entry: Entry) -> bool:
        since_s = entry.claimed_at - _CLOCK_SKEW_S
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = await jobs.page(self._api, cursor)
            recent = [item for item in page.items if _unix_s(item.created_at) >= since_s]
            billed = [item.id for item in recent if item.status not in (contract.FAILED, contract.CANCELED)]
            if not all(map(self._ledger.knows_job, billed)):
                if siblings := list(self._sending.values()):  # the list may show their jobs already
                    await asyncio.wait(siblings, timeout=_SIBLINGS_S)
                if not all(map(self._ledger.knows_job, billed)):
                    return True
            cursor = page.next_cursor
            if cursor is None or len(recent) < len(page.items):
                return False
        return True


def _was_refused(error: BaseException) -> bool:
    """Whether the service has certainly not created a job."""
    if isinstance(error, ServiceUnavailable):
        return not error.sent
    return isinstance(error, (RequestRefused, KeyRefused, NoCredit, RateLimited))


def _submit_unknown() -> RowError:
    return RowError(
        "submit_unknown",
        "The connection or the process ended during the submission, and the service may have created (and "
        "billed) this job: run the line again to submit it once more.",
    )


def _left_open(why: str, job_id: str) -> Outcome:
    said = f"{why}. The job is kept as open: resume() asks again."
    return Outcome("pending", error_code="job_open", error=said, job_id=job_id)


def _job_error(job: contract.Job) -> RowError:
    said = f": {contract.scrubbed(job.error).rstrip('.')}." if job.error else "."
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
        moment = datetime.fromisoformat(timestamp)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return float("inf")  # unreadable: treated as recent, so that nothing is bought twice


def fetches(service: Service, url: str) -> bool:
    """Whether the service can fetch an address itself."""
    return service.sees_private_hosts or not _is_private(urlsplit(url).hostname or "")


def _is_private(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".localhost", ".lan"))
