"""Runs of a batch against a faulty wire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from faulty import Faulty, Time

from voiceprint_nb.batch.outcomes import Outcome, Request, Service
from voiceprint_nb.batch.progress import Tally
from voiceprint_nb.batch.runner import Batch
from voiceprint_nb.batch.store import Ledger
from voiceprint_nb.client.transport import Api
from voiceprint_nb.errors import ROW_CODES
from voiceprint_nb.pacing import Pacer
from voiceprint_nb.service.local import LocalService


@dataclass
class Ran:
    """How a run ended."""

    outcomes: list[Outcome]
    tally: Tally
    run_id: str
    error: BaseException | None = None
    left_tasks: int = 0

    @property
    def codes(self) -> list[str | None]:
        return [outcome.error_code for outcome in self.outcomes]

    @property
    def prints(self) -> list[str | None]:
        return [outcome.voiceprint for outcome in self.outcomes]


@dataclass
class World:
    """A service behind a wire, and a ledger."""

    wire: Faulty
    data_dir: Path
    options: dict[str, Any] = field(default_factory=dict)
    timeout_s: float = 30.0
    clock: Callable[[], float] | None = None
    request: Request = field(default_factory=Request)
    api_key: str = "key-0f3a"
    time: Time = field(default_factory=lambda: Time(real_s=0.003))

    def ledger(self) -> Ledger:
        return Ledger(self.data_dir, **({"clock": self.clock} if self.clock else {}))

    def service(self) -> Service:
        pacer = partial(Pacer, clock=self.time.clock, sleep=self.time.sleep)
        values = {
            "identity": "test",
            "poll_s": 0.003,
            "in_flight": 4,
            "sees_private_hosts": True,
            "settle_s": 0.0,
            "deadline_s": lambda duration_s, n_open: 10.0,
        }
        return Service(
            open_api=lambda: Api(
                base_url=LocalService.base_url,
                api_key=self.api_key,
                transport=self.wire,
                timeout_s=self.timeout_s,
                new_pacer=pacer,
                clock=self.time.clock,
                sleep=self.time.sleep,
            ),
            **(values | self.options),
        )

    def run(self, cells: Sequence[object], *, run_id: str | None = None, keep: bool = True) -> Ran:
        """One run to its end, whatever ends it, in an event loop of its own."""
        return asyncio.run(self.arun(cells, run_id=run_id, keep=keep))

    async def arun(self, cells: Sequence[object], *, run_id: str | None = None, keep: bool = True) -> Ran:
        tally = Tally(len(cells))
        tasks = len(asyncio.all_tasks())
        with self.ledger() if keep else Ledger(None) as ledger:
            run_id = run_id or ledger.begin_run(n_rows=len(cells), destination="", call={}, frame=None)
            batch = Batch(
                cells, request=self.request, service=self.service(), ledger=ledger, run_id=run_id, tally=tally
            )
            error = None
            work = asyncio.create_task(batch.run())
            self.cancel = work.cancel
            try:
                await work
            except (Exception, asyncio.CancelledError) as raised:
                error = raised
        outcomes = [batch.outcomes[position] for position in range(len(cells))]
        for outcome in outcomes:  # the code decides the status
            told = outcome.error_code
            assert outcome.status == (ROW_CODES[told][0] if told else "succeeded")
        assert sum(tally.counts().values()) == len(cells)
        return Ran(outcomes, tally, run_id, error, len(asyncio.all_tasks()) - tasks)
