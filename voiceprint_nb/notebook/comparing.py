"""What to do with voiceprints: compare, calibrate, match, verify, cluster."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from voiceprint_nb.analysis import calibration as calibrating
from voiceprint_nb.analysis import clustering
from voiceprint_nb.analysis.calibration import Calibration, Estimate
from voiceprint_nb.analysis.library import Library
from voiceprint_nb.analysis.matching import nearest_people
from voiceprint_nb.analysis.prints import Prints, labels_of, prints_of, voiceprint_column
from voiceprint_nb.analysis.similarity import cosine_matrix
from voiceprint_nb.analysis.trials import Scoring, check_scoring, make_trials, person_scores
from voiceprint_nb.display import Facts
from voiceprint_nb.errors import UsageError
from voiceprint_nb.notebook.frames import DEFAULT_PREFIX, without_taken
from voiceprint_nb.notebook.voiceprint import Voiceprint

_MATCH_FIELDS = ("label", "nearest", "score", "margin", "decision", "probability")
_FALSE_REJECTS = 0.01  # of true claims that may be called unknown
_CONFIDENCE = 0.9  # that other speakers than the calibration's keep the rate as well


def compare(
    data: pd.DataFrame | pd.Series | Iterable[Voiceprint | str], label: Hashable | None = None
) -> pd.DataFrame:
    """Cosine similarity of every voiceprint with every other.

    Parameters
    ----------
    data : DataFrame, Series or sequence
        A result of `voiceprints` or its voiceprint column (rows without a print are left out), or voiceprints
        themselves.
    label : hashable, optional
        Column that names rows and columns of the matrix; by default the frame's index.

    Returns
    -------
    DataFrame of shape (prints, prints), float32
        Cosines in [-1, 1]; 1 on the diagonal. For the default model, clips of one speaker mostly lie above
        0.75, and 0.755 is where both kinds of error are equally frequent.

    Raises
    ------
    UsageError
        No voiceprint column, hosted (opaque) prints, or prints of different models.
    """
    if isinstance(data, (str, Voiceprint)):
        raise UsageError(
            "One voiceprint alone compares with nothing: pass a frame, or two or more in a list."
        )
    if isinstance(data, pd.DataFrame) and label is not None and label not in data.columns:
        raise UsageError(f"The frame has no column {label!r} to name the rows with.")
    prints = prints_of(data)
    names: pd.Index
    if isinstance(data, pd.DataFrame) and label is not None:
        names = pd.Index(data[label].iloc[prints.positions])
    elif isinstance(data, (pd.DataFrame, pd.Series)):
        names = data.index[prints.positions]
    else:
        names = pd.RangeIndex(len(prints.texts))
    return pd.DataFrame(cosine_matrix(prints.embeddings), index=names, columns=names)


def calibrate(
    data: pd.DataFrame,
    label: Hashable = "speaker",
    *,
    enrolled: int = 1,
    scoring: Scoring = "centroid",
    within: Hashable | None = None,
) -> Calibration:
    """What scores mean for voices like yours: thresholds, error rates and probabilities, with intervals.

    Parameters
    ----------
    data : DataFrame
        A result of `voiceprints` with a column that says who speaks; rows without a print or a name are left
        out, and so are equal clips of a speaker but for the first.
    label : hashable
        That column.
    enrolled : int
        Clips that make a person, as in the library that you will match with: scores against several clips
        are higher than against one.
    scoring : {"centroid", "best"}
        How a clip is scored against several: by their mean direction, or by the nearest of them.
    within : hashable, optional
        Column of rooms, devices or corpora: only clips of the same meet. Where these differ between speakers,
        telling them apart is easy for the wrong reason. Rows without one are left out.

    Returns
    -------
    Calibration
        For `match` and `verify`.

    Raises
    ------
    UsageError
        No such column, prints that cannot be compared, or no two speakers with enough clips.
    MissingExtra
        scikit-learn is not installed.

    Warns
    -----
    UserWarning
        There are too few speakers to say much, or labels that contradict the voices.
    """
    prints = prints_of(data)
    labels = labels_of(data, label, prints)
    is_again = pd.DataFrame({"text": prints.texts, "label": labels}).duplicated().to_numpy()
    rooms = labels if within is None else labels_of(data, within, prints)
    used = ~(pd.isna(labels) | pd.isna(rooms) | is_again)
    if not used.any():
        raise UsageError(f"No row with a voiceprint has a name in {label!r}.")
    groups = None if within is None else _numbers(rooms[used])
    trials = make_trials(
        prints.embeddings[used], _numbers(labels[used]), groups=groups, enrolled=enrolled, scoring=scoring
    )
    made = calibrating.calibrate(
        trials, model=prints.model, n_clips=int(used.sum()), enrolled=enrolled, scoring=scoring
    )
    for remark in made.remarks:
        warnings.warn(remark, stacklevel=2)
    return made


def match(
    data: pd.DataFrame | pd.Series,
    library: Library,
    *,
    calibration: Calibration | None = None,
    false_name_rate: float = 0.01,
    threshold: float | None = None,
    unknown_below: float | None = None,
    scoring: Scoring | None = None,
    unknown_prior: float = 0.5,
    prefix: str = DEFAULT_PREFIX,
    overwrite: bool = False,
) -> pd.DataFrame:
    """Who speaks in each row: one of the enrolled people, perhaps one, or none of them.

    A clip of somebody who is not enrolled is most like somebody, too. So a name is only given at a score
    that such clips reach in at most ``false_name_rate`` of cases: the calibration's threshold for that rate
    divided by the number of people, as each of them is a chance to be wrong (Bonferroni), so high that nine
    in ten draws of other speakers keep the rate. Below a score that true claims reach in 99 % of cases, the
    answer is ``unknown``; between the two, ``unsure``.

    Parameters
    ----------
    data : DataFrame or Series
        A result of `voiceprints`, or its column.
    library : Library
        Who is enrolled.
    calibration : Calibration, optional
        Made by `calibrate`, of clips like these, with as many clips a person as the library has.
    false_name_rate : float
        Share of clips of unknown people that may get a name, in (0, 1).
    threshold, unknown_below : float, optional
        Scores of your own instead: a name from the first on, ``unknown`` below the second (by default the
        first: nothing is unsure).
    scoring : {"centroid", "best"}, optional
        By default that of the calibration, else the mean direction of a person's prints.
    unknown_prior : float
        How likely it is, before listening, that a clip is of nobody enrolled, in (0, 1); for probabilities.
    prefix : str
        Of the new columns.
    overwrite : bool
        Whether columns of these names may be replaced.

    Returns
    -------
    DataFrame
        The rows with ``vp_label`` (the name, of matches only), ``vp_nearest`` (whoever is most alike),
        ``vp_score`` (the cosine), ``vp_margin`` (to the next person; missing with one person),
        ``vp_decision`` (``match``, ``unsure``, ``unknown``; missing without a print) and ``vp_probability``
        (of being the nearest person; missing without a calibration). What was decided by is in
        ``attrs["voiceprint_nb_match"]``.

    Raises
    ------
    UsageError
        Neither calibration nor threshold, prints that cannot be compared with the library's, a calibration
        for another model or scoring, or columns that are taken.

    Warns
    -----
    UserWarning
        The calibration has too few false claims for this rate and so many people, or other numbers of clips.
    """
    frame = data.to_frame("voiceprint") if isinstance(data, pd.Series) else data
    names = match_names(prefix)
    frame = without_taken(frame, voiceprint_column(frame), names, overwrite=overwrite)
    prints, people = prints_of(frame), library.arrays()
    _refuse_other_models(prints, library, calibration)
    scoring = _scoring(scoring, calibration)
    accept, reject, told = _thresholds(library, calibration, false_name_rate, threshold, unknown_below)
    line = (calibration.slope, calibration.intercept) if calibration else None
    found = nearest_people(prints.embeddings, people, scoring=scoring, line=line)
    score = found.score[:, 0].astype(np.float64)
    decision = np.where(score >= accept, "match", np.where(score < reject, "unknown", "unsure"))
    nearest = np.array(people.names, object)[found.person[:, 0]]
    columns: dict[str, Any] = {
        "label": np.where(decision == "match", nearest, np.array(None, object)),
        "nearest": nearest,
        "score": score,
        "margin": score - found.score[:, 1] if len(people.names) > 1 else np.full(len(score), np.nan),
        "decision": decision,
        "probability": _probability(calibration, score, found.evidence, len(people.names), unknown_prior),
    }
    out = frame.assign(
        **{names[name]: _spread(values, prints, len(frame)) for name, values in columns.items()}
    )
    out.attrs = {
        **frame.attrs,
        "voiceprint_nb_match": told | {"scoring": scoring, "people": len(people.names)},
    }
    return out


def match_names(prefix: str) -> dict[str, str]:
    """Names of the columns that `match` adds, by what they hold."""
    return {name: f"{prefix}{name}" for name in _MATCH_FIELDS}


@dataclass(frozen=True, repr=False)
class Verification(Facts):
    """Whether two voices are one.

    Attributes
    ----------
    score : float
        Cosine of the voiceprint to the person's.
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
) -> Verification:
    """Whether a voiceprint is of the person whom others are of: one claim against one person.

    Parameters
    ----------
    claim : Voiceprint or str
        The one in question.
    person : Voiceprint, str or several
        Of the person.
    calibration : Calibration, optional
        Gives the threshold for ``false_accept_rate``, and the probability.
    false_accept_rate : float
        Share of false claims that may be accepted, in (0, 1).
    threshold : float, optional
        A score of your own instead.
    scoring : {"centroid", "best"}, optional
        As in `match`.

    Raises
    ------
    UsageError
        Neither calibration nor threshold, or prints that cannot be compared.
    """
    one = prints_of([claim])
    others = prints_of([person] if isinstance(person, (str, Voiceprint)) else person)
    if one.model != others.model or (calibration and calibration.model != one.model):
        raise UsageError("The voiceprints or the calibration are of different models: make all with one.")
    if threshold is not None:
        threshold = _checked(threshold)
    else:
        if calibration is None:
            raise UsageError(_NO_THRESHOLD)
        threshold = _threshold_for(calibration, false_accept_rate).value
    score = float(person_scores(one.embeddings, others.embeddings, scoring=_scoring(scoring, calibration))[0])
    return Verification(
        score,
        "match" if score >= threshold else "no match",
        threshold,
        None if calibration is None else float(calibration.probability([score])[0]),
    )


