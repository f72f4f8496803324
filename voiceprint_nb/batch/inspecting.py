"""Steps 1 to 3 of a row: cell, file, admitted clip; without any service."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from voiceprint_nb import contract, fetching, scratch
from voiceprint_nb.batch.outcomes import Outcome, Outcomes, Request
from voiceprint_nb.batch.progress import Tally
from voiceprint_nb.decoded import Decoded
from voiceprint_nb.errors import RowError
from voiceprint_nb.intake import clips, cloud, looking, quality, shares, sources

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
_Remote = sources.UrlSource | sources.CloudSource

_Here = sources.PathSource | RowError
_Lot = list[tuple[int, _Here]]
_Row = tuple[int, sources.Source]

_WORKERS = 16
_MOST_IN_LOT, _LOT_S = 64, 0.01  # of rows checked in one go: the way to a thread costs more than a row


class Inspector:
    """Looks at cells; an async context manager that owns a scratch folder, threads and web connections.

    Parameters
    ----------
    request : Request
        What is asked for each.
    passes_on : callable, optional
        Tells of an http(s) address whether it is enough to look at: the service fetches it itself. By
        default none is, and every clip has a file. Where it is, the clip carries the link.
    sign : callable, optional
        The user's own way from the address of a private object to an https link; called in threads.
    threads : int, optional
        Threads that read files; by default one per CPU.
    named : bool
        Whether digests of clips are of use: for them files are read to the end.
    decoded : Decoded, optional
        Where samples are kept, while their clip is held, for whoever embeds clips in this process.

    Attributes
    ----------
    expects_new : bool
        Whether the next clips will be embedded, as far as one can tell: then their samples are kept.
    """

    def __init__(
        self,
        request: Request,
        *,
        passes_on: Callable[[str], bool] | None = None,
        sign: Callable[[str], str] | None = None,
        threads: int | None = None,
        named: bool = True,
        decoded: Decoded | None = None,
    ) -> None:
        self.expects_new = True
        self._request = request
        self._decoded = decoded
        self._named = named
        self._n_threads = threads or os.cpu_count()
        self._passes_on = passes_on
        self._sign = cloud.Signer(sign)
        self._stack = contextlib.AsyncExitStack()
        self._web: httpx.AsyncClient | None = None
        self._quick = asyncio.Lock()
        self._is_slow = False

    async def __aenter__(self) -> Self:
        self._scratch = scratch.new_folder()
        self._stack.callback(shutil.rmtree, self._scratch, ignore_errors=True)
        self._threads = ThreadPoolExecutor(self._n_threads, thread_name_prefix="voiceprint-intake")
        self._stack.callback(self._threads.shutdown, wait=False, cancel_futures=True)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    def parse(self, cell: object) -> sources.Source:
        """Step 1: what the cell holds; raises `RowError`."""
        return sources.parse(cell, bases=self._request.bases)

    @contextlib.asynccontextmanager
    async def clip(self, source: looking.Lookable | _Remote) -> AsyncIterator[clips.Clip]:
        """Steps 2 and 3: the admitted clip; what was copied for it is removed at the end."""
        paths: list[Path] = []
        try:
            if isinstance(source, sources.UrlSource):
                clip = await self._clip_of_link(source.url, paths)
            elif isinstance(source, sources.CloudSource):
                clip = await self._clip_of_object(source, paths)
            else:
                clip = await self.in_thread(partial(self._look_and_admit, source, paths))
            clip = self._without_samples(clip)
            if clip.file is not None:
                paths.append(clip.file)
            yield clip
        finally:
            self._remove(paths)

    def _remove(self, paths: Sequence[Path]) -> None:
        for path in paths:
            if self._decoded is not None:
                self._decoded.take(path)
            if path.parent == self._scratch:
                path.unlink(missing_ok=True)

    async def _clip_of_object(self, source: sources.CloudSource, paths: list[Path]) -> clips.Clip:
        url = await self.in_thread(partial(self._sign, source))
        try:
            return await self._clip_of_link(url, paths, name=source.address)
        except RowError as error:
            raise cloud.explained(error) from None

    async def _clip_of_link(self, url: str, paths: list[Path], *, name: str | None = None) -> clips.Clip:
        from voiceprint_nb.intake import ranges

        client = await self._web_client()
        passes_on = self._passes_on is not None and contract.is_job_url(url) and self._passes_on(url)
        try:
            if passes_on:
                remote = await ranges.look(url, self._scratch, client, name=name)
                fits = remote is not None and remote.facts.duration_s <= contract.MAX_DURATION_S
                if remote is not None and (fits or self._request.fit == "error"):
                    return replace(clips.admit_remote(remote), url=url)
            file = await looking.look_remote(sources.UrlSource(url), self._scratch, client)
        except RowError as error:
            raise shares.explained(error, url) from None
        paths.append(file.path)
        clip = await self.in_thread(partial(self._admit, file, embeds=not passes_on))
        return replace(clip, url=url) if passes_on and not clip.is_cut else clip

    def _look_and_admit(self, source: looking.Lookable, paths: list[Path]) -> clips.Clip:
        file = looking.look_local(source, self._scratch, named=self._named)
        paths.append(file.path)
        return self._admit(file)

    def _admit(self, file: looking.LocalFile, *, embeds: bool = True) -> clips.Clip:
        clip = clips.admit(
            file,
            fit=self._request.fit,
            scratch=self._scratch,
            named=self._named,
            is_wanted=self._decoded.has_room if self._decoded and embeds and self.expects_new else None,
        )
        return clip if self._request.embed is None else quality.with_quality(clip, self._request.embed)

    def _without_samples(self, clip: clips.Clip) -> clips.Clip:
        """Its samples are where the engine takes them; not from a thread, whose row may have ended before."""
        if self._decoded is None or clip.file is None:
            return clip
        if clip.samples is None:
            self._decoded.take(clip.file)  # they are of an older content
            return clip
        self._decoded.keep(clip.file, clip.samples)
        return replace(clip, samples=None)

    @contextlib.asynccontextmanager
    async def smaller(self, clip: clips.Clip) -> AsyncIterator[clips.Clip]:
        """The clip as it is uploaded: compressed if that is wanted and worth it; removed at the end."""
        small = clip
        if self._request.compress:
            small = await self.in_thread(partial(clips.compressed, clip, self._scratch))
        try:
            yield small
        finally:
            if small is not clip:
                small.path.unlink(missing_ok=True)

    async def check(self, source: sources.Source) -> Outcome:
        """What can be known of a row without asking any service."""
        try:
            if isinstance(source, sources.MediaSource):
                return Outcome("ok", warning="A media:// key is measured by the service only.")
            async with self.clip(source) as clip:
                return Outcome.of_clip(clip)
        except RowError as error:
            return Outcome.of_error(error)

    async def check_lot(self, rows: Sequence[_Here]) -> list[Outcome]:
        """As `check` for the first of some rows, as many as a moment allows, and at least one.

        Rows that take next to no time are looked at by one thread: several would wait for the interpreter's
        lock again and again, which costs more than the rows.
        """
        async with contextlib.nullcontext() if self._is_slow else self._quick:
            outcomes = await self.in_thread(partial(self._checked, rows))
        self._is_slow = len(outcomes) < len(rows)
        return outcomes

    def _checked(self, rows: Sequence[_Here]) -> list[Outcome]:
        until_s = time.monotonic() + _LOT_S
        outcomes: list[Outcome] = []
        for row in rows:
            outcomes.append(self._check_here(row))
            if time.monotonic() > until_s:
                break
        return outcomes

    def _check_here(self, row: _Here) -> Outcome:
        if isinstance(row, RowError):
            return Outcome.of_error(row)
        try:
            clip = self._admit(looking.look_local(row, self._scratch, named=self._named))
        except RowError as error:
            return Outcome.of_error(error)
        if clip.is_cut:
            self._remove([clip.path])
        return Outcome.of_clip(clip)

    async def _web_client(self) -> httpx.AsyncClient:
        import httpx

        if self._web is None:
            limits = httpx.Limits(max_connections=_WORKERS)
            client = fetching.new_client(httpx.AsyncClient, limits=limits)
            self._web = await self._stack.enter_async_context(client)
        return self._web

    async def in_thread(self, work: Callable[[], T]) -> T:
        """What a function returns that one of the threads runs."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


