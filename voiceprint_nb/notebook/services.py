"""From settings to a service that a run can use; the only place that joins client side and local service."""

from __future__ import annotations

import functools
import os
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING

from voiceprint_nb.batch.outcomes import Service
from voiceprint_nb.batch.store import Ledger
from voiceprint_nb.batch.turns import LedgerTurns
from voiceprint_nb.client.transport import Api
from voiceprint_nb.contract import InvalidRequest, JobCreated, VoiceprintRequest
from voiceprint_nb.engine.model import Model, is_own
from voiceprint_nb.pacing import OwnTurns
from voiceprint_nb.settings import Settings

if TYPE_CHECKING:
    from voiceprint_nb.client.receiver import Receiver
    from voiceprint_nb.intake.quality import Embed
    from voiceprint_nb.service.local import LocalService

LOCAL_POLL_S, LOOPBACK_POLL_S, REMOTE_POLL_S = 0.1, 0.2, 7.5
REMOTE_IN_FLIGHT = 256  # a hosted minute allows 100 jobs, which may take two and a half
_NEAR_SWEEP_S, _REMOTE_SWEEP_S = 5.0, 60.0
_REMOTE_SETTLE_S = 5.0


def connect(settings: Settings, ledger: Ledger, receiver: Receiver | None = None) -> Service:
    """How to reach the service of these settings; nothing is sent yet."""
    if settings.is_local:
        local = _local_service(os.getpid(), Model.named(settings.model or Model.DEFAULT))
        return Service(
            open_api=lambda: Api(base_url=local.base_url, api_key=None, transport=local.transport()),
            identity=local.identity,
            poll_s=LOCAL_POLL_S,
            sweep_s=_NEAR_SWEEP_S,
            accept=_accepting(local),
            events=local,
            in_flight=local.in_flight * 3 // 2,  # the others are on their way to it or from it
            sees_private_hosts=True,
            sees_files=True,
            decoded=local.decoded,
        )
    identity = f"{settings.service} {ledger.account(settings.api_key)}"
    return Service(
        open_api=lambda: Api(
            base_url=settings.service,
            api_key=settings.api_key,
            turns=lambda group: (
                LedgerTurns(ledger, f"{identity} {group}")
                if ledger.path
                else _turns_of_process(os.getpid(), settings.service, hash(settings.api_key), group)
            ),
        ),
        identity=identity,
        poll_s=LOOPBACK_POLL_S if settings.is_loopback else REMOTE_POLL_S,
        in_flight=REMOTE_IN_FLIGHT,
        sees_private_hosts=settings.is_loopback,
        settle_s=1.0 if settings.is_loopback else _REMOTE_SETTLE_S,
        sweep_s=_NEAR_SWEEP_S if settings.is_loopback else _REMOTE_SWEEP_S,
        events=receiver,
        webhook_url=receiver.webhook_url if receiver else None,
    )


def _accepting(local: LocalService) -> Callable[[VoiceprintRequest], JobCreated | None]:
    """Submission to a service in this process without the wire."""
    from voiceprint_nb.service.desk import DeskFull

    def accept(request: VoiceprintRequest) -> JobCreated | None:
        try:
            return local.submit(request)
        except (InvalidRequest, DeskFull, RuntimeError, sqlite3.Error):
            return None  # the wire tells it in the contract's words, and waits where that helps

    return accept


def model_text(model: str | Model | None) -> str | None:
    """The text that names a model in settings and in the ledger, your own network with its digest."""
    if isinstance(model, str) and is_own(model):
        model = Model.named(model)
    return model.text if isinstance(model, Model) else model


def embed_of_quality() -> Embed:
    """What compares the windows of a clip, whichever service makes the prints: the local network."""
    from voiceprint_nb.engine.shared import embedder_of_process

    return embedder_of_process().embed_parts


@functools.lru_cache(maxsize=64)
def _turns_of_process(_pid: int, _service: str, _key: int, _group: str) -> OwnTurns:
    """Turns that an account's runs without a ledger share in this process."""
    return OwnTurns()


@functools.lru_cache(maxsize=4)
def _local_service(_pid: int, model: Model) -> LocalService:
    """One local service a process and model, whose network is loaded once; a forked child gets its own."""
    from voiceprint_nb.service.local import LocalService

    return LocalService(model=model)
