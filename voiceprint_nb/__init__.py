"""Voiceprints for every row of a pandas DataFrame of audio.

Examples
--------
>>> import voiceprint_nb as vp
>>> out = vp.check(["no-such-file.wav"], progress=False)
>>> out.vp_status.tolist()
['invalid']
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from voiceprint_nb.notebook import accessor as _accessor  # noqa: F401 - registers df.voiceprint

if TYPE_CHECKING:
    from voiceprint_nb.analysis.calibration import Calibration
    from voiceprint_nb.analysis.library import Library
    from voiceprint_nb.client.receiver import Receiver
    from voiceprint_nb.engine.fbank import FilterBanks
    from voiceprint_nb.engine.front_ends import Waveform
    from voiceprint_nb.engine.model import Model
    from voiceprint_nb.errors import RowError, ServiceError, UsageError, VoiceprintError
    from voiceprint_nb.notebook import plots
    from voiceprint_nb.notebook.comparing import calibrate, cluster, compare
    from voiceprint_nb.notebook.doctor import doctor
    from voiceprint_nb.notebook.finding import find_audio
    from voiceprint_nb.notebook.identifying import Verification, match, verify
    from voiceprint_nb.notebook.nesting import enable_nesting
    from voiceprint_nb.notebook.partitions import check_partition, match_partition, voiceprint_partition
    from voiceprint_nb.notebook.picker import Picker
    from voiceprint_nb.notebook.planning import Plan, plan
    from voiceprint_nb.notebook.report import report
    from voiceprint_nb.notebook.runs import Run
    from voiceprint_nb.notebook.tables import show
    from voiceprint_nb.notebook.verbs import (
        check,
        forget,
        resume,
        runs,
        submit,
        voiceprint,
        voiceprints,
    )
    from voiceprint_nb.notebook.voiceprint import Voiceprint

__version__ = "0.1.0"

_HOMES = {
    "Calibration": "analysis.calibration",
    "FilterBanks": "engine.fbank",
    "Library": "analysis.library",
    "Model": "engine.model",
    "Picker": "notebook.picker",
    "Plan": "notebook.planning",
    "Receiver": "client.receiver",
    "RowError": "errors",
    "Run": "notebook.runs",
    "ServiceError": "errors",
    "UsageError": "errors",
    "Verification": "notebook.identifying",
    "Voiceprint": "notebook.voiceprint",
    "VoiceprintError": "errors",
    "Waveform": "engine.front_ends",
    "check": "notebook.verbs",
    "check_partition": "notebook.partitions",
    "calibrate": "notebook.comparing",
    "cluster": "notebook.comparing",
    "compare": "notebook.comparing",
    "doctor": "notebook.doctor",
    "enable_nesting": "notebook.nesting",
    "find_audio": "notebook.finding",
    "forget": "notebook.verbs",
    "match": "notebook.identifying",
    "match_partition": "notebook.partitions",
    "plan": "notebook.planning",
    "report": "notebook.report",
    "resume": "notebook.verbs",
    "runs": "notebook.verbs",
    "show": "notebook.tables",
    "submit": "notebook.verbs",
    "verify": "notebook.identifying",
    "voiceprint": "notebook.verbs",
    "voiceprint_partition": "notebook.partitions",
    "voiceprints": "notebook.verbs",
}

__all__ = [
    "Calibration",
    "FilterBanks",
    "Library",
    "Model",
    "Picker",
    "Plan",
    "Receiver",
    "RowError",
    "Run",
    "ServiceError",
    "UsageError",
    "Verification",
    "Voiceprint",
    "VoiceprintError",
    "Waveform",
    "calibrate",
    "check",
    "check_partition",
    "cluster",
    "compare",
    "doctor",
    "enable_nesting",
    "find_audio",
    "forget",
    "match",
    "match_partition",
    "plan",
    "plots",
    "report",
    "resume",
    "runs",
    "show",
    "submit",
    "verify",
    "voiceprint",
    "voiceprint_partition",
    "voiceprints",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use: importing the package stays as cheap as importing pandas."""
    if name == "plots":
        return importlib.import_module(f"{__name__}.notebook.plots")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, "plots"])
