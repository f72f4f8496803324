"""What networks can hear, by name, and what a file tells of it.

======================== =============================================================================
``fbank80``              `FilterBanks` of 80 bands; any number from 20 to 128
``wespeaker``            ``fbank80`` with Hamming windows, samples as 16-bit integers
``3d-speaker``           ``fbank80`` as it is
``waveform``             `Waveform`: the samples themselves
``robust, compatible``   windows of linear mel power for exports of the packaged GE2E network
======================== =============================================================================

Options follow a name: ``fbank64,window=hamming,subtract_mean=false``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb.engine import features
from voiceprint_nb.engine.fbank import SCALES, FilterBanks, Scale, long_enough, refuse_unknown
from voiceprint_nb.errors import UsageError

Shape = tuple[int | None, ...]


class FrontEnd(Protocol):
    """What a network hears of a clip."""

    @property
    def is_windowed(self) -> bool:
        """Whether all inputs have one shape, so that those of several clips can share a run."""
        ...

    @property
    def shape(self) -> Shape:
        """Of one input; None along time."""
        ...

    def facts(self) -> dict[str, object]:
        """All that decides the inputs, as JSON values; for fingerprints."""
        ...

    def inputs(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Inputs of one clip, ``(inputs, ...) float32``, of ``(samples,) float32`` at 16 kHz, mono."""
        ...


