"""Which score is enough: from a calibration, or as given; and which calibration and cohort fit."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Iterable
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from voiceprint_nb.analysis.bootstrap import Estimate
from voiceprint_nb.analysis.calibration import Calibration
from voiceprint_nb.analysis.names import quoted
from voiceprint_nb.analysis.normalising import Cohort
from voiceprint_nb.analysis.prints import Prints, labels_of, prints_of
from voiceprint_nb.analysis.trials import Scoring, check_scoring
from voiceprint_nb.errors import UsageError

_CALIBRATE = (
    "Which score is enough depends on your recordings: pass calibration=calibrate(out, label=...) of some "
    "whose speaker you know, or a threshold= of your own"
)
NO_THRESHOLD_TO_NAME = (
    f"{_CALIBRATE}. A share of false claims is not that of strangers who get a name: each enrolled person is "
    "one more claim, so a score that one in a hundred passes names up to every fifth stranger among 20."
)
NO_THRESHOLD_TO_VERIFY = (
    f"{_CALIBRATE} (on the speech that the default model was tried on, recorded alike, 1 % of false claims "
    "reach 0.80 against one clip of a person, and 0.83 against three)."
)
NO_THRESHOLD_TO_GROUP = (
    f"{_CALIBRATE} (on the speech that the default model was tried on, recorded alike, 1 % of the pairs of "
    "clips of two speakers reach 0.80)."
)
_ALIKE = 6  # claims of one speaker against one person: with more counted, strangers were named too often


def warn(*remarks: str | None) -> None:
    """Tell remarks to whoever called the verb that calls this."""
    for remark in remarks:
        if remark is not None:
            warnings.warn(remark, stacklevel=3)


def checked(threshold: float, cohort: Cohort | None = None) -> float:
    """A threshold as given; raises `UsageError` for one that no score can be."""
    if not isinstance(threshold, Real):
        raise UsageError(f"A threshold is a number, not a {type(threshold).__name__}.")
    if cohort is None and not -1 <= threshold <= 1:  # nor NaN
        raise UsageError(f"A threshold is a cosine, from -1 to 1, not {threshold}.")
    if not math.isfinite(threshold):
        raise UsageError(f"A threshold is a number, not {threshold}.")
    return float(threshold)


def check_share(name: str, share: float) -> None:
    """Raise `UsageError` for what is no number in (0, 1)."""
    if not isinstance(share, Real):
        raise UsageError(f"{name} is a number between 0 and 1, not a {type(share).__name__}.")
    if not 0 < share < 1:
        raise UsageError(f"{name} lies between 0 and 1, not at {share}.")


def supported_rate(calibration: Calibration, confidence: float) -> float:
    """The lowest rate of false claims for which a calibration can give a threshold, with this confidence.

    With n false claims seen, a score above all of them is passed by more than this share of others with
    probability ``1 - confidence``: ``(1 - share) ** n``. For 0.9 that is about 2.3 / n. Claims of one speaker
    against one person are alike, so no more than six of each are counted (`benchmarks.identification`).
    """
    trials = calibration.trials.where(~calibration.trials.is_genuine)
    n_speakers = int(max(trials.speaker.max(), trials.person.max())) + 1
    alike = np.bincount(trials.speaker * n_speakers + trials.person)
    return float(1 - (1 - confidence) ** (1 / np.minimum(alike, _ALIKE).sum()))


def threshold_for(calibration: Calibration, rate: float) -> tuple[Estimate, str | None]:
    """The threshold for a rate of false claims, or for the lowest that can be told, and what is to be said.

    Raises
    ------
    UsageError
        A rate outside (0, 1).
    """
    check_share("A rate of false claims", rate)
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
    data: pd.DataFrame | pd.Series | Iterable[Any] | None,
    model: str,
    texts: Iterable[str],
    *,
    label: Hashable | None = None,
    names: Iterable[str] = (),
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
    label : hashable, optional
        Column that says who speaks, of a frame that has it.
    names : iterable of str
        The people in question.

    Raises
    ------
    UsageError
        Prints of another model, too few, some of those in question, or people in question.
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
    if isinstance(data, pd.DataFrame) and label is not None and label in data.columns:
        shared = sorted(set(labels_of(data, label, found)) & set(names))
        if shared:
            raise UsageError(
                f"{len(shared)} of the cohort's people have names of people in question "
                f"({quoted(shared[0])}): leave them out, or drop the cohort's column {quoted(label)} if they "
                "are others."
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
