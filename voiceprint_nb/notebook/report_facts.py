"""What a result tells of itself: its columns by what they hold, its run, and what its answers rest on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import pandas as pd

from voiceprint_nb.analysis.calibration import Calibration
from voiceprint_nb.analysis.prints import column_of, prints_of, voiceprint_column
from voiceprint_nb.engine.model import Model, Precision
from voiceprint_nb.errors import UsageError
from voiceprint_nb.notebook.frames import DEFAULT_PREFIX
from voiceprint_nb.notebook.shown import shown

Facts = Mapping[str, Any]

OF_MATCH = ("decision", "label", "nearest", "score")
OF_CLUSTER = ("cluster", "silhouette", "representative")


def facts_of(data: pd.DataFrame) -> Facts:
    """What the run said of itself; nothing where the attributes were lost, as in CSV."""
    facts = data.attrs.get("voiceprint_nb")
    return facts if isinstance(facts, Mapping) else {}


def prefix_of(data: pd.DataFrame) -> str:
    """How the names of the run's columns begin.

    Raises
    ------
    UsageError
        There is no column of voiceprints, or none of states.
    """
    begin = str(voiceprint_column(data)).removesuffix("voiceprint")
    found = [prefix for prefix in (begin or DEFAULT_PREFIX, begin) if f"{prefix}status" in data.columns]
    if not found:
        raise UsageError("The frame is no result of voiceprints(): it has no column of states.")
    return found[0]


def prefixes(data: pd.DataFrame, fields: tuple[str, ...]) -> list[str]:
    """How names of columns begin that are there for all these fields: `match` has a prefix of its own."""
    names = {name for name in data.columns if isinstance(name, str)}
    first, *rest = fields
    begins = [name.removesuffix(first) for name in data.columns if name in names and name.endswith(first)]
    return [begin for begin in begins if all(f"{begin}{field}" in names for field in rest)]


def told(data: pd.DataFrame, name: str) -> pd.Series:
    """A column; missing values if the frame has lost it."""
    return column_of(data, name) if name in data.columns else pd.Series(pd.NA, data.index, dtype="object")


def seconds_of(data: pd.DataFrame, prefix: str) -> pd.Series[float]:
    """Seconds of audio of each row; from text, too, as a CSV file has it."""
    return pd.to_numeric(told(data, f"{prefix}duration_s"), errors="coerce").astype("float64")


def decided_by(data: pd.DataFrame, verb: str, prefix: str) -> Facts:
    """What answers of ``match`` or ``cluster`` under a prefix were decided by; nothing if that was lost."""
    kept = data.attrs.get(f"voiceprint_nb_{verb}")
    facts = kept.get(prefix) if isinstance(kept, Mapping) else None
    return facts if isinstance(facts, Mapping) else {}


def where(facts: Facts) -> str:
    """By what, and on whose machine."""
    service = facts.get("service", "a service that the table does not name")
    return "by the local service, on one machine" if service == "local" else f"by {shown(service)}"


def model_of(data: pd.DataFrame, facts: Facts) -> str:
    """The model by name and fingerprint, as far as its run or its voiceprints tell."""
    model = facts.get("model")
    if model is None:
        try:
            model = prints_of(data).model
        except UsageError:  # none, or opaque ones
            return "that its voiceprints name"
    packaged = (
        Model.packaged(name, precision=precision)
        for name in ("robust", "compatible")
        for precision in get_args(Precision)
    )
    for one in packaged:
        if one.fingerprint == model:
            return f"'{one.name}' (GE2E voice encoder, {one.precision}; fingerprint {model})"
    return shown(model)


def error_rate(calibration: Calibration) -> str:
    """The equal error rate in words, with its interval where there is one."""
    eer = calibration.eer
    if not eer.value:
        return f"no error was seen (the equal error rate may be up to {percent(eer.high)})"
    if not eer.has_interval:
        interval = "too few speakers for an interval"
    else:
        ends = f"{percent(eer.low)} to {percent(eer.high)}"
        interval = f"95% interval by a bootstrap over speakers: {ends}"
    return f"the equal error rate was {percent(eer.value)} ({interval})"


def percent(share: float) -> str:
    """A share of 1 as a percentage of two or three digits.

    Examples
    --------
    >>> percent(0.01), percent(0.0526), percent(0.4567)
    ('1%', '5.3%', '45.7%')
    """
    return f"{100 * share:.3g}%" if share >= 0.1 else f"{100 * share:.2g}%"
