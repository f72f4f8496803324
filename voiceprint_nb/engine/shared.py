"""One network for all threads of a process, loaded on first use; what a cluster's worker computes with."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb.engine.embedder import Embedder
from voiceprint_nb.engine.model import Model

_loading = threading.Lock()


def embedder_of_process(model: Model | str | None = None) -> Embedder:
    """A model in memory, by default the packaged one, which all threads of this process share.

    Parameters
    ----------
    model : Model or str, optional
        A model, or its text (`Model.named`).

    Raises
    ------
    UsageError
        As `Embedder`.
    """
    model = Model.named(model or Model.DEFAULT) if not isinstance(model, Model) else model
    with _loading:  # threads that begin together load it once
        return _embedder(os.getpid(), model)


def embed_clips(text: str, clips: Sequence[NDArray[np.float32]]) -> tuple[str, NDArray[np.float32]]:
    """What a worker of a cluster does with a few clips, on the thread that calls.

    Parameters
    ----------
    text : str
        Names the model (`Model.named`): this process's own one counts.
    clips : sequence of (samples,) float32
        16 kHz mono.

    Returns
    -------
    fingerprint : str
        Of that model, for whoever asks from another machine.
    vectors : (n, dimensions) float32
        Unit length each.

    Raises
    ------
    RowError
        As `Embedder.embed_many`.
    """
    embedder = embedder_of_process(text)
    return embedder.model.fingerprint, embedder.embed_many(clips)


def fingerprint_of(text: str) -> str:
    """Fingerprint of the model that a text names in this process."""
    return Model.named(text).fingerprint


@functools.lru_cache(maxsize=4)
def _embedder(_pid: int, model: Model) -> Embedder:
    """A forked child gets its own."""
    return Embedder(model)
