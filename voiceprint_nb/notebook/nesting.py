"""The explicit opt-in to nested event loops."""

from __future__ import annotations

from voiceprint_nb.errors import UsageError
from voiceprint_nb.notebook.views import kernel_version


def enable_nesting() -> None:
    """Let coroutines be run to completion inside a cell's own running loop, with nest_asyncio.

    Nothing in this package needs it: all verbs work inside a running loop without it.

    Raises
    ------
    UsageError
        In kernels where it makes "Run All" drop queued cells (ipykernel 7 and later with nest_asyncio 1.6).
    """
    version = kernel_version()
    if version is not None and version >= (7, 0):
        raise UsageError(
            f"nest_asyncio makes 'Run All' drop queued cells on ipykernel {'.'.join(map(str, version))}: use "
            "await in the cell instead; voiceprint_nb does not need it."
        )
    import nest_asyncio

    nest_asyncio.apply()
