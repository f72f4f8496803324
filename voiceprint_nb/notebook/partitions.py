"""Pure functions from a part of a frame to a frame: what the workers of a cluster run.

Dask, Ray and Spark cut a table into parts and hand each to a function. The ones here need no ledger and no
service: what a worker loses, the cluster has computed again. Each call computes on one thread, and the
network is loaded once a process, so the cluster alone decides how many cores work.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voiceprint_nb import scratch
from voiceprint_nb.analysis.prints import voiceprint_column
from voiceprint_nb.batch.bridge import loop_thread
from voiceprint_nb.batch.inspecting import Inspector, check_all
from voiceprint_nb.batch.outcomes import Outcome, Outcomes, Request
from voiceprint_nb.batch.progress import Tally
from voiceprint_nb.decoded import Decoded
from voiceprint_nb.engine.embedder import Embedder, voiceprint_text
from voiceprint_nb.engine.model import Model
from voiceprint_nb.engine.shared import embedder_of_process
from voiceprint_nb.errors import RowError
from voiceprint_nb.intake.clips import Clip
from voiceprint_nb.intake.quality import Embed
from voiceprint_nb.intake.sources import MediaSource
from voiceprint_nb.notebook import frames
from voiceprint_nb.notebook.answers import decided
from voiceprint_nb.service.clips import load_clip

if TYPE_CHECKING:
    from voiceprint_nb.analysis.library import Library
    from voiceprint_nb.notebook.verbs import Base

_BLOCK = 16  # clips that share network runs
_AHEAD = 3  # blocks that are fetched and decoded meanwhile: one slow link holds nothing up
_DECODED_BYTES = _AHEAD * _BLOCK * (3 << 18)  # 12 s of each clip

_log = logging.getLogger(__name__)


def check_partition(
    frame: pd.DataFrame,
    column: Hashable | None = None,
    *,
    fit: str = "error",
    base: Base | None = None,
    prefix: str = frames.DEFAULT_PREFIX,
    overwrite: bool = False,
    sign: Callable[[str], str] | None = None,
    quality: bool = False,
) -> pd.DataFrame:
    """As `check`, for a part of a table: one thread, no progress.

    Parameters
    ----------
    frame, column, fit, base, prefix, overwrite, sign, quality
        As in `check`. Give ``base`` as an absolute folder that every worker sees.

    Returns
    -------
    DataFrame
        As `check` returns.

    Raises
    ------
    UsageError
        The call itself is wrong.

    Examples
    --------
    >>> check_partition(pd.DataFrame({"audio": ["no-such-file.wav"]})).vp_error_code.tolist()
    ['file_not_found']
    """
    frame, column = frames.as_frame(frame, column)
    names = frames.check_names(prefix, quality=quality)
    frame = frames.without_taken(frame, column, names, overwrite=overwrite)
    request = Request(frames.bases_of(base), frames.fit_of(fit), embed=_embed_of(quality))
    cells = frames.cells_of(frame, column)
    outcomes = loop_thread().start(check_all(cells, request, Tally(len(cells)), sign=sign, threads=1)).wait()
    return frames.with_outcomes(frame, outcomes, names)


def voiceprint_partition(
    frame: pd.DataFrame,
    column: Hashable | None = None,
    *,
    model: str | Model | None = None,
    fit: str = "error",
    base: Base | None = None,
    prefix: str = frames.DEFAULT_PREFIX,
    overwrite: bool = False,
    sign: Callable[[str], str] | None = None,
    quality: bool = False,
) -> pd.DataFrame:
    """As ``voiceprints(..., service="local")``, for a part of a table: pure, on one thread, without a ledger.

    The same rows give the same result, so whoever loses it computes it again. For Dask, `voiceprints` takes
    the Dask DataFrame itself. For Ray Data::

        dataset.map_batches(
            vp.voiceprint_partition, batch_format="pandas", fn_kwargs={"column": "audio", "base": "/data"}
        )

    For Spark, whose part is an iterator of frames, and whose tables want their columns named::

        def prints(parts):
            for part in parts:
                yield vp.voiceprint_partition(part[["audio"]], "audio", base="/data")

        columns = "audio string, voiceprint string, vp_status string, vp_error_code string, vp_error string, "
        columns += "vp_warning string, vp_job_id string, vp_duration_s double, vp_source string"
        spark_frame.mapInPandas(prints, columns)

    Parameters
    ----------
    frame, column, model, fit, base, prefix, overwrite, sign, quality
        As in `voiceprints`. Give ``base`` as an absolute folder that every worker sees, and a network of
        your own by a path that every worker has.

    Returns
    -------
    DataFrame
        As `voiceprints` returns, without ``attrs`` and with ``vp_job_id`` always missing: there are no jobs.
        ``vp_source`` is ``reused`` for rows whose clip equals that of an earlier row of this part.

    Raises
    ------
    UsageError
        The call itself is wrong.

    Examples
    --------
    >>> voiceprint_partition(pd.DataFrame({"audio": ["no-such-file.wav"]})).vp_status.tolist()
    ['invalid']
    """
    frame, column = frames.as_frame(frame, column)
    names = frames.result_names(prefix, quality=quality)
    frame = frames.without_taken(frame, column, names, overwrite=overwrite)
    request = Request(frames.bases_of(base), frames.fit_of(fit), embed=_embed_of(quality))
    printing = _print_all(frames.cells_of(frame, column), request, model, sign)
    outcomes = loop_thread().start(printing).wait()
    return frames.with_outcomes(frame, outcomes, names)


def match_partition(frame: pd.DataFrame, library: Library, **options: Any) -> pd.DataFrame:
    """As `match`, for a part of a table, which may be without any voiceprint.

    Parameters
    ----------
    frame, library, options
        As in `match`.

    Returns
    -------
    DataFrame
        As `match` returns.

    Raises
    ------
    UsageError
        As `match`.
    """
    from voiceprint_nb import match

    column = voiceprint_column(frame)
    if frame[column].notna().any():
        return match(frame, library, **options)
    added = match_columns(library, options)
    names = {str(name): str(name) for name in added}
    frame = frames.without_taken(frame, column, names, overwrite=options.get("overwrite", False))
    missing = added.reindex(frame.index)
    out = frame.assign(**{name: missing[name].array for name in names})
    prefix = options.get("prefix", frames.DEFAULT_PREFIX)
    told = added.attrs["voiceprint_nb_match"][prefix]  # the same for all parts
    out.attrs = {**frame.attrs, **decided(frame, prefix=prefix, verb="match", told=told)}
    return out


def match_columns(library: Library, options: Mapping[str, Any]) -> pd.DataFrame:
    """The columns that `match` adds, without rows: what it says to a print of the library itself.

    Raises
    ------
    UsageError
        The options or the library cannot be used.
    """
    from voiceprint_nb import match

    own = voiceprint_text(library.arrays().prints[0], library.model)
    return match(pd.DataFrame({"voiceprint": [own]}), library, **options).iloc[:0].drop(columns="voiceprint")


# --- voiceprints of cells ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Heard:
    """A row between its clip and its voiceprint; without the network's input where that was there before."""

    clip: Clip
    windows: NDArray[np.float32] | None = field(repr=False)