def cluster(
    data: pd.DataFrame | pd.Series,
    *,
    calibration: Calibration | None = None,
    false_accept_rate: float = 0.01,
    threshold: float | None = None,
    prefix: str = DEFAULT_PREFIX,
    overwrite: bool = False,
) -> pd.DataFrame:
    """How many voices there are, and which row is of which, without labels.

    Agglomerative clustering with average linkage: the two groups whose clips are most alike on average become
    one, until no two are as alike as the threshold.

    Parameters
    ----------
    data : DataFrame or Series
        A result of `voiceprints`, or its column; at most 20,000 prints, as each meets each other.
    calibration : Calibration, optional
        Of clip against clip (``enrolled=1``): gives the threshold for ``false_accept_rate``.
    false_accept_rate : float
        Share of pairs of different speakers that are as alike, in (0, 1).
    threshold : float, optional
        A cosine of your own instead.
    prefix : str
        Of the new columns.
    overwrite : bool
        Whether columns of these names may be replaced.

    Returns
    -------
    DataFrame
        The rows with ``vp_cluster`` (a number from 1, the largest group first; missing without a print),
        ``vp_silhouette`` (in [-1, 1]: how much nearer the row is to its own group than to the next; 0 for a
        group of one; Rousseeuw, Journal of Computational and Applied Mathematics 20, 1987) and
        ``vp_representative`` (true for the row of each group that is most like the others of it).

    Raises
    ------
    UsageError
        Neither calibration nor threshold, prints that cannot be compared, a calibration for something else,
        or columns that are taken.
    MissingExtra
        scikit-learn is not installed.
    """
    frame = data.to_frame("voiceprint") if isinstance(data, pd.Series) else data
    names = {name: f"{prefix}{name}" for name in ("cluster", "silhouette", "representative")}
    frame = without_taken(frame, voiceprint_column(frame), names, overwrite=overwrite)
    prints = prints_of(frame)
    if threshold is not None:
        threshold = _checked(threshold)
    else:
        if calibration is None:
            raise UsageError(_NO_THRESHOLD)
        if calibration.model != prints.model or calibration.enrolled != 1:
            raise UsageError(
                "Clusters need a calibration of clip against clip (enrolled=1), of the same model."
            )
        threshold = _threshold_for(calibration, false_accept_rate).value
    found = clustering.clusters(prints.embeddings, threshold=threshold)
    columns = {
        "cluster": _spread(found.number, prints, len(frame)),
        "silhouette": _spread(found.silhouette, prints, len(frame)),
        "representative": _spread(found.is_representative, prints, len(frame)),
    }
    out = frame.assign(**{names[name]: column for name, column in columns.items()})
    told = {"threshold": threshold, "clusters": int(found.number.max()), "silhouette": found.mean_silhouette}
    out.attrs = {**frame.attrs, "voiceprint_nb_cluster": told}
    return out


