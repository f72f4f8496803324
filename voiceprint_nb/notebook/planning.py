"""``plan``: what a call of `voiceprints` would buy, send and take, without doing any of it."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from voiceprint_nb import contract
from voiceprint_nb.batch import planning
from voiceprint_nb.batch.bridge import loop_thread
from voiceprint_nb.batch.orders import earlier_upload
from voiceprint_nb.batch.outcomes import Outcomes, Request
from voiceprint_nb.batch.progress import Tally
from voiceprint_nb.batch.store import FILE_NAME, Ledger
from voiceprint_nb.display import Facts
from voiceprint_nb.engine.model import Model
from voiceprint_nb.errors import UsageError
from voiceprint_nb.notebook import frames, services, views
from voiceprint_nb.notebook.frames import Data
from voiceprint_nb.notebook.verbs import Base, refuse_model
from voiceprint_nb.settings import HOSTED_URL, Settings, resolve


@dataclass(frozen=True, repr=False, kw_only=True)
class Plan(Facts, planning.Totals):
    """What `voiceprints` would do with a frame; printed, it is a few lines of text.

    Attributes
    ----------
    n_rows : int
        Rows in all: the sum of the next five.
    to_buy : int
        Prints to make: one for equal clips. The local service makes them on this machine, for nothing.
    reused, open, duplicates, invalid : int
        Rows whose print is in the ledger; whose job was submitted earlier and is only collected; that share
        the print of an earlier row; that cannot be used.
    reasons : mapping
        Invalid rows by error code.
    unclear : int
        Of the prints to make, those whose earlier submission was cut off: the service is asked first.
    n_uploads, upload_bytes : int
        Clips that are uploaded, and their size. Links that the service fetches itself are not, nor is what
        an earlier upload is used again for.
    audio_s, billed_s : float
        Seconds of audio of the prints to make, and where time is billed: each at least 20 s, and 30 s if
        only the service knows its length (``media://``). The local service bills nothing.
    minutes : float or None
        What the hosted service's limits ask for at least; None for others, whose limits are not known.
    cost : float or None
        In the currency of the given price; None without a price, 0 for the local service.
    destination : str
        Which service it is and where the audio would go.
    is_local : bool
        Whether the prints are made in this process.
    price_per_print, price_per_hour : float or None
        The price that was given.
    rows : DataFrame
        The frame with the columns of `check` and ``vp_plan``: ``new``, ``reused``, ``open``, ``duplicate``
        or ``invalid``.
    """

    minutes: float | None
    cost: float | None
    destination: str
    is_local: bool
    price_per_print: float | None = None
    price_per_hour: float | None = None
    rows: pd.DataFrame = field(compare=False)

    def _lines(self) -> list[tuple[str, str]]:
        lines = [("Plan", f"{_count(self.n_rows, 'row')}: {self._counts()}")]
        if self.reasons:
            lines.append(("Invalid", ", ".join(f"{n} {code}" for code, n in self.reasons.items())))
        if self.unclear:
            lines.append(("Unclear", f"{self.unclear} submitted by a run that was cut off: asked for first"))
        if self.to_buy:
            lines.append(("Audio", self._audio()))
        if not self.is_local:
            clips = f"{_count(self.n_uploads, 'clip')}, {_size(self.upload_bytes)}"
            lines.append(("Upload", clips if self.n_uploads else "nothing"))
        lines += [("Time", self._time()), ("Cost", self._cost())]
        return [*lines, ("Service", self.destination.removeprefix("Service: "))]

    def _counts(self) -> str:
        made = "to make on this machine" if self.is_local else "to buy"
        others = {
            "reused": self.reused,
            "open": self.open,
            "duplicate" if self.duplicates == 1 else "duplicates": self.duplicates,
            "invalid": self.invalid,
        }
        counts = [f"{n} {name}" for name, n in others.items() if n]
        return ", ".join([f"{_count(self.to_buy, 'print')} {made}", *counts])

    def _audio(self) -> str:
        least_s = contract.LEAST_BILLED_S
        billed = f", billed as {self.billed_s:.0f} s where time is billed (at least {least_s:.0f} s a print)"
        return f"{self.audio_s:.0f} s{'' if self.is_local else billed}"

    def _time(self) -> str:
        if self.is_local:
            return "no limit applies; it depends on this machine"
        if self.minutes is None:
            return "no limit of this service is known"
        if self.minutes < 1:
            told = "under a minute"
        elif self.minutes < 120:
            told = f"about {self.minutes:.0f} min"
        else:
            told = f"about {self.minutes / 60:.1f} h"
        return f"{told} at the hosted limits ({contract.WRITES_PER_WINDOW} submissions a minute)"

    def _cost(self) -> str:
        if self.is_local:
            return "nothing, the prints are made on this machine"
        if self.cost is None:
            return "unknown without price_per_print= or price_per_hour="
        amount = f"{self.cost:,.2f}" if self.cost >= 100 else f"{self.cost:.4g}"
        if self.price_per_print is not None:
            return f"{amount} ({_count(self.to_buy, 'print')} at {self.price_per_print:g})"
        return f"{amount} ({self.billed_s:.0f} s at {self.price_per_hour:g} an hour)"


def plan(
    data: Data,
    column: Hashable | None = None,
    *,
    service: str | None = None,
    api_key: str | None = None,
    model: str | Model | None = None,
    fit: str = "error",
    base: Base | None = None,
    prefix: str = frames.DEFAULT_PREFIX,
    overwrite: bool = False,
    progress: bool = True,
    ledger: bool = True,
    data_dir: str | os.PathLike[str] | None = None,
    sign: Callable[[str], str] | None = None,
    compress: bool = False,
    price_per_print: float | None = None,
    price_per_hour: float | None = None,
) -> Plan:
    """What `voiceprints` would buy, upload and take, without asking the service or noting it in the ledger.

    Every clip is looked at as `check` does: links are asked for their headers, and open files are read to
    their end, so rewind them before the run. A job that was submitted earlier counts as open, whatever has
    become of it.

    Parameters
    ----------
    data, column, service, api_key, model, fit, base, prefix, overwrite, progress, ledger, data_dir, sign,
    compress
        As in `voiceprints`. With ``compress``, every clip is compressed to know its size.
    price_per_print : float, optional
        What one print costs, in any currency.
    price_per_hour : float, optional
        What an hour of audio costs; each print then counts as at least 20 s.

    Returns
    -------
    Plan
        The numbers; its ``rows`` is the frame with what becomes of each row.

    Raises
    ------
    UsageError
        The call itself is wrong.

    Examples
    --------
    >>> out = plan(["no-such-file.wav"], service="local", progress=False, ledger=False)
    >>> out.to_buy, out.invalid, out.rows.vp_plan.tolist()
    (0, 1, ['invalid'])
    >>> print(out)
    Plan: 1 row: 0 prints to make on this machine, 1 invalid
    Invalid: 1 file_not_found
    Time: no limit applies; it depends on this machine
    Cost: nothing, the prints are made on this machine
    Service: local, in this process. The audio stays on this machine.
    """
    _refuse_prices(price_per_print, price_per_hour)
    settings = resolve(service=service, api_key=api_key, model=services.model_text(model), data_dir=data_dir)
    refuse_model(settings)
    frame, column = frames.as_frame(data, column)
    names = frames.check_names(prefix)
    plan_name = f"{prefix}plan"
    frame = frames.without_taken(frame, column, {**names, "plan": plan_name}, overwrite=overwrite)
    request = Request(
        frames.bases_of(base), frames.fit_of(fit), settings.asked_model, sign, compress=compress
    )
    tally = Tally(len(frame), title="plan", destination=settings.destination)
    with _ledger(settings.data_dir if ledger else None) as known:
        meter = views.meter_for(progress, "")
        remote = services.connect(settings, known)
        looking = planning.look_at(frames.cells_of(frame, column), request, tally, service=remote)
        background = loop_thread().start(looking)
        looked = background.wait(tick=(lambda: meter.show(tally.snapshot())) if meter else None)
        kinds, n_unclear = planning.sorted_out(looked, known.find)
        sums = planning.totals(
            looked,
            kinds,
            n_unclear=n_unclear,
            is_uploaded=lambda digest: earlier_upload(known, remote, digest, compress=compress) is not None,
        )
    outcomes = Outcomes(len(looked), enumerate(row.outcome for row in looked))
    rows = frames.with_outcomes(frame, outcomes, names)
    return _plan(
        sums,
        settings,
        rows=rows.assign(**{plan_name: pd.array(kinds, dtype="string")}),
        price_per_print=price_per_print,
        price_per_hour=price_per_hour,
    )


def _plan(
    sums: planning.Totals,
    settings: Settings,
    *,
    rows: pd.DataFrame,
    price_per_print: float | None,
    price_per_hour: float | None,
) -> Plan:
    is_local = settings.is_local
    cost = planning.cost_of(sums, price_per_print=price_per_print, price_per_hour=price_per_hour)
    values = vars(sums) | ({"billed_s": 0.0} if is_local else {})
    return Plan(
        **values,
        minutes=planning.minutes_at_limits(sums) if settings.service == HOSTED_URL else None,
        cost=0.0 if is_local else cost,
        destination=settings.destination,
        is_local=is_local,
        price_per_print=price_per_print,
        price_per_hour=price_per_hour,
        rows=rows,
    )


def _ledger(data_dir: Path | None) -> Ledger:
    """The ledger to look things up in; one that is not there is not made."""
    there = data_dir is not None and (data_dir / FILE_NAME).exists()
    return Ledger(data_dir if there else None)


def _refuse_prices(price_per_print: float | None, price_per_hour: float | None) -> None:
    given = {"price_per_print": price_per_print, "price_per_hour": price_per_hour}
    if None not in given.values():
        raise UsageError("Give price_per_print= or price_per_hour=, not both: a print is billed in one way.")
    for name, price in given.items():
        is_number = isinstance(price, numbers.Real) and not isinstance(price, bool)
        if price is not None and not (is_number and math.isfinite(price) and price >= 0):
            raise UsageError(f"{name}= must be a number of at least 0: got {price!r}.")


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _size(n_bytes: int) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes / 2**10:.0f} KiB"
