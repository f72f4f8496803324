"""Waveform to voiceprint: the packaged speaker network, run by ONNX Runtime on one thread.

The network is the GE2E voice encoder of Resemblyzer 0.1.4 (Apache-2.0, Resemble AI), converted by
``tools/export_ge2e.py``: three LSTM layers of 256 cells, a linear layer, ReLU and L2 normalisation.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb import contract
from voiceprint_nb.engine import features
from voiceprint_nb.errors import UsageError

MODEL_NAME = "ge2e-dvector-fp16w.onnx"
MODEL_SHA256 = "293099f10505596909523eb4a5d9c2f6e803bcf718509a342f33d4462b89ddc2"
"""Digest of the packaged file, as ``python -m tools.export_ge2e`` prints it."""

DIMENSIONS = 256

# Windows per network run. Windows per second on one thread of an AMD EPYC (Zen 5), ONNX Runtime 1.32:
# 1: 146, 2: 240, 4: 328, 8: 284, 16: 324, 32: 346, 48: 351, 64: 346, 128: 305, 256: 330. Memory grows by
# 1.5 MB a window and thread, so 32 is the smallest chunk at full speed.
CHUNK_WINDOWS = 32

_PARTS = replace(features.ROBUST, name="parts", layout="stepped", step_frames=40, min_coverage=1.0)
"""One level for the whole clip as in `features.ROBUST`, and a window of 1.6 s every 0.4 s."""


def fingerprint(recipe: str = "robust") -> str:
    """32 hex digits that name the network and the feature recipe; loads neither file nor runtime.

    Prints with different fingerprints are never compared.

    Parameters
    ----------
    recipe : str
        ``"robust"`` or ``"compatible"``.

    Raises
    ------
    UsageError
        There is no recipe of that name.
    """
    facts = {"model": MODEL_SHA256, "features": "mel40-linear-power"} | asdict(features.recipe_named(recipe))
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def voiceprint_text(vector: NDArray[np.float32], fingerprint: str) -> str:
    """Voiceprint text of an embedding: base64 of a record that names its model.

    Parameters
    ----------
    vector : (dimensions,) float32
        L2-normalised embedding.
    fingerprint : str
        `fingerprint` of the recipe that made it.
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
    """The network in memory, with one feature recipe.

    One embedder may serve several threads at once: ONNX Runtime allows concurrent runs of a session, two
    threads on two cores give twice the throughput of one, and the weights are in memory once.

    Parameters
    ----------
    recipe : str
        ``"robust"`` (default) or ``"compatible"`` (Resemblyzer value for value).

    Raises
    ------
    UsageError
        There is no such recipe, or the packaged network is missing or damaged.

    Examples
    --------
    >>> tone = np.sin(np.arange(32000) * 0.2).astype(np.float32)
    >>> Embedder().embed(tone).shape
    (256,)
    """

    def __init__(self, *, recipe: str = "robust") -> None:
        self._recipe = features.recipe_named(recipe)
        self._session = _open_session(_checked_model())

    @property
    def recipe(self) -> str:
        """Name of the feature recipe."""
        return self._recipe.name

    @property
    def fingerprint(self) -> str:
        """32 hex digits that name network and recipe; see `fingerprint`."""
        return fingerprint(self._recipe.name)

    def windows(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Network input of one clip: (windows, 160, 40) float32 of (samples,) float32 at 16 kHz.

        Raises
        ------
        RowError
            The clip is empty, silent, or holds values that are not finite.
        """
        return features.windows(samples, self._recipe)

    def embed_windows(self, clips: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Embeddings of clips that went through `windows`.

        Parameters
        ----------
        clips : sequence of (windows, 160, 40) float32
            The windows of all clips share network runs of at most `CHUNK_WINDOWS`.

        Returns
        -------
        (n, 256) float32
            Unit length each; a clip's row does not depend on its neighbours beyond 1e-5.
        """
        if not clips:
            return np.empty((0, DIMENSIONS), np.float32)
        partials = self._run(np.concatenate(clips))
        firsts = np.cumsum([0, *(len(clip) for clip in clips[:-1])])
        sums: NDArray[np.float32] = np.add.reduceat(partials, firsts, axis=0)
        sums /= np.linalg.norm(sums, axis=1, keepdims=True)
        return sums

    def embed_parts(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings of overlapping windows of one clip, to be compared with each other.

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

    def _run(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings, (windows, 256) float32, of so many windows, a chunk at a time."""
        partials = np.empty((len(windows), DIMENSIONS), np.float32)
        for start in range(0, len(windows), CHUNK_WINDOWS):
            chunk = windows[start : start + CHUNK_WINDOWS]
            partials[start : start + len(chunk)] = self._session.run(["embeds"], {"mels": chunk})[0]
        return partials

    def embed(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embedding of one clip: (256,) float32, unit length.

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
        """Embeddings of several clips in shared network runs: (n, 256) float32, unit length each.

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


def _checked_model() -> bytes:
    """Bytes of the packaged network, after a look at their digest."""
    try:
        model = (importlib.resources.files("voiceprint_nb.engine") / "models" / MODEL_NAME).read_bytes()
    except OSError as error:
        raise UsageError(
            f"The packaged speaker network {MODEL_NAME} cannot be read: reinstall it with "
            "`pip install --force-reinstall --no-deps voiceprint_nb`."
        ) from error
    if hashlib.sha256(model).hexdigest() != MODEL_SHA256:
        raise UsageError(
            f"The packaged speaker network {MODEL_NAME} is damaged or was replaced: reinstall it with "
            "`pip install --force-reinstall --no-deps voiceprint_nb`."
        )
    return model


def _open_session(model: bytes) -> Any:
    """A session that computes on the calling thread alone."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # errors: its warnings would print into notebooks
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