_NO_THRESHOLD = (
    "Which score is enough depends on your recordings: pass calibration=calibrate(out, label=...) of some "
    "that you know, or a threshold= of your own (for the default model, 0.83 against three clips of a person "
    "lets about 1 % of false claims pass on the speech that it was tried on)."
)


def _checked(threshold: float) -> float:
    if not -1 <= threshold <= 1:  # nor NaN
        raise UsageError(f"A threshold is a cosine, from -1 to 1, not {threshold}.")
    return float(threshold)


def _threshold_for(calibration: Calibration, rate: float) -> Estimate:
    """The threshold for a rate of false claims, or that of the lowest rate that can be told."""
    if not 0 < rate < 1:
        raise UsageError(f"A rate of false claims lies between 0 and 1, not at {rate}.")
    least = 1 / calibration.n_impostor
    if rate < least * (1 - 1e-9):
        warnings.warn(
            f"{calibration.n_impostor} false claims cannot tell the threshold for a rate of {rate:.2g}: that "
            f"for {least:.2g} is taken. Calibrate with more speakers.",
            stacklevel=3,
        )
    return calibration.threshold(max(rate, least))


def _thresholds(
    library: Library,
    calibration: Calibration | None,
    false_name_rate: float,
    threshold: float | None,
    unknown_below: float | None,
) -> tuple[float, float, dict[str, Any]]:
    """From which score a name is given, below which nobody is meant, and what to say of both."""
    if threshold is not None:
        threshold = _checked(threshold)
        reject = threshold if unknown_below is None else min(_checked(unknown_below), threshold)
        return threshold, reject, {"threshold": threshold, "unknown_below": reject, "by": "given"}
    if calibration is None:
        raise UsageError(_NO_THRESHOLD)
    n_people = len(library)
    if not 0 < false_name_rate < 1:
        raise UsageError(f"false_name_rate lies between 0 and 1, not at {false_name_rate}.")
    n_prints = library.people["n_prints"].median()
    if (n_prints > 1) != (calibration.enrolled > 1):
        warnings.warn(
            f"The calibration is for people of {calibration.enrolled} clips, the library's have "
            f"{n_prints:.0f} in the middle: pass enrolled={n_prints:.0f} to calibrate().",
            stacklevel=3,
        )
    estimate = _threshold_for(calibration, false_name_rate / n_people)
    accept = estimate.with_confidence(_CONFIDENCE)
    reject = calibration.lowest_genuine(_FALSE_REJECTS) if unknown_below is None else unknown_below
    told = {
        "threshold": accept,
        "threshold_interval": (estimate.low, estimate.high),
        "unknown_below": min(reject, accept),
        "false_name_rate": false_name_rate,
        "by": "calibration",
    }
    return accept, min(reject, accept), told


