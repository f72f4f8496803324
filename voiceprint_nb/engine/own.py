"""What is known of a network file that somebody brings: read once, tried on noise, and pinned by digest.

A sidecar, ``model.json`` beside ``model.onnx``, states what the network hears::

    {"features": {"name": "fbank80", "window": "hamming", "scale": "int16"}, "sha256": "..."}

``features`` is such an object, or a text as `front_ends.named` reads it; ``sha256``, which may be left out,
is the digest that the network must have.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb.engine import features, front_ends
from voiceprint_nb.engine.front_ends import Known
from voiceprint_nb.engine.networks import embeddings_of, session_of
from voiceprint_nb.errors import UsageError

_MAX_DIMENSIONS = 65_535  # what a voiceprint's text can hold
_CLIPS_S = (1.5, 2.3)


@dataclass(frozen=True)
class Examined:
    """A file that holds a speaker network, and what that hears."""

    sha256: str
    features: Known
    by_shape: bool
    """Whether the shape of its input alone tells what it hears."""


def examine(path: Path, wanted: Known | None) -> Examined:
    """Look at a network file and try it; again only when it has changed.

    Parameters
    ----------
    path : Path
        The file.
    wanted : FilterBanks, Waveform or Recipe, optional
        What it hears. By default its sidecar tells, else its metadata, else the shape of its input.

    Raises
    ------
    UsageError
        It cannot be read, is no speaker network, or does not tell what it hears.
    """
    try:
        return _found(path, wanted)
    except UsageError as error:
        raise UsageError(f"The network {path.name!r} cannot be used. {error}") from error


def _found(path: Path, wanted: Known | None) -> Examined:
    pinned = None
    if wanted is None:
        wanted, pinned = _sidecar(path.with_suffix(".json"))
    try:
        state = path.stat()
    except OSError as error:
        raise UsageError(f"It cannot be read: {error.strerror}.") from error
    found = _examined(path, (state.st_mtime_ns, state.st_size, state.st_ino), wanted)
    if pinned not in (None, found.sha256):
        raise UsageError("It is not the file whose sha256 its sidecar states.")
    return found


@functools.lru_cache(maxsize=16)
def _examined(path: Path, _state: tuple[int, ...], wanted: Known | None) -> Examined:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"It cannot be read: {error.strerror}.") from error
    try:
        session = session_of(data)
    except Exception as error:  # the runtime's errors have no base of their own
        raise UsageError(f"ONNX Runtime does not read it: {_first_line(error)}") from error
    metadata = session.get_modelmeta().custom_metadata_map
    shape = _input_shape(session)
    chosen = wanted or front_ends.from_metadata(metadata)
    front_end = chosen or front_ends.from_shape(shape)
    front_ends.refuse_shape(front_end, shape)
    dimensions = _tried(session, front_end)
    if metadata.get("output_dim", str(dimensions)) != str(dimensions):
        told = metadata["output_dim"]
        raise UsageError(f"Its metadata tell of {told} dimensions, and it gives {dimensions}.")
    return Examined(hashlib.sha256(data).hexdigest(), front_end, by_shape=chosen is None)


def _sidecar(path: Path) -> tuple[Known | None, str | None]:
    """Front end and digest that a sidecar states; None each where there is none."""
    try:
        told = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError) as error:
        raise UsageError(f"Its sidecar {path.name!r} cannot be read as JSON.") from error
    if not isinstance(told, dict) or "features" not in told or not told.keys() <= {"features", "sha256"}:
        raise UsageError(f"Its sidecar {path.name!r} needs 'features', and may have 'sha256', nothing else.")
    try:
        return front_ends.from_sidecar(told["features"]), told.get("sha256")
    except UsageError as error:
        raise UsageError(f"Its sidecar {path.name!r}: {error}") from error


def _input_shape(session: Any) -> list[object]:
    """Shape of the one input of a network with one output, both float32."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise UsageError(
            f"It has {len(inputs)} inputs and {len(outputs)} outputs, and needs one of each: export it with "
            "the clip in and the embedding out."
        )
    if kinds := {one.type for one in (*inputs, *outputs)} - {"tensor(float)"}:
        raise UsageError(f"Its input and output must be float32, not {', '.join(sorted(kinds))}.")
    return list(inputs[0].shape)


def _tried(session: Any, front_end: Known) -> int:
    """Dimensions of the embeddings that a network gives of two noises, different ones."""
    first, second = (_embedding(session, front_end.inputs(clip)) for clip in _noises())
    if len(first) != len(second) or not 2 <= len(first) <= _MAX_DIMENSIONS:
        raise UsageError(f"Its output has {len(first)} and {len(second)} numbers for two clips of noise.")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise UsageError("It answers noise with NaN or infinite numbers.")
    scale = max(np.linalg.norm(first), np.linalg.norm(second))
    if np.linalg.norm(first - second) <= 1e-4 * scale:
        raise UsageError("It answers different noises with the same numbers: that is no speaker network.")
    return len(first)


def _embedding(session: Any, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean embedding, (dimensions,) float32, of the inputs of a clip."""
    try:
        output = session.run(None, {session.get_inputs()[0].name: inputs})[0]
    except Exception as error:  # the runtime's errors have no base of their own
        given = front_ends.shape_text(inputs.shape)
        raise UsageError(f"It fails on an input of {given}: {_first_line(error)}") from error
    if output.ndim not in (2, 3) or len(output) != len(inputs) or output.shape[1:-1] not in ((), (1,)):
        raise UsageError(
            f"Its output is {front_ends.shape_text(output.shape)} for an input of "
            f"{front_ends.shape_text(inputs.shape)}: one embedding a clip is needed, (batch, dimensions)."
        )
    mean: NDArray[np.float32] = embeddings_of(output).mean(axis=0)
    return mean


def _noises() -> list[NDArray[np.float32]]:
    """White and dark noise of different lengths, (samples,) float32 each."""
    random = np.random.default_rng(0)
    white, other = (random.normal(scale=0.1, size=int(s * features.SAMPLE_RATE_HZ)) for s in _CLIPS_S)
    dark = np.convolve(other, np.full(40, 1 / 40), mode="same")
    return [white.astype(np.float32), dark.astype(np.float32)]


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:300] if lines else type(error).__name__
