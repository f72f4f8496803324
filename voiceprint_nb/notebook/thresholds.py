"""Which score is enough: from a calibration, or as given; and which calibration and cohort fit."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any

import pandas as pd

from voiceprint_nb.analysis.calibration import Calibration, Estimate
from voiceprint_nb.analysis.normalising import Cohort
from voiceprint_nb.analysis.prints import Prints, prints_of
from voiceprint_nb.analysis.trials import Scoring, check_scoring
from voiceprint_nb.errors import UsageError

NO_THRESHOLD = (
    "Which score is enough depends on your recordings: pass calibration=calibrate(out, label=...) of some "
    "that you know, or a threshold= of your own (for the default model, 0.83 against three clips of a person "
    "lets about 1 % of false claims pass on the speech that it was tried on)."
)


def warn(*remarks: str | None) -> None:
    """Tell remarks to whoever called the verb that calls this."""
    for remark in remarks:
        if remark is not None:
            warnings.warn(remark, stacklevel=3)


def checked(threshold: float, cohort: Cohort | None = None) -> float:
    """A threshold as given; raises `UsageError` for one that no score can be."""
    if cohort is None and not -1 <= threshold <= 1:  # nor NaN
        raise UsageError(f"A threshold is a cosine, from -1 to 1, not {threshold}.")
    if not math.isfinite(threshold):
        raise UsageError(f"A threshold is a number, not {threshold}.")
    return float(threshold)


def threshold_for(calibration: Calibration, rate: float) -> tuple[Estimate, str | None]:
    """The threshold for a rate of false claims, or for the lowest that can be told, and what is to be said.

    Raises
    ------
    UsageError
        A rate outside (0, 1).
    """
    if not 0 < rate < 1:
        raise UsageError(f"A rate of false claims lies between 0 and 1, not at {rate}.")
    least = 1 / calibration.n_impostor
    if rate >= least * (1 - 1e-9):
        return calibration.threshold(max(rate, least)), calibration.remark_on(rate)
    return calibration.threshold(least), (
        f"{calibration.n_impostor} false claims cannot tell the threshold for a rate of {rate:.2g}: that for "
        f"{least:.2g} is taken. Calibrate with more speakers."
    )


def remark_on_clips(calibration: Calibration, n_prints: float, whose: str) -> str | None:
    """That one clip a person was calibrated and several are given, or the other way; None if neither.

    Between two numbers above one the threshold hardly moves.
    """
    if (n_prints > 1) == (calibration.enrolled > 1):
        return None
    return (
        f"The calibration is for people of {_clips(calibration.enrolled)}, {whose} of {_clips(n_prints)}: "
        f"pass enrolled={n_prints:.0f} to calibrate()."
    )


def _clips(number: float) -> str:
    return "1 clip" if number == 1 else f"{number:.0f} clips"


def scoring_of(scoring: Scoring | None, calibration: Calibration | None) -> Scoring:
    """How to score; raises `UsageError` if the calibration is for another way."""
    if scoring is not None:
        check_scoring(scoring)
    if calibration is None or calibration.enrolled == 1 or scoring in (None, calibration.scoring):
        return scoring or (calibration.scoring if calibration else "centroid")
    raise UsageError(f"The calibration is for scoring={calibration.scoring!r}: make one for {scoring!r}.")


def cohort_of(
    data: pd.DataFrame | pd.Series | Iterable[Any] | None, model: str, texts: Iterable[str]
) -> Cohort | None:
    """A cohort of voiceprints, equal ones once.

    Parameters
    ----------
    data : DataFrame, Series, iterable of Voiceprint or str, or None
        As `prints_of` takes it; without it there is no cohort.
    model : str
        Fingerprint of the model that made the voiceprints in question.
    texts : iterable of str
        Those.

    Raises
    ------
    UsageError
        Prints of another model, too few, or some of those in question.
    """
    if data is None:
        return None
    found: Prints = prints_of(data)
    if found.model != model:
        raise UsageError("The cohort's voiceprints were made by another model or feature recipe.")
    if n_shared := len(set(found.texts) & set(texts)):
        raise UsageError(
            f"{n_shared} of the cohort's voiceprints are in question here, too: a cohort is of people who "
            "are neither enrolled nor expected."
        )
    first = {text: place for place, text in reversed(list(enumerate(found.texts)))}
    return Cohort(found.embeddings[sorted(first.values())])


def refuse_other_scores(calibration: Calibration | None, cohort: Cohort | None) -> None:
    """Raise `UsageError` if the calibration's scores were not normalised by this cohort, or by one."""
    if calibration is None:
        return
    here = None if cohort is None else cohort.normalisation
    if calibration.normalisation == here:
        return
    if calibration.normalisation is None:
        raise UsageError(
            "The calibration is for cosines: pass the cohort= to calibrate(), too, or to neither."
        )
    if here is None:
        raise UsageError("The calibration is for scores normalised by a cohort: pass the same as cohort=.")
    raise UsageError("The calibration was made with another cohort: pass the one that calibrate() was given.")
