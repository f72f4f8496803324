"""Steps 4 to 8 of a row: ledger, upload, submission, waiting, result. Nothing is bought twice."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Self
from urllib.parse import urlsplit

from voiceprint_nb import contract
from voiceprint_nb.batch.fates import Fates, submit_unknown
from voiceprint_nb.batch.outcomes import Outcome, Request, Service
from voiceprint_nb.batch.progress import Uploads
from voiceprint_nb.batch.store import Entry, Ledger, request_key
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

NOT_BILLED = ("job_failed", "job_canceled")

_BOUGHT_ANEW = "The service no longer knew the job of an earlier run, so the voiceprint was made anew."
_CLAIM_POLL_S = 0.1
_MOST_REPEATS = 2  # of a submission that the service has failed to carry out
_GRACE_S = 0.3  # a stopped run waits so long for the answer to a submission that has left
_UPLOAD_LIFE_S = contract.MEDIA_LIFE_S - 3600.0  # a reused upload must be there when the service comes to it


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
    run_id : str
        The run's name in the ledger.
    request : Request
        What is asked for every row: the model, and how much may be bought.
    smaller : callable
        A context with the clip in the form that is uploaded.
    sent : Uploads
        Told of every upload.

    Attributes
    ----------
    n_bought : int
        Voiceprints that were bought, may have been, or are being bought.
    """

    def __init__(
        self,
        service: Service,
        ledger: Ledger,
        run_id: str,
        request: Request,
        *,
        smaller: Callable[[Clip], AbstractAsyncContextManager[Clip]],
        sent: Uploads,
    ) -> None:
        self._service = service
        self._ledger = ledger
        self._run_id = run_id
        self._request = request
        self._smaller = smaller
        self._sent = sent
        self._api = service.open_api()
        self._waiter = jobs.Waiter(
            self._api, interval_s=service.poll_s, events=service.events, sweep_s=service.sweep_s
        )
        self._key_check: asyncio.Task[None] | None = None
        self._sending: dict[str, asyncio.Task[Entry]] = {}  # submissions that have left, by request
        self._repeats: Counter[str] = Counter()
        self._fates = Fates(self._api, ledger, self._sending.values)
        self.n_bought = request.n_bought
        self._lost: set[str] = set()  # requests whose earlier job is gone
        self._second_hand: set[str] = set()  # media keys of earlier uploads

    async def __aenter__(self) -> Self:
        await self._api.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if exc[0] is None:
            self._fates.tell(self._run_id)
        tasks = [*self._sending.values(), *([self._key_check] if self._key_check else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._waiter.close()
        await self._api.__aexit__(*exc)

    def waiting_for_limit(self) -> int:
        """Rows whose next request waits for the service's rate limit."""
        return self._api.waiting_for_limit

    def limits(self) -> Mapping[str, tuple[int, int]]:
        """What is used of the service's limits, by group of endpoints."""
        return self._api.limits

    def requests(self) -> Mapping[str, int]:
        """Requests so far, by group of endpoints."""
        return self._api.requests

    def notice(self) -> str:
        """What holds rows up right now, or empty."""
        if self._api.is_down:
            return "the service is failing, waiting for it"
        events = self._service.events
        return (events.problem or "") if events else ""

    async def known(self, key: str) -> Outcome | None:
        """Step 4: the outcome of a request that the ledger knows; None if it must be submitted.

        Raises
        ------
        RowError
            ``submit_unknown`` if an earlier submission was cut off and may have been billed.
        """
        deadline_s = asyncio.get_running_loop().time() + self._service.deadline_s(0.0, 0)
        while (entry := self._ledger.find(key)) is not None:
            if entry.state == "succeeded":
                return Outcome(
                    "succeeded", entry.voiceprint, warning=entry.warning, job_id=entry.job_id, source="reused"
                )
            if entry.state == "open":
                await self.check_key()
                outcome = await self._wait(key, entry, source="reused", duration_s=0.0)
                if outcome is None:  # a service that was started anew: the job is gone
                    self._lost.add(key)
                    self._ledger.drop(key, job_id=entry.job_id)
                elif outcome.error_code in NOT_BILLED:  # its upload may have gone meanwhile
                    return None
                return outcome
            if entry.told_by == self._run_id:
                raise submit_unknown()
            if entry.told_by:
                self._ledger.drop(key, claimed_at=entry.claimed_at)
                return None
            if entry.orphaned:
                await self.check_key()
                await self._fates.refuse_if_created(key, entry, within_s=self._ledger.age_s(entry))
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
        return await self._uploaded(clip)

    async def _uploaded(self, clip: Clip) -> str:
        """The media key of a clip's upload: one of the last hours is used again."""
        earlier = earlier_upload(self._ledger, self._service, clip.digest, compress=self._request.compress)
        if earlier is not None:
            self._second_hand.add(earlier)
            self._sent.reused()
            return earlier
        async with self._smaller(clip) as small:
            media_key = uploads.media_key(clip.digest, smaller=small is not clip)
            await uploads.put(
                self._api, small.path, n_bytes=small.n_bytes, media_key=media_key, sent=self._sent.sent
            )
            self._sent.ended(saved_bytes=clip.n_bytes - small.n_bytes)
        self._ledger.note_upload(_upload_name(self._service, media_key))
        return media_key

    def is_second_hand(self, url: str) -> bool:
        """Whether the address is that of an upload of an earlier run."""
        return url in self._second_hand

    def forget_upload(self, url: str) -> None:
        """An upload of an earlier run turned out to be of no use: the next attempt uploads again."""
        self._second_hand.discard(url)
        self._ledger.drop_upload(_upload_name(self._service, url))

    @contextmanager
    def buying(self, key: str) -> Iterator[None]:
        """A purchase within what the call may buy; one that certainly came to nothing does not count.

        Raises
        ------
        RowError
            ``max_new``.
        """
        most = self._request.max_new
        if most is not None and self.n_bought >= most:
            raise RowError(
                "max_new", f"The call may buy no more voiceprints than {most} (max_new): raise it."
            )
        self.n_bought += 1
        try:
            yield
        except BaseException:
            if self._ledger.find(key) is None:  # else the service may have it
                self.not_bought()
            raise

    def not_bought(self) -> None:
        """The purchase came to nothing after all."""
        self.n_bought -= 1

    async def submit(self, key: str, url: str) -> Entry | None:
        """Step 6: create the job; the ledger knows its id before anything waits.

        A run that is stopped while the request is on its way still waits a moment for the job's id. A job
        that is accepted without the wire costs nothing, and ends with the process: nothing announces it, so
        two runs may make the same print.

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
        request = contract.VoiceprintRequest(url, self._request.model, self._service.webhook_url)
        if self._service.accept is not None and (created := self._service.accept(request)) is not None:
            return self._ledger.opened(key, created.job_id, created.warning)
        sending = asyncio.create_task(self._send(key, request))
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
            if error.concerns_all_rows or (entry := self._ledger.find(key)) is None or not entry.orphaned:
                raise
            within_s = self._ledger.age_s(entry) + self._service.settle_s
            await self._api.sleep(self._service.settle_s)  # what was read before the cut may take a moment
            await self._fates.look_at_once(key, entry, within_s=within_s)
            self._repeats[key] += not self._api.is_down  # an outage is waited for
            if self._repeats[key] > _MOST_REPEATS:
                raise  # the claim stays abandoned: a later run looks for the job again
            self._ledger.drop(key, claimed_at=entry.claimed_at)
            return None
        finally:
            if not sending.done():
                sending.cancel()
                await asyncio.wait([sending])
            if not sending.cancelled():
                sending.exception()  # marks it as seen

    async def _send(self, key: str, request: contract.VoiceprintRequest) -> Entry:
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

    async def collect(self, key: str, entry: Entry, *, duration_s: float = 0.0) -> Outcome:
        """Steps 7 and 8: wait for a job of this run, on a clip of this length, and keep its result."""
        outcome = await self._wait(key, entry, source="new", duration_s=duration_s)
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

    async def _wait(self, key: str, entry: Entry, *, source: str, duration_s: float) -> Outcome | None:
        """How an open job ended; whatever leaves it open leaves it in the ledger."""
        job_id = entry.job_id
        try:
            job = await self._waiter.wait(
                job_id,
                timeout_s=self._service.deadline_s(duration_s, self._waiter.n_open),
                opened_at=entry.claimed_at,
                look_first=source == "reused",  # its event may be long gone
            )
        except RowError as error:
            return Outcome.of_error(error, job_id=job_id)
        except (KeyRefused, NoCredit):
            raise
        except ServiceError as error:
            if error.concerns_all_rows:
                raise
            return _left_open(str(error).rstrip("."), job_id)
        if job is None:
            return None
        if job.status == contract.SUCCEEDED and job.voiceprint:
            self._ledger.succeeded(key, voiceprint=job.voiceprint, warning=job.warning)
            await self._ledger.kept()  # before anybody sees it
            told = (job.warning or entry.warning, _BOUGHT_ANEW if key in self._lost else None)
            warning = " ".join(filter(None, told)) or None
            return Outcome("succeeded", job.voiceprint, warning=warning, job_id=job_id, source=source)
        if job.status == contract.SUCCEEDED and self._ledger.age_s(entry) < contract.OUTPUT_LIFE_S:
            return _left_open("The service says that the job has succeeded, but sent no voiceprint", job_id)
        self._ledger.drop(key, job_id=job_id)
        return Outcome.of_error(_job_error(job), job_id=job_id)


def _was_refused(error: BaseException) -> bool:
    """Whether the service has certainly not created a job."""
    if isinstance(error, ServiceUnavailable):
        return not error.sent
    return isinstance(error, (RequestRefused, KeyRefused, NoCredit, RateLimited))


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


def key_of_print(content: str, *, request: Request, service: Service) -> str:
    """Name in the ledger of a voiceprint of some content, as this service makes it."""
    return request_key("voiceprint", content, request.model or "", service.identity)


def earlier_upload(ledger: Ledger, service: Service, digest: str, *, compress: bool) -> str | None:
    """The media key of a content that an earlier run has uploaded, if it lives for long enough."""
    for smaller in (True, False) if compress else (False,):
        media_key = uploads.media_key(digest, smaller=smaller)
        if ledger.has_upload(_upload_name(service, media_key), within_s=_UPLOAD_LIFE_S):
            return media_key
    return None


def _upload_name(service: Service, media_key: str) -> str:
    return request_key("upload", media_key, service.identity)


def fetches(service: Service, url: str) -> bool:
    """Whether the service can fetch an address itself."""
    return service.sees_private_hosts or not _is_private(urlsplit(url).hostname or "")


def _is_private(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".localhost", ".lan"))
