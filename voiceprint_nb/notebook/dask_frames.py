"""Dask DataFrames in, lazy Dask DataFrames out: each part is worked on by its worker.

Nothing here imports Dask before a Dask DataFrame is there. Lazy frames are annotated as the DataFrames that
they become, as callers of the verbs know these.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from voiceprint_nb.engine.model import Model
from voiceprint_nb.errors import UsageError
from voiceprint_nb.notebook import frames
from voiceprint_nb.settings import resolve

if TYPE_CHECKING:
    from voiceprint_nb.analysis.library import Library
    from voiceprint_nb.notebook.verbs import Base


def check(ddf: Any, column: Hashable | None, *, base: Base | None, **options: Any) -> pd.DataFrame:
    """As `voiceprint_nb.check`: a lazy Dask DataFrame."""
    from voiceprint_nb.notebook.partitions import check_partition

    return _mapped(check_partition, ddf, column, base=base, **options)


def voiceprints(
    ddf: Any,
    column: Hashable | None,
    *,
    service: str | None,
    api_key: str | None,
    model: str | Model | None,
    base: Base | None,
    unused: dict[str, object],
    **options: Any,
) -> pd.DataFrame:
    """As `voiceprint_nb.voiceprints` with the engine of each worker: a lazy Dask DataFrame.

    Parameters
    ----------
    ddf, column, service, api_key, model, base, options
        As in `voiceprint_nb.voiceprints`.
    unused : dict
        Its other options by name, all of which must be None.

    Raises
    ------
    UsageError
        The call asks for a service, or for what only a service or a ledger has.
    """
    from voiceprint_nb.notebook.partitions import voiceprint_partition

    if api_key is not None or not resolve(service=service).is_local:
        raise UsageError(_NOT_HOSTED)
    if given := [name for name, value in unused.items() if value is not None]:
        raise UsageError(
            f"{given[0]}= is for services and ledgers: leave it out, workers of a Dask DataFrame use none."
        )
    model = Model.named(model) if isinstance(model, str) else model  # what is wrong with it is said here
    return _mapped(voiceprint_partition, ddf, column, model=model, base=base, **options)


def match(ddf: Any, library: Library, **options: Any) -> pd.DataFrame:
    """As `voiceprint_nb.match`: a lazy Dask DataFrame; what is wrong with the options is raised at once."""
    from dask.delayed import delayed

    from voiceprint_nb.notebook.partitions import match_partition

    ddf = ddf if ddf.ndim == 2 else ddf.to_frame("voiceprint")
    meta = match_partition(ddf._meta, library, **options)
    once = delayed((library, options), pure=True, traverse=False)  # sent once, not with each part
    lazy: pd.DataFrame = ddf.map_partitions(_matched, once, meta=meta)
    return lazy


def _matched(frame: pd.DataFrame, asked: tuple[Library, dict[str, Any]]) -> pd.DataFrame:
    from voiceprint_nb.notebook.partitions import match_partition

    library, options = asked
    return match_partition(frame, library, **options)


def _mapped(
    function: Callable[..., pd.DataFrame],
    ddf: Any,
    column: Hashable | None,
    *,
    base: Base | None,
    **options: Any,
) -> pd.DataFrame:
    """Have a partition function applied; its own answer to no rows is the published meta."""
    if ddf.ndim == 1:
        ddf = ddf.to_frame(column if column is not None else ddf.name or frames.DEFAULT_COLUMN)
    _, column = frames.as_frame(ddf._meta, column)
    on_part = partial(function, column=column, base=frames.bases_of(base), **options)
    lazy: pd.DataFrame = ddf.map_partitions(on_part, meta=on_part(ddf._meta))
    return lazy


_NOT_HOSTED = (
    "A Dask DataFrame is computed by the engine of its workers: pass service='local'. The limits of a hosted "
    "service hold for your whole team, so a cluster is no faster there than one process, which keeps a "
    "ledger besides: voiceprints(ddf.compute())."
)
