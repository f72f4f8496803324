"""Waveform to voiceprint: what the network hears, the network, one unit vector a clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb import contract
from voiceprint_nb.engine import features
from voiceprint_nb.engine.model import Model
from voiceprint_nb.engine.networks import open_network
from voiceprint_nb.errors import RowError

# Windows per network run. Windows per second on one thread of an AMD EPYC (Zen 5), ONNX Runtime 1.32:
# 1: 146, 2: 240, 4: 328, 8: 284, 16: 324, 32: 346, 48: 351, 64: 346, 128: 305, 256: 330. Memory grows by
# 1.5 MB a window and thread, so 32 is the smallest chunk at full speed.
CHUNK_WINDOWS = 32

_PARTS = replace(features.ROBUST, name="parts", layout="stepped", step_frames=40, min_coverage=1.0)
"""One level for the whole clip as in `features.ROBUST`, and a window of 1.6 s every 0.4 s."""


def voiceprint_text(vector: NDArray[np.float32], fingerprint: str) -> str:
    """Voiceprint text of an embedding: base64 of a record that names its model.

    Parameters
    ----------
    vector : (dimensions,) float32
        L2-normalised embedding.
    fingerprint : str
        Of the model that made it.
    """
    return contract.encode_voiceprint(fingerprint, np.ascontiguousarray(vector, "<f4").tobytes())


def vector_of(text: str) -> tuple[str, NDArray[np.float32]]:
    """Fingerprint and embedding, (dimensions,) float32, of a voiceprint text.

    Raises
    ------
    UsageError
        The text is a hosted (opaque) voiceprint or damaged.
    """
    record = contract.decode_voiceprint(text)
    return record.fingerprint, np.frombuffer(record.vector, "<f4").astype(np.float32)


class Embedder:
    """A model in memory.

    One embedder may serve several threads at once: two threads on two cores give twice the throughput of
    one, and the weights are in memory once.

    Parameters
    ----------
    model : Model or str
        A model, or its text (`Model.named`).

    Raises
    ------
    UsageError
        There is no such model, its network is missing or damaged, or this machine cannot compute it.
    MissingExtra
        Its runtime is not installed.

    Examples
    --------
    >>> tone = np.sin(np.arange(32000) * 0.2).astype(np.float32)
    >>> Embedder().embed(tone).shape
    (256,)
    """

    def __init__(self, model: Model | str = Model.DEFAULT) -> None:
        self.model = Model.named(model) if isinstance(model, str) else model
        self._network = open_network(self.model)

    def windows(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Network inputs of one clip: ``(inputs, ...) float32`` of ``(samples,) float32`` at 16 kHz.

        Raises
        ------
        RowError
            The clip is empty, silent, or holds values that are not finite.
        """
        return self.model.features.inputs(samples)

    def embed_windows(self, clips: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Embeddings of clips that went through `windows`.

        Parameters
        ----------
        clips : sequence of (inputs, ...) float32
            Windows of all clips share network runs of at most `CHUNK_WINDOWS`, except in 8-bit integers,
            whose scale is that of the whole run: a print would depend on its neighbours. Inputs of other
            shapes have runs of their own. None give an empty list of no dimensions.

        Returns
        -------
        (n, dimensions) float32
            Unit length each; a clip's row does not depend on its neighbours beyond 1e-5.

        Raises
        ------
        RowError
            The network answers one of the clips with what is no direction.
        """
        if not clips:
            return np.empty((0, 0), np.float32)
        shares_runs = self.model.features.is_windowed and self.model.precision != "int8"
        parts = [np.concatenate(clips)] if shares_runs else clips
        partials = np.concatenate([self._run(part) for part in parts])
        firsts = np.cumsum([0, *(len(clip) for clip in clips[:-1])])
        sums: NDArray[np.float32] = np.add.reduceat(partials, firsts, axis=0)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and lengths.all()):
            raise RowError(
                "job_failed", "The network has no answer to this clip: leave it out, or try another."
            )
        sums /= lengths
        return sums

    def embed_parts(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings of overlapping windows of one clip by a packaged network, to compare with each other.

        Parameters
        ----------
        samples : (samples,) float32
            16 kHz mono.

        Returns
        -------
        (windows, 256) float32
            Unit length each; of 1.6 s every 0.4 s, within 10 ms inside the clip unless that is shorter.

        Raises
        ------
        RowError
            The clip is empty, silent, or holds values that are not finite.
        """
        return self._run(features.windows(samples, _PARTS))

    def _run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings, (inputs, dimensions) float32, a chunk at a time."""
        starts = range(0, len(inputs), CHUNK_WINDOWS)
        return np.concatenate([self._network(inputs[start : start + CHUNK_WINDOWS]) for start in starts])

    def embed(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embedding of one clip: (dimensions,) float32, unit length.

        Parameters
        ----------
        samples : (samples,) float32
            16 kHz mono.

        Raises
        ------
        RowError
            The clip is empty, silent, or holds values that are not finite.
        """
        vector: NDArray[np.float32] = self.embed_many([samples])[0]
        return vector

    def embed_many(self, clips: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Embeddings of several clips in shared network runs: (n, dimensions) float32, unit length each.

        Parameters
        ----------
        clips : sequence of (samples,) float32
            16 kHz mono, of any lengths.

        Raises
        ------
        RowError
            The first clip that is empty, silent, or holds values that are not finite.
        """
        return self.embed_windows([self.windows(samples) for samples in clips])
