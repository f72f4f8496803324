"""Who speaks: one of the enrolled people, perhaps one, or none; one person, or not."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from voiceprint_nb.analysis.calibration import Calibration
from voiceprint_nb.analysis.library import Library
from voiceprint_nb.analysis.matching import nearest_people
from voiceprint_nb.analysis.normalising import Cohort
from voiceprint_nb.analysis.prints import Prints, prints_of
from voiceprint_nb.analysis.trials import Scoring, person_scores
from voiceprint_nb.display import Facts
from voiceprint_nb.errors import UsageError
from voiceprint_nb.notebook import dask_frames
from voiceprint_nb.notebook.answers import answered, asked
from voiceprint_nb.notebook.frames import DEFAULT_PREFIX, is_dask
from voiceprint_nb.notebook.thresholds import (
    NO_THRESHOLD_TO_NAME,
    NO_THRESHOLD_TO_VERIFY,
    check_share,
    checked,
    cohort_of,
    refuse_other_scores,
    remark_on_clips,
    scoring_of,
    supported_rate,
    threshold_for,
    warn,
)
from voiceprint_nb.notebook.voiceprint import Voiceprint

_FIELDS = ("label", "nearest", "score", "margin", "decision", "probability")
_FALSE_REJECTS = 0.01  # of true claims that may be called unknown
_CONFIDENCE = 0.9  # that other speakers than the calibration's keep the rate as well


def match(
    data: pd.DataFrame | pd.Series | Iterable[Voiceprint | str],
    library: Library,
    *,
    calibration: Calibration | None = None,
    false_name_rate: float = 0.01,
    threshold: float | None = None,
    unknown_below: float | None = None,
    scoring: Scoring | None = None,
    unknown_prior: float = 0.5,
    cohort: pd.DataFrame | pd.Series | Iterable[Voiceprint | str] | None = None,
    prefix: str = DEFAULT_PREFIX,
    overwrite: bool = False,
) -> pd.DataFrame:
    """Who speaks in each row: one of the enrolled people, perhaps one, or none of them.

    A clip of somebody who is not enrolled is most like somebody, too. So a name is only given at a score
    that such clips reach in at most ``false_name_rate`` of cases: the calibration's threshold for that rate
    divided by the number of people, as each of them is a chance to be wrong (Bonferroni), at the upper end
    of an interval that is to hold for nine in ten draws of speakers like the calibration's. Below a score
    that true claims reach in 99 % of cases, the answer is ``unknown``; between the two, ``unsure``.

    A small calibration cannot tell that score. The lowest rate that it supports is about 2.3 times the number
    of people, divided by its number of false claims (no more than six of one speaker against one person are
    counted): were that many strangers named, nine in ten calibrations would have seen a score so high. Asked
    for less, no row gets a name, and a warning says which rate is supported: calibrate with more speakers,
    ask for that rate, or give a threshold.

    Parameters
    ----------
    data : DataFrame, Series or sequence
        A result of `voiceprints`, its column, or voiceprints themselves. A Dask DataFrame gives a lazy one.
    library : Library
        Who is enrolled.
    calibration : Calibration, optional
        Made by `calibrate`, of clips like these, with as many clips a person as the library has.
    false_name_rate : float
        Share of clips of unknown people that may get a name, in (0, 1).
    threshold, unknown_below : float, optional
        Scores of your own instead: a name from the first on, ``unknown`` below the second (by default the
        first: nothing is unsure). A calibration beside it gives probabilities, and a warning if strangers
        would be named more often than ``false_name_rate``.
    scoring : {"centroid", "best"}, optional
        By default that of the calibration, else the mean direction of a person's prints.
    unknown_prior : float
        How likely it is, before listening, that a clip is of nobody enrolled, in (0, 1); for probabilities.
    cohort : DataFrame, Series or iterable of Voiceprint or str, optional
        Prints of others, neither enrolled nor expected, recorded like these clips: scores are normalised by
        them, and comparable between recordings of different quality. The same that `calibrate` was given.
    prefix : str
        Of the new columns.
    overwrite : bool
        Whether columns of these names may be replaced.

    Returns
    -------
    DataFrame
        The rows with ``vp_label`` (the name, of matches only), ``vp_nearest`` (whoever is most alike),
        ``vp_score`` (the cosine; with a cohort no cosine, but standard deviations above it), ``vp_margin``
        (to the next person; missing with one person), ``vp_decision`` (``match``, ``unsure``, ``unknown``;
        missing without a print) and ``vp_probability`` (of being the nearest person; missing without a
        calibration). ``attrs["voiceprint_nb_match"][prefix]`` has what was decided ``by`` (``calibration`` or
        ``given``): ``threshold`` (None where no name is given), ``unknown_below``, ``scoring``, ``people``;
        of a calibration also ``threshold_interval``, ``false_name_rate`` (as asked),
        ``supported_false_name_rate``, ``gives_names`` and ``remark``.

    Raises
    ------
    UsageError
        Neither calibration nor threshold, no library, prints that cannot be compared with its, a calibration
        for another model, scoring or cohort, a cohort that is too small or has prints of the clips or the
        library, or columns that are taken.

    Warns
    -----
    UserWarning
        The calibration has too few false claims for this rate and so many people, a given threshold lets more
        strangers pass, or the calibration is for one clip a person where there are several, or the other way.
    """
    _refuse_no_library(library)
    if is_dask(data):
        return dask_frames.match(
            data,
            library,
            calibration=calibration,
            false_name_rate=false_name_rate,
            threshold=threshold,
            unknown_below=unknown_below,
            scoring=scoring,
            unknown_prior=unknown_prior,
            cohort=cohort,
            prefix=prefix,
            overwrite=overwrite,
        )
    names = {field: f"{prefix}{field}" for field in _FIELDS}
    frame, prints = asked(data, names, overwrite=overwrite)
    people = library.arrays()
    _refuse_other_models(prints, library, calibration)
    others = cohort_of(cohort, prints.model, [*prints.texts, *library.voiceprints])
    refuse_other_scores(calibration, others)
    scoring = scoring_of(scoring, calibration)
    check_share("false_name_rate", false_name_rate)
    check_share("unknown_prior", unknown_prior)
    if threshold is not None:
        accept, reject, told = _given(threshold, unknown_below, others)
        told["remark"] = _remark_on_given(accept, calibration, false_name_rate, len(library))
        warn(None if others is None else others.remark)
    elif calibration is None:
        raise UsageError(NO_THRESHOLD_TO_NAME)
    else:
        accept, reject, told = _calibrated(calibration, false_name_rate, len(library), unknown_below, others)
    warn(told["remark"])
    if calibration is not None:
        n_prints = library.people["n_prints"].median()
        warn(remark_on_clips(calibration, n_prints, "most of the library's people are"))
    line = (calibration.slope, calibration.intercept) if calibration else None
    found = nearest_people(prints.embeddings, people, scoring=scoring, line=line, cohort=others)
    score = found.score[:, 0].astype(np.float64)
    decision = np.where(score >= accept, "match", np.where(score < reject, "unknown", "unsure"))
    nearest = np.array(people.names, object)[found.person[:, 0]]
    answers = {
        "label": np.where(decision == "match", nearest, np.array(None, object)),
        "nearest": nearest,
        "score": score,
        "margin": score - found.score[:, 1] if len(people.names) > 1 else np.full(len(score), np.nan),
        "decision": decision,
        "probability": _probability(calibration, score, found.evidence, len(people.names), unknown_prior),
    }
    told |= {"scoring": scoring, "people": len(people.names)}
    if others is not None:
        told |= {"normalisation": str(others.normalisation)}
    return answered(frame, prints, answers, prefix=prefix, verb="match", told=told)


@dataclass(frozen=True, repr=False)
class Verification(Facts):
    """Whether two voices are one.

    Attributes
    ----------
    score : float
        Cosine of the voiceprint to the person's; with a cohort, standard deviations above it.
    decision : {"match", "no match"}
        Whether the score reaches the threshold.
    threshold : float
        From the calibration, or the one that was given.
    probability : float or None
        That it is one speaker, if that is as likely as not beforehand; None without a calibration.
    """

    score: float
    decision: str
    threshold: float
    probability: float | None

    def _lines(self) -> list[tuple[str, str]]:
        lines = [
            ("Verification", self.decision),
            ("Score", f"{self.score:.3f} (threshold {self.threshold:.3f})"),
        ]
        if self.probability is not None:
            lines.append(("Probability", f"{self.probability:.3f}"))
        return lines


def verify(
    claim: Voiceprint | str,
    person: Voiceprint | str | Iterable[Voiceprint | str],
    *,
    calibration: Calibration | None = None,
    false_accept_rate: float = 0.01,
    threshold: float | None = None,
    scoring: Scoring | None = None,
    cohort: pd.DataFrame | pd.Series | Iterable[Voiceprint | str] | None = None,
) -> Verification:
    """Whether a voiceprint is of the person whom others are of: one claim against one person.

    Parameters
    ----------
    claim : Voiceprint or str
        The one in question.
    person : Voiceprint, str or several
        Of the person.
    calibration : Calibration, optional
        Gives the threshold for ``false_accept_rate``, and the probability; made of people of as many clips.
    false_accept_rate : float
        Share of false claims that may be accepted, in (0, 1).
    threshold : float, optional
        A score of your own instead.
    scoring : {"centroid", "best"}, optional
        As in `match`.
    cohort : DataFrame, Series or iterable of Voiceprint or str, optional
        As in `match`.

    Raises
    ------
    UsageError
        Neither calibration nor threshold, prints that cannot be compared, or another cohort than the
        calibration's.

    Warns
    -----
    UserWarning
        The calibration has too few false claims for this rate, or is for one clip a person where there are
        several, or the other way; or a small cohort without a calibration, which would have told.
    """
    one = prints_of([claim])
    others = prints_of([person] if isinstance(person, (str, Voiceprint)) else person)
    if one.model != others.model or (calibration and calibration.model != one.model):
        raise UsageError("The voiceprints or the calibration are of different models: make all with one.")
    nobody = cohort_of(cohort, one.model, [*one.texts, *others.texts])
    refuse_other_scores(calibration, nobody)
    scoring = scoring_of(scoring, calibration)
    if threshold is not None:
        threshold = checked(threshold, nobody)
        warn(None if nobody is None else nobody.remark)
    elif calibration is None:
        raise UsageError(NO_THRESHOLD_TO_VERIFY)
    else:
        estimate, remark = threshold_for(calibration, false_accept_rate)
        threshold = estimate.value
        warn(remark, remark_on_clips(calibration, len(others.texts), "the person's are"))
    score = float(person_scores(one.embeddings, others.embeddings, scoring=scoring, cohort=nobody)[0])
    return Verification(
        score,
        "match" if score >= threshold else "no match",
        threshold,
        None if calibration is None else float(calibration.probability([score])[0]),
    )


def _given(
    threshold: float, unknown_below: float | None, cohort: Cohort | None
) -> tuple[float, float, dict[str, Any]]:
    """From which score a name is given, below which nobody is meant, and what to say of both."""
    accept = checked(threshold, cohort)
    reject = accept if unknown_below is None else min(checked(unknown_below, cohort), accept)
    return accept, reject, {"by": "given", "threshold": accept, "unknown_below": reject}


def _remark_on_given(
    threshold: float, calibration: Calibration | None, false_name_rate: float, n_people: int
) -> str | None:
    """That a threshold lets more strangers pass than were asked for; None if not, or if nobody can tell."""
    if calibration is None:
        return None
    share = float((calibration.trials.impostor >= threshold).mean())
    if share * n_people <= false_name_rate:
        return None
    return (
        f"The given threshold={threshold:.3g} is reached by {share:.2g} of the calibration's false claims: "
        f"with {_people(n_people)} up to {min(1.0, share * n_people):.2g} of strangers' clips get a name, "
        f"false_name_rate={false_name_rate:.2g} or not. Without threshold= the calibration decides."
    )


def _calibrated(
    calibration: Calibration,
    false_name_rate: float,
    n_people: int,
    unknown_below: float | None,
    cohort: Cohort | None,
) -> tuple[float, float, dict[str, Any]]:
    """Likewise, for a rate of strangers that get a name."""
    supported = n_people * supported_rate(calibration, _CONFIDENCE)
    reject = (
        calibration.lowest_genuine(_FALSE_REJECTS)
        if unknown_below is None
        else checked(unknown_below, cohort)
    )
    told: dict[str, Any] = {
        "by": "calibration",
        "false_name_rate": false_name_rate,
        "supported_false_name_rate": min(1.0, supported),
        "gives_names": false_name_rate >= supported,
    }
    if false_name_rate < supported:
        told |= {"threshold": None, "threshold_interval": None, "unknown_below": reject}
        remark = _too_few_claims(calibration, false_name_rate, n_people, supported)
        return math.inf, reject, told | {"remark": remark}
    estimate, rests_on = threshold_for(calibration, false_name_rate / n_people)
    accept = float(estimate.with_confidence(_CONFIDENCE))
    interval = [estimate.low, estimate.high] if math.isfinite(estimate.low) else None
    told |= {"threshold": accept, "threshold_interval": interval, "unknown_below": min(reject, accept)}
    asked = f"{false_name_rate:.2g} false names among {_people(n_people)}"
    return accept, min(reject, accept), told | {"remark": rests_on and f"{asked}: {rests_on}"}


def _too_few_claims(calibration: Calibration, false_name_rate: float, n_people: int, supported: float) -> str:
    rate = math.ceil(supported * 1000) / 1000  # rounded up, so that it can be asked for
    told, ask = "no rate", ""
    if rate < 1:
        told, ask = f"rates from {rate:.3g} on", f"ask for false_name_rate={rate:.3g}, "
    return (
        f"No row gets a name: asked for {false_name_rate:.2g} false names, but with {_people(n_people)} this "
        f"calibration ({calibration.n_speakers} speakers, {calibration.n_impostor} false claims) supports "
        f"{told}. Calibrate with more speakers, {ask}or give a threshold of your own."
    )


def _people(number: int) -> str:
    return "1 person" if number == 1 else f"{number} people"


def _refuse_no_library(library: Library) -> None:
    if isinstance(library, Library):
        return
    way = "Library.load(path)" if isinstance(library, (str, Path)) else "Library.from_frame(out, label)"
    raise UsageError(f"Who is enrolled is told by a Library, not by a {type(library).__name__}: {way}.")


def _refuse_other_models(prints: Prints, library: Library, calibration: Calibration | None) -> None:
    if prints.model != library.model:
        raise UsageError(
            "The library's voiceprints were made by another model or feature recipe: their similarity means "
            "nothing. Make all prints with the same settings."
        )
    if calibration is not None and calibration.model != prints.model:
        raise UsageError("The calibration was made with another model: thresholds do not carry over.")


def _probability(
    calibration: Calibration | None,
    score: np.ndarray,
    evidence: np.ndarray,
    n_people: int,
    unknown_prior: float,
) -> np.ndarray:
    """Of the nearest person, by Bayes' rule over all people and nobody, each person being equally likely."""
    if calibration is None:
        return np.full(len(score), np.nan)
    known = np.log(1 - unknown_prior)
    all_cases = np.logaddexp(np.log(unknown_prior), known + evidence)
    log_probability = known - np.log(n_people) + calibration.log_likelihood_ratio(score) - all_cases
    return np.asarray(np.exp(log_probability))
