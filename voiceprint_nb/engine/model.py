"""A speaker model: which network, what it hears, how exactly it computes. All that decides a voiceprint.

The packaged network is the GE2E voice encoder of Resemblyzer 0.1.4 (Apache-2.0, Resemble AI), converted by
``tools/export_ge2e.py``: three LSTM layers of 256 cells, a linear layer, ReLU and L2 normalisation.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, Protocol, cast, get_args

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb.engine import features
from voiceprint_nb.errors import UsageError

Precision = Literal["float32", "int8", "bfloat16"]
Device = Literal["cpu", "cuda"]

MODEL_NAME = "ge2e-dvector-fp16w.onnx"
MODEL_SHA256 = "293099f10505596909523eb4a5d9c2f6e803bcf718509a342f33d4462b89ddc2"
"""Digest of the packaged file, as ``python -m tools.export_ge2e`` prints it."""
INT8_NAME = "ge2e-dvector-int8.onnx"
INT8_SHA256 = "a7e315eb854c198d2f69515f66616abe8a281cb8796ee0a68ad98220c1ea5b40"
"""Digest of the packaged file with layers 2 and 3 as 8-bit integers (``--int8``)."""


_RECIPES = {recipe.name: recipe for recipe in (features.ROBUST, features.COMPATIBLE)}


class FrontEnd(Protocol):
    """What a network hears of a clip."""

    @property
    def is_windowed(self) -> bool:
        """Whether all inputs have one shape, so that those of several clips can share a run."""
        ...

    def facts(self) -> dict[str, object]:
        """All that decides the inputs, as JSON values; for fingerprints."""
        ...

    def inputs(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Inputs of one clip, ``(inputs, ...) float32``, of ``(samples,) float32`` at 16 kHz, mono."""
        ...


@dataclass(frozen=True)
class Model:
    """A speaker network with all that decides its voiceprints; prints of different ones are never compared.

    Made by `Model.packaged` or `Model.from_onnx`; small, and safe to send to other processes: the network is
    read where it is used.

    Attributes
    ----------
    name : str
        What people call it.
    features : FrontEnd
        What the network hears.
    sha256 : str
        Digest of the network's file, which is checked whenever it is read.
    path : Path or None
        The file; None for the packaged network.
    precision : {"float32", "int8", "bfloat16"}
        Numbers that the network computes with.
    device : {"cpu", "cuda"}
        Where it computes; the only thing here that prints do not depend on, beyond rounding.

    Examples
    --------
    >>> Model.packaged("robust").fingerprint == Model.packaged("compatible").fingerprint
    False
    """

    name: str
    features: FrontEnd = field(repr=False)
    sha256: str = field(repr=False)
    path: Path | None = None
    precision: Precision = "float32"
    device: Device = "cpu"

    DEFAULT: ClassVar[str] = "robust"

    @classmethod
    def packaged(
        cls, name: str = DEFAULT, *, precision: Precision | None = None, device: Device = "cpu"
    ) -> Model:
        """The network that comes with this package.

        Parameters
        ----------
        name : {"robust", "compatible", "fast"}
            What it hears: `features.ROBUST`, or `features.COMPATIBLE`, which gives Resemblyzer's prints value
            for value. ``fast`` is ``robust`` with ``precision="int8"``.
        precision : {"float32", "int8", "bfloat16"}, optional
            By default float32. ``int8``: layers 2 and 3 compute with 8-bit integers, about twice as fast.
            ``bfloat16``: faster still on processors that have it; needs the extra ``openvino``.
        device : {"cpu", "cuda"}
            ``cuda`` needs the package ``onnxruntime-gpu`` in place of ``onnxruntime``, and float32.

        Raises
        ------
        UsageError
            There is no such model, precision or device.
        """
        if name == "fast":
            if precision not in (None, "int8"):
                raise UsageError("model 'fast' is 'robust' with precision='int8': name 'robust' for others.")
            return cls.packaged("robust", precision="int8", device=device)
        precision = precision or "float32"
        if precision not in get_args(Precision):
            known = ", ".join(map(repr, get_args(Precision)))
            raise UsageError(f"Unknown precision={precision!r}: use one of {known}.")
        recipe = _RECIPES.get(name)
        if recipe is None:
            raise UsageError(f"There is no local model {name!r}: use 'robust', 'compatible' or 'fast'.")
        sha256 = INT8_SHA256 if precision == "int8" else MODEL_SHA256
        return cls(name, recipe, sha256, precision=precision).on(device)

    @classmethod
    def named(cls, text: str) -> Model:
        """The model that a text names, as in ``model=`` and in the ledger: see `text`.

        Raises
        ------
        UsageError
            There is no such model.
        """
        name, *words = text.split(":")
        device = next((word for word in words if word in get_args(Device)), "cpu")
        precision = next((word for word in words if word != device), None)
        return cls.packaged(name, precision=cast(Precision | None, precision), device=cast(Device, device))

    @property
    def text(self) -> str:
        """Name, precision and device where they are not the usual ones: ``robust:int8``, ``robust:cuda``."""
        words = [self.name]
        words += [self.precision] if self.precision != "float32" else []
        return ":".join([*words, self.device] if self.device != "cpu" else words)

    def on(self, device: Device) -> Model:
        """The same model, computing elsewhere.

        Raises
        ------
        UsageError
            There is no such device, or it has no such precision.
        """
        if device not in get_args(Device):
            known = ", ".join(map(repr, get_args(Device)))
            raise UsageError(f"Unknown device={device!r}: use one of {known}.")
        if device == "cuda" and self.precision != "float32":
            raise UsageError(
                f"precision={self.precision!r} is for processors: leave it out on device='cuda'."
            )
        return replace(self, device=device)

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits that name network, features and precision; reads neither file nor runtime."""
        facts = {"model": self.sha256} | self.features.facts()
        if self.precision == "bfloat16":  # of the same file; int8 has a file of its own
            facts["precision"] = self.precision
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    def read(self) -> bytes:
        """The network's file, after a look at its digest.

        Raises
        ------
        UsageError
            It is not there, or is not the one that this model was made of.
        """
        return _read_packaged(self) if self.path is None else _read_own(self.path, self.sha256)


def _read_packaged(model: Model) -> bytes:
    name = INT8_NAME if model.precision == "int8" else MODEL_NAME
    again = "reinstall it with `pip install --force-reinstall --no-deps voiceprint_nb`."
    try:
        data = (importlib.resources.files("voiceprint_nb.engine") / "models" / name).read_bytes()
    except OSError as error:
        raise UsageError(f"The packaged speaker network {name} cannot be read: {again}") from error
    if hashlib.sha256(data).hexdigest() != model.sha256:
        raise UsageError(f"The packaged speaker network {name} is damaged or was replaced: {again}")
    return data


def _read_own(path: Path, sha256: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"The speaker network {path.name!r} cannot be read ({error.strerror}).") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UsageError(
            f"The speaker network {path.name!r} has changed since its model was made: make the model again."
        )
    return data