class _Printer:
    """Voiceprints of cells in blocks, so that what shares a network run does not depend on time.

    Parameters
    ----------
    cells : sequence
        One cell a row.
    inspector : Inspector
        Open; its thread does all that computes.
    embedder : Embedder
        The network.
    decoded : Decoded
        Where the inspector keeps samples.
    measured : bool
        Whether the inspector measures the quality of clips.
    """

    def __init__(
        self,
        cells: Sequence[object],
        inspector: Inspector,
        embedder: Embedder,
        *,
        decoded: Decoded,
        measured: bool,
    ) -> None:
        self._cells, self._inspector, self._embedder = cells, inspector, embedder
        self._decoded = decoded
        self._texts: dict[str, str | RowError] = {}  # voiceprints, or why not, by digest of the clip
        self.outcomes = Outcomes(len(cells), measured=measured)

    async def run(self) -> None:
        """Fill the outcomes, block by block; the next few are heard meanwhile."""
        n_rows = len(self._cells)
        starts = iter(range(0, n_rows, _BLOCK))
        ahead: deque[tuple[int, asyncio.Task[list[_Heard | Outcome]]]] = deque()
        try:
            while True:
                for start in islice(starts, _AHEAD - len(ahead)):
                    block = range(start, min(start + _BLOCK, n_rows))
                    ahead.append((start, asyncio.create_task(self._hear_all(block))))
                if not ahead:
                    return
                start, task = ahead.popleft()
                await self._end_all(start, await task)
        finally:
            for _, task in ahead:
                task.cancel()

    async def _hear_all(self, positions: Iterable[int]) -> list[_Heard | Outcome]:
        return await asyncio.gather(*(self._hear(self._cells[position]) for position in positions))

    async def _hear(self, cell: object) -> _Heard | Outcome:
        try:
            source = self._inspector.parse(cell)
            if isinstance(source, MediaSource):
                return Outcome.of_error(RowError("unsupported_cell", _NO_STORAGE))
            async with self._inspector.clip(source) as clip:
                if clip.digest in self._texts:
                    return _Heard(clip, None)
                return _Heard(clip, await self._inspector.in_thread(partial(self._windows, clip.path)))
        except RowError as error:
            return Outcome.of_error(error)

    def _windows(self, path: Path) -> NDArray[np.float32]:
        try:
            return self._embedder.windows(load_clip(path, decoded=self._decoded))
        except Exception as error:  # what a clip does ends its row and nothing else
            raise _row_error(error) from error

    def _embed(self, fresh: Mapping[str, NDArray[np.float32]]) -> dict[str, str | RowError]:
        """Voiceprints by digest, of one run for all; when that fails, of one each, or why there is none."""
        try:
            vectors = self._embedder.embed_windows(list(fresh.values()))
        except Exception as error:  # what a clip does ends its row and nothing else
            if len(fresh) > 1:
                parts = [self._embed({digest: windows}) for digest, windows in fresh.items()]
                return {digest: made for part in parts for digest, made in part.items()}
            return dict.fromkeys(fresh, _row_error(error))
        made_by = self._embedder.model.fingerprint
        return {
            digest: voiceprint_text(vector, made_by) for digest, vector in zip(fresh, vectors, strict=True)
        }

    async def _end_all(self, start: int, rows: Sequence[_Heard | Outcome]) -> None:
        fresh: dict[str, NDArray[np.float32]] = {}
        for row in rows:
            if isinstance(row, _Heard) and row.windows is not None and row.clip.digest not in self._texts:
                fresh.setdefault(row.clip.digest, row.windows)
        self._texts |= await self._inspector.in_thread(partial(self._embed, fresh))
        for position, row in enumerate(rows, start):
            self.outcomes.end(position, row if isinstance(row, Outcome) else self._outcome(row.clip, fresh))

    def _outcome(self, clip: Clip, fresh: dict[str, NDArray[np.float32]]) -> Outcome:
        made = self._texts[clip.digest]
        if isinstance(made, RowError):
            return Outcome.of_error(made).with_clip(clip)
        source = "reused" if fresh.pop(clip.digest, None) is None else "new"
        return Outcome("succeeded", made, source=source).with_clip(clip)


def _row_error(error: Exception) -> RowError:
    """What a row's clip ends with; a fault that is not the clip's own is logged."""
    if isinstance(error, RowError):
        return error
    _log.error("a row failed by a fault of the engine", exc_info=error)
    told = f"The engine failed on this clip ({type(error).__name__}); the worker's log tells."
    return RowError("job_failed", told)


_NO_STORAGE = (
    "A media:// key names an upload at a service, and none takes part here: put the clip's path or link into "
    "the cell."
)


def _embed_of(quality: bool) -> Embed | None:
    return embedder_of_process().embed_parts if quality else None


async def _print_all(
    cells: Sequence[object], request: Request, model: str | Model | None, sign: Callable[[str], str] | None
) -> Outcomes:
    if not len(cells):
        return Outcomes(0, measured=request.embed is not None)
    scratch.sweep()  # a worker that was killed may have left copies of audio
    decoded = Decoded(_DECODED_BYTES)
    async with Inspector(request, sign=sign, threads=1, decoded=decoded) as inspector:
        embedder = await inspector.in_thread(partial(embedder_of_process, model))
        measured = request.embed is not None
        printer = _Printer(cells, inspector, embedder, decoded=decoded, measured=measured)
        await printer.run()
    return printer.outcomes
