"""The clients of `benchmarks.hosted`, each run in a process of its own so that its CPU can be told.

An `Order` comes in through the standard input, a `Ran` goes out, both as JSON.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx  # noqa: F401  # this import and the next two are no part of the work that is measured
import soundfile  # noqa: F401
import stamina  # noqa: F401

from benchmarks.counterpart import WEBHOOK_SECRET
from voiceprint_nb.batch.outcomes import Request, Service
from voiceprint_nb.batch.progress import Tally
from voiceprint_nb.batch.runner import Batch
from voiceprint_nb.batch.store import Ledger
from voiceprint_nb.batch.turns import LedgerTurns
from voiceprint_nb.client.receiver import Receiver
from voiceprint_nb.client.transport import Api
from voiceprint_nb.contract import READS_PER_WINDOW, WRITES_PER_WINDOW
from voiceprint_nb.notebook import services
from voiceprint_nb.pacing import Pacer

SDK_PAUSE_S = 10.0  # between its looks at a job


@dataclass(frozen=True)
class Order:
    """What a client is to do.

    Attributes
    ----------
    base_url : str
        Address of the service.
    cells : list of str
        Paths or links of the clips.
    factor : float
        How much faster time runs.
    folder : str
        For the ledger.
    threads : int
        Of the SDK; 0 for the project's own client.
    webhooks : bool
        Whether the service tells of the ends of jobs.
    """

    base_url: str
    cells: list[str]
    factor: float
    folder: str
    threads: int = 0
    webhooks: bool = False


@dataclass(frozen=True)
class Ran:
    """How it went.

    Attributes
    ----------
    elapsed_s, cpu_s : float
        Of the computer's own time, from the first row's start to the last row's end.
    received : dict
        Job ids of the voiceprints that rows got, with Unix seconds.
    problems : dict
        How many other rows there were, by reason.
    """

    elapsed_s: float
    cpu_s: float
    received: dict[str, float]
    problems: dict[str, int]


class TimedTally(Tally):
    """Knows when each row ended."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.ended_at: dict[int, float] = {}

    def ended(self, position: int, *told: Any, **more: Any) -> None:
        """Note the time, in Unix seconds."""
        self.ended_at.setdefault(position, time.time())
        super().ended(position, *told, **more)


def ours(order: Order) -> Ran:
    """A batch, put together as `notebook.services.connect` and `notebook.runs` do for the hosted service."""
    n_rows, folder = len(order.cells), Path(order.folder)
    tally = TimedTally(n_rows)
    with (
        Ledger(folder, paid=True) as ledger,
        Ledger(folder, paid=True, clock=lambda: time.time() * order.factor) as scaled_ledger,
        _receiver(order) as receiver,
    ):
        batch = Batch(
            order.cells,
            request=Request(),
            service=_service(order, scaled_ledger, receiver),
            ledger=ledger,
            run_id=ledger.begin_run(n_rows=n_rows, destination="", call={}, frame=None),
            tally=tally,
        )
        began_s, cpu_s = time.monotonic(), time.process_time()
        asyncio.run(batch.run())
        elapsed_s, cpu_s = time.monotonic() - began_s, time.process_time() - cpu_s
    received: dict[str, float] = {}
    problems: Counter[str] = Counter()
    for position, outcome in batch.outcomes.items():
        if outcome.voiceprint is None:
            problems[outcome.error_code or outcome.status] += 1
        else:
            received[outcome.job_id or ""] = tally.ended_at[position]
    return Ran(elapsed_s, cpu_s, received, problems)


def _service(order: Order, ledger: Ledger, receiver: Receiver | None) -> Service:
    """The service as if it were the hosted one: its limits are known from the start."""

    def clock() -> float:
        return time.monotonic() * order.factor

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / order.factor)

    def open_api() -> Api:
        api = Api(
            base_url=order.base_url,
            api_key="key-0f3a",
            new_pacer=partial(Pacer, clock=clock, sleep=sleep),
            turns=lambda group: LedgerTurns(ledger, group),
            clock=clock,
            sleep=sleep,
        )
        for pacer in (api.submit_pacer, api.media_pacer):
            pacer.learn(WRITES_PER_WINDOW)
        for pacer in (api.read_pacer, api.list_pacer):
            pacer.learn(READS_PER_WINDOW)
        return api

    return Service(
        open_api=open_api,
        identity="benchmark",
        poll_s=services.REMOTE_POLL_S,
        in_flight=services.REMOTE_IN_FLIGHT,
        sees_private_hosts=True,
        receiver=receiver,
    )


def _receiver(order: Order) -> AbstractContextManager[Receiver | None]:
    if not order.webhooks:
        return nullcontext()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return Receiver(public_url=f"http://127.0.0.1:{port}", secret=WEBHOOK_SECRET, port=port)


def sdk(order: Order) -> Ran:
    """The vendor's SDK in threads, each row in one ``try``, as its users write it."""
    from pyannoteai.sdk import Client
    from requests.exceptions import HTTPError

    class Scaled(Client):
        API_URL = f"{order.base_url}/v1"

    client, received, problems = Scaled(token="key-0f3a"), {}, Counter()  # noqa: S106  # nobody checks it

    def one(cell: str) -> None:
        try:
            job_id = client.voiceprint(client.upload(cell))
            job = client.retrieve(job_id, every_seconds=SDK_PAUSE_S / order.factor)
            if job["output"]["voiceprint"]:
                received[job_id] = time.time()
        except HTTPError as error:
            problems[str(error.response.status_code) if error.response is not None else "HTTPError"] += 1
        except Exception as error:
            problems[type(error).__name__] += 1

    warnings.simplefilter("ignore")  # two a row
    began_s, cpu_s = time.monotonic(), time.process_time()
    with ThreadPoolExecutor(order.threads) as pool:
        list(pool.map(one, order.cells))
    return Ran(time.monotonic() - began_s, time.process_time() - cpu_s, received, problems)


def main() -> None:
    """Do what the standard input says."""
    order = Order(**json.load(sys.stdin))
    ran = sdk(order) if order.threads else ours(order)
    print(json.dumps(vars(ran)))


if __name__ == "__main__":
    main()