@dataclass(frozen=True)
class Waveform:
    """What a network hears that computes its own features.

    Parameters
    ----------
    scale : {"unit", "int16"}
        Range of the samples: -1 to 1, or -32768 to 32767.
    channel_axis : bool
        Whether inputs are (batch, 1, samples) in place of (batch, samples).

    Raises
    ------
    UsageError
        An option has no such value.

    Examples
    --------
    >>> tone = np.sin(np.arange(16000) * 0.2).astype(np.float32)
    >>> Waveform().inputs(tone).shape
    (1, 16000)
    """

    scale: Scale = "unit"
    channel_axis: bool = False

    is_windowed = False

    def __post_init__(self) -> None:
        refuse_unknown("scale", self.scale, tuple(SCALES))
        refuse_unknown("channel_axis", self.channel_axis, (False, True))

    @property
    def shape(self) -> Shape:
        """Of one input; None along time."""
        return (1, None) if self.channel_axis else (None,)

    def facts(self) -> dict[str, object]:
        """All that decides the inputs, as JSON values."""
        return {"features": "waveform"} | asdict(self)

    def inputs(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The clip as one input, ``(1, samples) float32`` or with a channel between.

        Raises
        ------
        RowError
            As `features.check_audible`.
        """
        features.check_audible(samples)
        samples = long_enough(samples)
        if self.scale != "unit":
            samples = samples * np.float32(SCALES[self.scale])
        return samples[(np.newaxis,) * len(self.shape)]


Known = FilterBanks | Waveform | features.Recipe

_NAMED: dict[str, Known] = {
    "wespeaker": FilterBanks(window="hamming", scale="int16"),
    "3d-speaker": FilterBanks(),
    "waveform": Waveform(),
    "robust": features.ROBUST,
    "compatible": features.COMPATIBLE,
}
_HOW = (
    "State what it hears: features='fbank80', 'wespeaker', '3d-speaker', 'waveform', or FilterBanks(...) or "
    "Waveform(...) with options."
)


def named(text: str) -> Known:
    """The front end of a text such as ``fbank80,window=hamming``.

    Raises
    ------
    UsageError
        There is no such front end or option.
    """
    name, *words = text.split(",")
    options = dict(word.partition("=")[::2] for word in words)
    return with_options(name, {option: _value(value) for option, value in options.items()})


def with_options(name: object, options: Mapping[str, Any]) -> Known:
    """The front end of a name, with some of its options set.

    Raises
    ------
    UsageError
        There is no such front end or option.
    """
    front_end = _NAMED.get(name) if isinstance(name, str) else None
    if isinstance(name, str) and (bands := re.fullmatch(r"fbank([0-9]{1,4})", name)):
        front_end = FilterBanks(bands=int(bands[1]))
    if front_end is None:
        known = ", ".join(map(repr, ["fbank80", *_NAMED]))
        raise UsageError(f"There are no features {name!r}: use one of {known}.")
    known_options = (
        () if isinstance(front_end, features.Recipe) else [field.name for field in fields(front_end)]
    )
    for option in options:
        if option not in known_options:
            has = ", ".join(known_options) or "none"
            raise UsageError(f"Features {name!r} have no option {option!r}; theirs are: {has}.")
    return replace(front_end, **options)


def text_of(front_end: Known) -> str:
    """The text that `named` reads: a name, and the options that are not the usual ones."""
    if isinstance(front_end, features.Recipe):
        return front_end.name
    usual: Known = FilterBanks(bands=front_end.bands) if isinstance(front_end, FilterBanks) else Waveform()
    name = f"fbank{front_end.bands}" if isinstance(front_end, FilterBanks) else "waveform"
    has, had = asdict(front_end), asdict(usual)
    words = [f"{option}={_word(value)}" for option, value in has.items() if value != had[option]]
    return ",".join([name, *words])


def from_sidecar(told: object) -> Known:
    """The front end that a sidecar's ``features`` tell: a text, or an object with a ``name`` and options.

    Raises
    ------
    UsageError
        They tell of none.
    """
    if isinstance(told, str):
        return named(told)
    if isinstance(told, dict):
        return with_options(told.get("name"), {key: value for key, value in told.items() if key != "name"})
    raise UsageError("'features' is neither a text nor an object with a 'name'.")


def from_metadata(metadata: Mapping[str, str]) -> Known | None:
    """The front end that an ONNX file's metadata tell, None if they tell of none.

    The keys are those that sherpa-onnx's exports write (``scripts/wespeaker/add_meta_data.py`` and
    ``scripts/3dspeaker/export-onnx.py``), and ``tools/export_ge2e.py``. They leave window, cut-off and, for
    WeSpeaker, the mean open: these are as the authors compute them (``wespeaker/bin/infer_onnx.py``,
    ``speakerlab/process/processor.py``), which sherpa-onnx itself does not follow: it cuts off at 7.6 kHz,
    takes Povey windows for all, and leaves WeSpeaker's mean.

    Raises
    ------
    UsageError
        They ask for what this engine does not compute.
    """
    framework = metadata.get("framework", "")
    if framework == "nemo":
        raise UsageError("It is of NeMo, whose filter banks are not Kaldi's: they are not supported.")
    if framework == "ge2e" and metadata.get("feature") == "mel40-linear-power":
        return features.ROBUST
    if framework not in ("wespeaker", "3d-speaker"):
        return None
    if metadata.get("sample_rate", "16000") != "16000":
        raise UsageError(f"It is for {metadata['sample_rate']} Hz: the engine hears 16000 Hz.")
    if metadata.get("feature_normalize_type", "") not in ("", "global-mean"):
        told = metadata["feature_normalize_type"]
        raise UsageError(f"Its metadata ask for feature_normalize_type {told!r}, which is not known. {_HOW}")
    front_end = _NAMED[framework]
    scales: dict[str | None, dict[str, Any]] = {"0": {"scale": "int16"}, "1": {"scale": "unit"}}
    return replace(front_end, **scales.get(metadata.get("normalize_samples"), {}))


def from_shape(shape: Sequence[object]) -> Known:
    """The front end that a network's input shape alone tells.

    Parameters
    ----------
    shape : sequence
        As ONNX Runtime gives it: a number, or a text or None where any size fits.

    Raises
    ------
    UsageError
        Several would fit, or none that is known.
    """
    sizes = [size if isinstance(size, int) else None for size in shape]
    if len(sizes) == 3 and sizes[1:] == [None, 80]:
        return FilterBanks()
    if len(sizes) == 2 and sizes[1] is None:
        return Waveform()
    if len(sizes) == 3 and sizes[1:] == [1, None]:
        return Waveform(channel_axis=True)
    raise UsageError(
        f"Neither a sidecar nor metadata nor its input, {shape_text(shape)}, tells what it hears. {_HOW}"
    )


def refuse_shape(front_end: Known, shape: Sequence[object]) -> None:
    """Raise `UsageError` if a network's input does not take what a front end gives it."""
    sizes = [size if isinstance(size, int) else None for size in shape]
    wanted = front_end.shape
    fits = len(sizes) == len(wanted) + 1
    if fits and any(has is None and size is not None for size, has in zip(sizes[1:], wanted, strict=True)):
        raise UsageError(
            f"Its input, {shape_text(shape)}, takes clips of one length only: export it with a dynamic axis "
            "of time."
        )
    if not fits or any(size not in (None, has) for size, has in zip(sizes[1:], wanted, strict=True)):
        gives = shape_text(["batch", *("time" if size is None else size for size in wanted)])
        raise UsageError(
            f"Its input is {shape_text(shape)}, and {text_of(front_end)!r} gives {gives}. {_HOW}"
        )


def shape_text(shape: Sequence[object]) -> str:
    """A shape for people: ``(batch, time, 80)``."""
    return f"({', '.join('?' if size is None else str(size) for size in shape)})"


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
