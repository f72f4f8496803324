"""A speaker model: which network, what it hears, how exactly it computes. All that decides a voiceprint.

The packaged network is the GE2E voice encoder of Resemblyzer 0.1.4 (Apache-2.0, Resemble AI), converted by
``tools/export_ge2e.py``: three LSTM layers of 256 cells, a linear layer, ReLU and L2 normalisation.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import os
import re
import warnings
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, cast, get_args

from voiceprint_nb.engine import features, front_ends
from voiceprint_nb.engine.front_ends import FrontEnd, Known
from voiceprint_nb.errors import UsageError

Precision = Literal["float32", "int8", "bfloat16"]
Device = Literal["cpu", "cuda"]

MODEL_NAME = "ge2e-dvector-fp16w.onnx"
MODEL_SHA256 = "293099f10505596909523eb4a5d9c2f6e803bcf718509a342f33d4462b89ddc2"
"""Digest of the packaged file, as ``python -m tools.export_ge2e`` prints it."""
INT8_NAME = "ge2e-dvector-int8.onnx"
INT8_SHA256 = "a7e315eb854c198d2f69515f66616abe8a281cb8796ee0a68ad98220c1ea5b40"
"""Digest of the packaged file with layers 2 and 3 as 8-bit integers (``--int8``)."""


_OWN = re.compile(r"(?P<path>.+\.onnx)(?P<words>(:[^:/]*)*)", re.DOTALL)
_RECIPES = {recipe.name: recipe for recipe in (features.ROBUST, features.COMPATIBLE)}


@dataclass(frozen=True)
class Model:
    """A speaker network with all that decides its voiceprints; prints of different ones are never compared.

    Made by `Model.packaged` or `Model.from_onnx`; small, and safe to send to other processes: the network is
    read where it is used.

    Attributes
    ----------
    name : str
        What people call it; models that differ in nothing else are equal.
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

    name: str = field(compare=False)
    features: FrontEnd
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
            ``cuda`` needs the package ``onnxruntime-gpu`` in place of ``onnxruntime``, and float32. Its
            prints are the processor's to a cosine of 0.999: a GPU may multiply in fewer bits.

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
    def from_onnx(
        cls,
        path: str | os.PathLike[str],
        features: str | Known | None = None,
        *,
        name: str | None = None,
        device: Device = "cpu",
        precision: Precision = "float32",
    ) -> Model:
        """A network of your own, which is tried on noise before anything else.

        Similarities and thresholds of one network mean nothing for another: calibrate anew.

        Parameters
        ----------
        path : str or Path
            File that ends in ``.onnx``, with one input and one output of float32: ``(batch, time, bands)`` or
            ``(batch, samples)`` in, ``(batch, dimensions)`` out.
        features : str, FilterBanks or Waveform, optional
            What it hears: ``"fbank80"``, ``"wespeaker"``, ``"3d-speaker"``, ``"waveform"``, or with options.
            By default what the sidecar ``model.json`` beside ``model.onnx`` states, else what the metadata
            say that sherpa-onnx's exports have, else what the input's shape leaves open, with a warning.
        name : str, optional
            What people call it; by default the file's name.
        device : {"cpu", "cuda"}
            ``cuda`` needs the package ``onnxruntime-gpu`` in place of ``onnxruntime``, and float32.
        precision : {"float32", "bfloat16"}
            ``bfloat16`` needs the extra ``openvino`` and a processor that has it.

        Raises
        ------
        UsageError
            The file cannot be read, is no speaker network, or does not tell what it hears.

        Warns
        -----
        UserWarning
            The shape of its input alone tells what it hears.
        """
        from voiceprint_nb.engine.own import examine

        path = Path(path).expanduser().absolute()
        if path.suffix != ".onnx":
            raise UsageError(f"A network of your own is a file that ends in '.onnx': {path.name!r} does not.")
        if precision not in ("float32", "bfloat16"):
            raise UsageError(
                f"precision={precision!r} is not for a network of your own: use float32 or bfloat16, or a "
                "file that holds the network so."
            )
        wanted = front_ends.named(features) if isinstance(features, str) else features
        if not isinstance(wanted, Known | None):
            raise UsageError(f"features= takes a text, FilterBanks or Waveform, not {type(wanted).__name__}.")
        found = examine(path, wanted)
        if found.by_shape:
            warnings.warn(
                f"Nothing but its input's shape tells what {path.name!r} hears: {found.features}. Check how "
                f"it was trained, and state it: features={front_ends.text_of(found.features)!r}.",
                stacklevel=2,
            )
        model = cls(name or path.stem, found.features, found.sha256, path, precision)
        return model.on(device)

    @classmethod
    def named(cls, text: str) -> Model:
        """The model that a text names, as in ``model=`` and in the ledger: see `text`.

        Raises
        ------
        UsageError
            There is no such model, or its file is not the one that the text names.
        """
        if own := _OWN.fullmatch(text):
            return cls._own(own["path"], own["words"].split(":")[1:])
        name, *words = text.split(":")
        device = next((word for word in words if word in get_args(Device)), "cpu")
        precision = next((word for word in words if word != device), None)
        return cls.packaged(name, precision=cast(Precision | None, precision), device=cast(Device, device))

    @classmethod
    def _own(cls, path: str, words: list[str]) -> Model:
        told: dict[str, str] = {}
        for word in words:
            kinds = {"precision": get_args(Precision), "device": get_args(Device)}
            kind = next((kind for kind, known in kinds.items() if word in known), "features")
            kind = "sha256" if word.startswith("sha256=") else kind
            if kind in told:
                raise UsageError(f"{Path(path).name!r} is named with both {told[kind]!r} and {word!r}.")
            told[kind] = word
        model = cls.from_onnx(
            path,
            told.get("features"),
            precision=cast(Precision, told.get("precision", "float32")),
            device=cast(Device, told.get("device", "cpu")),
        )
        if told.get("sha256", _pin(model.sha256)) != _pin(model.sha256):
            raise UsageError(
                f"The network {model.path.name if model.path else ''!r} is not the one that was used before: "
                "put that file back, or make all voiceprints again with this one, as theirs do not compare."
            )
        return model

    @property
    def text(self) -> str:
        """All that `named` needs to make it again.

        Name, precision and device where they are not the usual ones: ``robust:int8``, ``robust:cuda``. For a
        network of your own its file, what it hears, and its digest: ``/a/b.onnx:fbank80:sha256=...``.
        """
        words = [self.name]
        if self.path is not None:
            words = [str(self.path), front_ends.text_of(cast(Known, self.features)), _pin(self.sha256)]
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


def is_own(text: str) -> bool:
    """Whether a text names a network of one's own rather than one by name."""
    return _OWN.fullmatch(text) is not None


def _pin(sha256: str) -> str:
    return f"sha256={sha256}"


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
