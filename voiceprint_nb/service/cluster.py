"""Engine work on the workers of a Dask cluster, in place of this machine's cores."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb.engine import features
from voiceprint_nb.engine.model import Model
from voiceprint_nb.engine.shared import embed_clips, fingerprint_of
from voiceprint_nb.errors import MissingExtra, UsageError
from voiceprint_nb.service.workbench import EngineAway

if TYPE_CHECKING:
    from distributed import Client

BATCHES = 32
"""Batches at the cluster at once, unless the service is told another number."""
CLIPS_A_BATCH = 4  # 7.7 MB at most: Dask warns of tasks from 10 MB on
ANSWER_S = 300.0  # then its workers are taken to be gone; less than the deadline of a job
CONNECT_S = 10.0

T = TypeVar("T")

# what distributed raises when a connection, the scheduler or all workers are gone; not KilledWorker: that is
# for a clip that ends worker after worker
_LOST = (EngineAway, OSError, asyncio.CancelledError, concurrent.futures.CancelledError)
_log = logging.getLogger(__name__)


def scheduler_address(compute: str) -> str:
    """Dask's own address of ``dask://host:port``.

    Raises
    ------
    UsageError
        It is no such address.
    MissingExtra
        Dask is not installed.

    Examples
    --------
    >>> scheduler_address("dask://head:8786")
    'tcp://head:8786'
    """
    if not re.fullmatch(r"dask://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}", compute):
        raise UsageError(f"--compute takes the address of a Dask scheduler, dask://host:8786: {compute!r}.")
    try:
        import distributed  # noqa: F401 - so that it is missed here, not when the first job comes
    except ImportError as error:
        raise MissingExtra("Computing on a cluster needs Dask: pip install 'voiceprint_nb[dask]'.") from error
    return compute.replace("dask://", "tcp://", 1)


class Cluster:
    """A network for `EnginePool` that has workers of a cluster compute.

    Clips are decoded here; their samples, at most 1.9 MB each, travel with the task, so that Dask can have
    another worker do what one has lost. While there is no scheduler or no worker, every call ends in
    `EngineAway`, and the next one tries again.

    Parameters
    ----------
    address : str
        Of the scheduler, as `scheduler_address` gives it. It is connected to on first use.
    model : Model, optional
        What the workers compute; by default the packaged model ``robust``.
    answer_s : float
        A batch that takes longer counts as lost, in seconds.
    connect_s : float
        Bound on connecting, in seconds, and the time for which a failure is not tried again.
    timer : callable
        Seconds.
    """

    def __init__(
        self,
        address: str,
        *,
        model: Model | None = None,
        answer_s: float = ANSWER_S,
        connect_s: float = CONNECT_S,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address, self._model = address, model or Model.packaged()
        self._answer_s, self._connect_s, self._timer = answer_s, connect_s, timer
        self._lock = threading.Lock()  # guards the next four
        self._client: Client | None = None
        self._away_until_s = -np.inf
        self._is_away = False
        self._closed = False

    def windows(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The clip itself, (samples,) float32, if it can be heard; raises `RowError`."""
        features.check_audible(samples)
        return samples

    def embed_windows(self, clips: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Embeddings, (n, dimensions) float32, of clips, (samples,) float32 each.

        Raises
        ------
        EngineAway
            Nobody computes now.
        """
        client = self._connected()
        from distributed.client import ClosedClientError

        try:
            made_by, vectors = self._asked(client, self._answer_s, embed_clips, self._model.text, list(clips))
            self._refuse_others(made_by)
        except (*_LOST, ClosedClientError, UsageError) as error:  # the last: a worker has no such model
            self._lost(client, error)
            raise EngineAway from error
        return vectors

    def close(self) -> None:
        """Let go of the cluster; calls that wait for it end in `EngineAway`."""
        with self._lock:
            client, self._client, self._closed = self._client, None, True
        if client is not None:
            client.close()

    def _connected(self) -> Client:
        with self._lock:
            if self._client is not None:
                return self._client
            if self._closed or self._timer() < self._away_until_s:
                raise EngineAway
            try:
                self._client = self._connect()
            except (Exception, asyncio.CancelledError) as error:  # whatever is wrong there may be put right
                self._note_away(error)
                raise EngineAway from error
            if self._is_away:
                _log.info("the cluster is there again")
            self._is_away = False
            return self._client

    def _connect(self) -> Client:
        """A client, after a worker has shown that it computes the same."""
        from distributed import Client

        client = Client(self._address, timeout=self._connect_s, set_as_default=False, name="voiceprint-nb")
        with contextlib.ExitStack() as stack:
            stack.callback(client.close)
            self._refuse_others(self._asked(client, self._connect_s, fingerprint_of, self._model.text))
            stack.pop_all()
        return client

    def _refuse_others(self, made_by: str) -> None:
        if made_by != self._model.fingerprint:
            raise EngineAway(
                "its workers have another version of the network: install the same package there"
            )

    def _asked(self, client: Client, wait_s: float, work: Callable[..., T], *arguments: object) -> T:
        future = client.submit(work, *arguments, pure=False)
        answer: T = future.result(timeout=wait_s)
        return answer

    def _lost(self, client: Client, error: BaseException) -> None:
        with self._lock:
            if self._client is not client:
                return
            self._client = None
            self._note_away(error)
        client.close()  # ends the other waits for it

    def _note_away(self, error: BaseException) -> None:
        self._away_until_s = self._timer() + self._connect_s
        if not self._is_away:
            reason = f"{type(error).__name__}: {error}"
            _log.warning("the cluster does not compute, jobs wait", extra={"reason": reason})
        self._is_away = True
