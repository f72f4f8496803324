"""What a run would do, before it does: which prints are new, what is sent, how long that takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from voiceprint_nb import contract
from voiceprint_nb.batch.inspecting import Inspector, side_by_side
from voiceprint_nb.batch.orders import fetches, key_of_print
from voiceprint_nb.batch.outcomes import Outcome, Request, Service
from voiceprint_nb.batch.progress import Tally
from voiceprint_nb.batch.store import Entry
from voiceprint_nb.errors import RowError, UsageError
from voiceprint_nb.intake.sources import MediaSource

Kind = Literal["new", "reused", "open", "duplicate", "invalid"]

_S_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Looked:
    """One row, looked at.

    Attributes
    ----------
    outcome : Outcome
        As of a check.
    key : str or None
        Name of its request in the ledger; None if there will be none.
    digest : str or None
        Name of the content to upload; None where the service fetches or reads the audio itself.
    upload_bytes : int
        What is uploaded of it.
    """

    outcome: Outcome
    key: str | None = None
    digest: str | None = None
    upload_bytes: int = 0


@dataclass(frozen=True)
class Totals:
    """What a run would do, in numbers.

    Attributes
    ----------
    n_rows : int
        Rows in all: the sum of the next five.
    to_buy : int
        Prints to make: one for equal clips.
    reused : int
        Rows whose print is in the ledger.
    open : int
        Rows whose job was submitted earlier, so that its print is only collected.
    duplicates : int
        Rows that share the print of an earlier row of the frame, which is made or collected.
    invalid : int
        Rows that cannot be used.
    reasons : mapping
        Invalid rows by error code, most frequent first.
    unclear : int
        Of the prints to make: those whose earlier submission was cut off. If the service has carried it
        out, the row fails as ``submit_unknown`` and nothing is bought for it.
    n_uploads : int
        Clips that are uploaded: not those of which an earlier upload is used again.
    upload_bytes : int
        Their size.
    audio_s : float
        Seconds of audio of the prints to make, as far as they are known.
    billed_s : float
        The same where time is billed: each print at least 20 s, and 30 s if its length is not known.
    """

    n_rows: int
    to_buy: int
    reused: int
    open: int
    duplicates: int
    invalid: int
    reasons: Mapping[str, int]
    unclear: int
    n_uploads: int
    upload_bytes: int
    audio_s: float
    billed_s: float


async def look_at(
    cells: Sequence[object], request: Request, tally: Tally, *, service: Service
) -> list[Looked]:
    """Look at every cell as a run on this service would, without asking the service."""
    looked: dict[int, Looked] = {}

    async def look(position: int) -> Outcome:
        looked[position] = await _look(inspector, cells[position], request, service)
        return looked[position].outcome

    inspector = Inspector(request, passes_on=partial(fetches, service), sign=request.sign)
    try:
        await side_by_side(len(cells), inspector, look, tally)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [looked[position] for position in range(len(cells))]


async def _look(inspector: Inspector, cell: object, request: Request, service: Service) -> Looked:
    key_of = partial(key_of_print, request=request, service=service)
    try:
        source = inspector.parse(cell)
        if isinstance(source, MediaSource):
            return Looked(await inspector.check(source), key_of(source.key))
        async with inspector.clip(source) as clip:
            outcome, key = Outcome.of_clip(clip), key_of(clip.digest)
            if clip.url is not None or service.sees_files:
                return Looked(outcome, key)
            async with inspector.smaller(clip) as small:
                return Looked(outcome, key, clip.digest, small.n_bytes)
    except RowError as error:
        return Looked(Outcome.of_error(error))
    except OSError as error:
        raise UsageError(
            f"A temporary file could not be written ({error.strerror}): make room in the temporary folder, "
            "or set TMPDIR to another."
        ) from error


def sorted_out(looked: Sequence[Looked], find: Callable[[str], Entry | None]) -> tuple[list[Kind], int]:
    """What becomes of each row, and how many of the new ones may have been bought already.

    Parameters
    ----------
    looked : sequence of Looked
        The rows in order.
    find : callable
        What the ledger knows of a request; asked once for each.

    Examples
    --------
    >>> rows = [Looked(Outcome("ok"), key) for key in ("a", "b", "a")]
    >>> sorted_out([*rows, Looked(Outcome("invalid"))], lambda key: None)
    (['new', 'new', 'duplicate', 'invalid'], 0)
    """
    first: dict[str, Kind] = {}
    kinds: list[Kind] = []
    n_unclear = 0
    for row in looked:
        if row.key is None:
            kinds.append("invalid")
        elif row.key in first:
            kinds.append("reused" if first[row.key] == "reused" else "duplicate")
        else:
            entry = find(row.key)
            n_unclear += entry is not None and entry.orphaned
            kinds.append(first.setdefault(row.key, _kind_of(entry)))
    return kinds, n_unclear


def _kind_of(entry: Entry | None) -> Kind:
    if entry is None or entry.orphaned:
        return "new"
    return "reused" if entry.state == "succeeded" else "open"  # also what another run submits right now


def totals(
    looked: Sequence[Looked],
    kinds: Sequence[Kind],
    *,
    n_unclear: int = 0,
    is_uploaded: Callable[[str], bool] = lambda digest: False,
) -> Totals:
    """Add the rows up.

    Parameters
    ----------
    looked : sequence of Looked
        The rows in order.
    kinds : sequence of str
        What becomes of each.
    n_unclear : int
        How many of the new ones may have been bought already.
    is_uploaded : callable
        Whether an earlier upload of a content is used again.

    Examples
    --------
    >>> rows = [Looked(Outcome("ok", duration_s=4.0), "a", "a", upload_bytes=1000)] * 2
    >>> sums = totals(rows, ["new", "duplicate"])
    >>> sums.to_buy, sums.duplicates, sums.upload_bytes, sums.audio_s, sums.billed_s
    (1, 1, 1000, 4.0, 20.0)
    """
    counts = Counter(kinds)
    new = [row for row, kind in zip(looked, kinds, strict=True) if kind == "new"]
    uploads = [row.upload_bytes for row in new if row.digest is not None and not is_uploaded(row.digest)]
    lengths_s = [row.outcome.duration_s for row in new]
    reasons = Counter(row.outcome.error_code or "" for row in looked if row.key is None)
    return Totals(
        n_rows=len(looked),
        to_buy=counts["new"],
        reused=counts["reused"],
        open=counts["open"],
        duplicates=counts["duplicate"],
        invalid=counts["invalid"],
        reasons=dict(reasons.most_common()),
        unclear=n_unclear,
        n_uploads=len(uploads),
        upload_bytes=sum(uploads),
        audio_s=sum(length_s or 0.0 for length_s in lengths_s),
        billed_s=sum(map(_billed_s, lengths_s)),
    )


def _billed_s(length_s: float | None) -> float:
    return max(contract.MAX_DURATION_S if length_s is None else length_s, contract.LEAST_BILLED_S)


def minutes_at_limits(sums: Totals) -> float:
    """Minutes that the hosted service's limits ask for at least, from its slowest group of endpoints.

    A print costs a submission, a media call if its clip is uploaded, and a read at its end.

    Examples
    --------
    >>> rows = [Looked(Outcome("ok"), str(n)) for n in range(250)]
    >>> minutes_at_limits(totals(rows, ["new"] * 250))
    2.5
    """
    windows = max(
        sums.to_buy / contract.WRITES_PER_WINDOW,
        sums.n_uploads / contract.WRITES_PER_WINDOW,
        (sums.to_buy + sums.open) / contract.READS_PER_WINDOW,
    )
    return windows * contract.RATE_WINDOW_S / 60.0


def cost_of(
    sums: Totals, *, price_per_print: float | None = None, price_per_hour: float | None = None
) -> float | None:
    """What the prints cost at a rate, in the rate's currency; None without one.

    Examples
    --------
    >>> sums = totals([Looked(Outcome("ok", duration_s=4.0), "a")], ["new"])
    >>> cost_of(sums, price_per_print=0.02), cost_of(sums, price_per_hour=1.8), cost_of(sums)
    (0.02, 0.01, None)
    """
    if price_per_print is not None:
        return price_per_print * sums.to_buy
    return None if price_per_hour is None else price_per_hour * sums.billed_s / _S_PER_HOUR