async def check_all(
    cells: Sequence[object],
    request: Request,
    tally: Tally,
    *,
    sign: Callable[[str], str] | None = None,
    threads: int | None = None,
) -> Outcomes:
    """Check every cell. ``sign`` and ``threads`` are as for `Inspector`; links are copied to be measured."""
    measured = request.embed is not None
    outcomes = Outcomes(len(cells), measured=measured)

    def end(position: int, outcome: Outcome) -> None:
        outcomes.end(position, outcome)
        tally.ended(position, outcome.state, outcome.error_code, outcome.error)

    async def check(rows: _Lot | _Row) -> None:
        if isinstance(rows, tuple):
            position, source = rows
            tally.step(position, "checking")
            end(position, await inspector.check(source))
            return
        for position, _ in rows:
            tally.step(position, "checking")
        while rows:
            ended = await inspector.check_lot([source for _, source in rows])
            for (position, _), outcome in zip(rows, ended, strict=False):
                end(position, outcome)
            rows = rows[len(ended) :]

    inspector = Inspector(request, passes_on=lambda _: not measured, sign=sign, threads=threads, named=False)
    await _each(_lots(cells, inspector), inspector, check, tally)
    return outcomes


def _lots(cells: Sequence[object], inspector: Inspector) -> Iterator[_Lot | _Row]:
    """All rows with their positions: files, and what is no audio at all, by the dozen, others alone."""
    lot: list[tuple[int, _Here]] = []
    for position, cell in enumerate(cells):
        try:
            source: sources.Source | RowError = inspector.parse(cell)
        except RowError as error:
            source = error
        if isinstance(source, (sources.PathSource, RowError)):
            lot.append((position, source))
        else:
            yield position, source
        if len(lot) == _MOST_IN_LOT:
            yield lot
            lot = []
    if lot:
        yield lot


async def side_by_side(
    n_rows: int, inspector: Inspector, look: Callable[[int], Awaitable[Outcome]], tally: Tally
) -> None:
    """Look at every row, given by its position, with an inspector that is open meanwhile; tell the tally."""

    async def look_and_tell(position: int) -> None:
        tally.step(position, "checking")
        outcome = await look(position)
        tally.ended(position, outcome.state, outcome.error_code, outcome.error)

    await _each(iter(range(n_rows)), inspector, look_and_tell, tally)


async def _each(
    items: Iterator[T], inspector: Inspector, work: Callable[[T], Awaitable[None]], tally: Tally
) -> None:
    async def work_on() -> None:
        for item in items:
            await work(item)

    try:
        async with inspector, asyncio.TaskGroup() as group:
            for _ in range(min(_WORKERS, tally.n_rows)):
                group.create_task(work_on())
    finally:
        tally.end()
