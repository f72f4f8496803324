"""The parts of a service, put together: the same ones in process and served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette

from voiceprint_nb.decoded import Decoded
from voiceprint_nb.engine.embedder import Embedder, voiceprint_text
from voiceprint_nb.engine.model import Model
from voiceprint_nb.engine.networks import usable_cpus
from voiceprint_nb.engine.pool import BATCH, EnginePool
from voiceprint_nb.service.app import Policy, create_app
from voiceprint_nb.service.clips import load_clip
from voiceprint_nb.service.cluster import BATCHES, CLIPS_A_BATCH, Cluster, scheduler_address
from voiceprint_nb.service.desk import CLOSE_WAIT_S, IN_FLIGHT, MAX_WAITING, Desk
from voiceprint_nb.service.media import MediaStore
from voiceprint_nb.service.meter import Meter
from voiceprint_nb.service.outside import plain_client

if TYPE_CHECKING:
    import httpx

_DECODED_BYTES, _MOST_DECODED_BYTES = 3 << 18, 1 << 28  # for each job in work: 12 s; for all


@dataclass(frozen=True)
class Works:
    """What runs behind a service's routes."""

    desk: Desk
    pool: EnginePool
    in_flight: int
    decoded: Decoded
    cluster: Cluster | None = None

    def close(self, timeout_s: float = CLOSE_WAIT_S) -> bool:
        """Stop; waiting jobs stay on disk. Whether all that ran has ended in time."""
        all_ended = self.desk.close(timeout_s)
        self.pool.close(wait=all_ended)
        if self.cluster is not None:
            self.cluster.close()
        return all_ended


def assemble(
    folder: Path,
    policy: Policy,
    *,
    model: Model,
    threads: int | None = None,
    compute: str | None = None,
    max_waiting: int = MAX_WAITING,
    new_client: Callable[[], httpx.AsyncClient] = plain_client,
    meter: Meter | None = None,
    lasting: bool = True,
) -> tuple[Starlette, Works]:
    """Start a service in a folder of its own; its routes, and what its owner must close.

    Parameters
    ----------
    folder : Path
        Jobs, media and downloads; made with mode 0700 if it is not there.
    policy : Policy
        Who may what.
    model : Model
        What the engine computes.
    threads : int, optional
        Engine threads, by default what the machine has; of a cluster, batches that it works on at once.
    compute : str, optional
        Cluster that computes in place of this machine, ``dask://host:8786``.
    max_waiting : int
        Accepted jobs that have not ended, at most.
    new_client : callable
        Makes the HTTP client for linked clips and webhooks.
    meter : Meter, optional
        Counts what happens.
    lasting : bool
        Whether the folder outlives the process.
    """
    cluster = None if compute is None else Cluster(scheduler_address(compute), model=model)
    threads = threads or (usable_cpus() if cluster is None else BATCHES)
    batch = BATCH if cluster is None else CLIPS_A_BATCH
    network = partial(Embedder, model)
    in_flight = max(IN_FLIGHT, 2 * batch * threads)  # one half in work, the other one ready
    in_flight = min(in_flight, max_waiting // 2)  # a run with as many rows, and half as many more, has room
    decoded = Decoded(min(in_flight * _DECODED_BYTES, _MOST_DECODED_BYTES))
    pool = EnginePool(network if cluster is None else lambda: cluster, threads=threads, batch=batch)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        media = MediaStore(folder / "media")
        desk = Desk(
            folder,
            pool,
            media,
            load=partial(load_clip, decoded=decoded),
            voiceprint=partial(voiceprint_text, fingerprint=model.fingerprint),
            webhook_secret=policy.door.webhook_secret,
            plain_webhooks=policy.plain_webhooks,
            max_waiting=max_waiting,
            in_flight=in_flight,
            new_client=new_client,
            meter=meter,
            lasting=lasting,
        )
    except BaseException:
        pool.close()
        raise
    return create_app(desk, media, policy), Works(desk, pool, in_flight, decoded, cluster)