def _refuse_other_models(prints: Prints, library: Library, calibration: Calibration | None) -> None:
    if prints.model != library.model:
        raise UsageError(
            "The library's voiceprints were made by another model or feature recipe: their similarity means "
            "nothing. Make all prints with the same settings."
        )
    if calibration is not None and calibration.model != prints.model:
        raise UsageError("The calibration was made with another model: thresholds do not carry over.")


def _scoring(scoring: Scoring | None, calibration: Calibration | None) -> Scoring:
    if scoring is not None:
        check_scoring(scoring)
    if calibration is None or calibration.enrolled == 1 or scoring in (None, calibration.scoring):
        return scoring or (calibration.scoring if calibration else "centroid")
    raise UsageError(f"The calibration is for scoring={calibration.scoring!r}: make one for {scoring!r}.")


def _probability(
    calibration: Calibration | None,
    score: np.ndarray,
    evidence: np.ndarray,
    n_people: int,
    unknown_prior: float,
) -> np.ndarray:
    """Of the nearest person, by Bayes' rule over all people and nobody, each person being equally likely."""
    if not 0 < unknown_prior < 1:
        raise UsageError(f"unknown_prior lies between 0 and 1, not at {unknown_prior}.")
    if calibration is None:
        return np.full(len(score), np.nan)
    known = np.log(1 - unknown_prior)
    all_cases = np.logaddexp(np.log(unknown_prior), known + evidence)
    log_probability = known - np.log(n_people) + calibration.log_likelihood_ratio(score) - all_cases
    return np.asarray(np.exp(log_probability))


def _numbers(labels: np.ndarray) -> np.ndarray:
    return np.asarray(pd.factorize(pd.Series(labels, dtype=object), use_na_sentinel=False)[0], np.intp)


def _spread(values: np.ndarray, prints: Prints, n_rows: int) -> Any:
    """Values of rows with a print, as a column of all rows; missing in the others."""
    dtype: Any = {"O": "string", "U": "string", "i": "Int64", "b": "boolean", "f": "float64"}[
        values.dtype.kind
    ]
    column = pd.Series([None] * n_rows, dtype="object" if dtype == "string" else dtype)
    column.iloc[prints.positions] = values
    return column.astype(dtype).array
