"""The service inside this process: the same routes as served ones, without a socket."""

from __future__ import annotations

import os
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Self

from voiceprint_nb import scratch
from voiceprint_nb.contract import JobCreated, VoiceprintRequest
from voiceprint_nb.decoded import Decoded
from voiceprint_nb.engine.model import Model
from voiceprint_nb.service.app import Policy
from voiceprint_nb.service.assembly import Works, assemble
from voiceprint_nb.service.ends import Callback
from voiceprint_nb.service.keys import DEFAULT_TEAM, OpenDoor

if TYPE_CHECKING:
    import httpx

    from voiceprint_nb.service.limits import RateLimits


class LocalService:
    """Engine, desk, media and routes for one process; no key needed.

    Parameters
    ----------
    model : Model, optional
        What the engine computes; by default the packaged model ``robust``.
    threads : int, optional
        Engine threads; by default what the machine has.
    data_dir : Path, optional
        Where jobs and media are kept, for another day too; by default a private temporary folder that is
        gone when the service closes, is collected, or the process ends.
    webhook_secret : str, optional
        Signs webhooks; by default a random one.
    limits : RateLimits, optional
        How often each endpoint may be called; by default without limit.

    Examples
    --------
    >>> with LocalService() as service:
    ...     service.identity.startswith("local:")
    True
    """

    base_url = "http://voiceprint.local"
    """Base address for a client that uses `transport`; never resolved."""

    def __init__(
        self,
        *,
        model: Model | None = None,
        threads: int | None = None,
        data_dir: Path | None = None,
        webhook_secret: str | None = None,
        limits: RateLimits | None = None,
    ) -> None:
        self._model = model or Model.packaged()
        if data_dir is None:
            scratch.sweep()
        folder = scratch.new_folder() if data_dir is None else data_dir
        passing = folder if data_dir is None else None
        self._policy = Policy(OpenDoor(webhook_secret), limits, files=True, plain_webhooks=True)
        try:
            self._app, self._works = assemble(
                folder, self._policy, model=self._model, threads=threads, lasting=data_dir is not None
            )
        except BaseException:
            if passing is not None:
                shutil.rmtree(passing)
            raise
        self._app.state.service = self  # whoever still holds a transport keeps the service open
        self._finalizer = weakref.finalize(self, _shut, self._works, passing, os.getpid())

    @property
    def identity(self) -> str:
        """Which service this is: two with the same identity give the same voiceprints."""
        return f"local:{self._model.fingerprint}"

    def transport(self) -> httpx.ASGITransport:
        """A transport for `httpx.AsyncClient`, for use in any event loop."""
        import httpx

        return httpx.ASGITransport(self._app, raise_app_exceptions=False)  # faults are logged, answer 500

    @property
    def in_flight(self) -> int:
        """Jobs that it works on at once; fewer do not keep the engine busy."""
        return self._works.in_flight

    @property
    def decoded(self) -> Decoded:
        """Samples of files that it need not decode: what a check in this process has decoded."""
        return self._works.decoded

    @property
    def problem(self) -> str | None:
        """What keeps jobs from being done, in a sentence."""
        return (
            None if self._works.desk.is_alive else "The local service fails at the moment, and tries again."
        )

    def submit(self, request: VoiceprintRequest) -> JobCreated:
        """Accept a job as its route does, without the wire, which costs more than all else of it, and limits.

        Raises
        ------
        InvalidRequest, DeskFull
            What the route answers with a refusal.
        """
        allows = self._policy
        seen = VoiceprintRequest.from_wire(
            request.to_wire(), files=allows.files, plain_webhooks=allows.plain_webhooks
        )
        return self._works.desk.submit(DEFAULT_TEAM, seen)

    def listen(self, job_id: str, callback: Callback) -> Callable[[], None]:
        """Have the end of a job told, in place of asking for it; see `Ends.listen`."""
        return self._works.desk.listen(DEFAULT_TEAM, job_id, callback)

    def close(self) -> None:
        """Stop work, and remove the temporary folder; safe to call twice."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _shut(works: Works, passing: Path | None, owner_pid: int) -> None:
    if os.getpid() != owner_pid:  # a forked child ends: the parent still works here
        return
    all_ended = works.close()
    if passing is not None:
        shutil.rmtree(passing, ignore_errors=not all_ended)
