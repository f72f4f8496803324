"""One network for all threads of a process, loaded on first use; what a cluster's worker computes with."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb.engine.embedder import Embedder

_loading = threading.Lock()


def embedder_of_process(recipe: str = "robust") -> Embedder:
    """The network with this recipe, which all threads of this process share.

    Raises
    ------
    UsageError
        As `Embedder`.
    """
    with _loading:  # threads that begin together load it once
        return _embedder(os.getpid(), recipe)


def embed_clips(recipe: str, clips: Sequence[NDArray[np.float32]]) -> tuple[str, NDArray[np.float32]]:
    """What a worker of a cluster does with a few clips, on the thread that calls.

    Parameters
    ----------
    recipe : str
        Feature recipe.
    clips : sequence of (samples,) float32
        16 kHz mono.

    Returns
    -------
    fingerprint : str
        Of this process's network and recipe, for whoever asks from another machine.
    vectors : (n, 256) float32
        Unit length each.

    Raises
    ------
    RowError
        As `Embedder.embed_many`.
    """
    embedder = embedder_of_process(recipe)
    return embedder.fingerprint, embedder.embed_many(clips)


@functools.lru_cache(maxsize=4)
def _embedder(_pid: int, recipe: str) -> Embedder:
    """A forked child gets its own."""
    return Embedder(recipe=recipe)
