"""What voiceprints say of one another: how alike they are, what scores mean, how many voices there are."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from voiceprint_nb.analysis import calibration as calibrating
from voiceprint_nb.analysis import clustering
from voiceprint_nb.analysis.calibration import Calibration
from voiceprint_nb.analysis.matching import nearest_others
from voiceprint_nb.analysis.names import quoted
from voiceprint_nb.analysis.prints import Prints, column_of, labels_of, prints_of
from voiceprint_nb.analysis.similarity import cosine_matrix
from voiceprint_nb.analysis.trials import Scoring, evenly, make_trials
from voiceprint_nb.errors import UsageError
from voiceprint_nb.notebook.answers import answered, asked
from voiceprint_nb.notebook.frames import DEFAULT_PREFIX
from voiceprint_nb.notebook.thresholds import NO_THRESHOLD_TO_GROUP, checked, cohort_of, threshold_for, warn
from voiceprint_nb.notebook.voiceprint import Voiceprint

_MOST_IN_MATRIX = 20_000  # 1.6 GB


def compare(
    data: pd.DataFrame | pd.Series | Iterable[Voiceprint | str],
    label: Hashable | None = None,
    *,
    top: int | None = None,
) -> pd.DataFrame:
    """Cosine similarity of every voiceprint with every other, or with those most like it.

    Parameters
    ----------
    data : DataFrame, Series or sequence
        A result of `voiceprints` or its voiceprint column (rows without a print are left out), or voiceprints
        themselves.
    label : hashable, optional
        Column that names rows and columns of the matrix; by default the frame's index.
    top : int, optional
        For each print so many others, most similar first, instead of the matrix: memory grows with the
        prints, not with their square.

    Returns
    -------
    DataFrame of shape (prints, prints), float32
        Cosines in [-1, 1]; 1 on the diagonal. For the default model, clips of one speaker mostly lie above
        0.75, which is about where both kinds of error are equally frequent. With ``top``, a row for each
        pair: ``row``, ``other`` (names of both) and ``score``.

    Raises
    ------
    UsageError
        No voiceprint column, hosted (opaque) prints, prints of different models, a label that is no column,
        or more than 20,000 prints without ``top``.
    """
    if isinstance(data, (str, Voiceprint)):
        raise UsageError(
            "One voiceprint alone compares with nothing: pass a frame, or two or more in a list."
        )
    if top is not None and (not isinstance(top, (int, np.integer)) or top < 1):
        raise UsageError(f"top={top!r} is no number of others: pass 1 or more.")
    prints = prints_of(data)
    names = _row_names(data, label, prints)
    n = len(names)
    if top is not None:
        others, cosines = nearest_others(prints.embeddings, int(top))
        rows, told = np.repeat(np.arange(n), others.shape[1]), names.to_flat_index()
        return pd.DataFrame({"row": told[rows], "other": told[others.ravel()], "score": cosines.ravel()})
    if n > _MOST_IN_MATRIX:
        raise UsageError(
            f"A matrix of {n:,} voiceprints takes {4e-9 * n**2:.0f} GB: pass top=10 for the ten most like "
            f"each, or at most {_MOST_IN_MATRIX:,}."
        )
    return pd.DataFrame(cosine_matrix(prints.embeddings), index=names, columns=names)


def _row_names(data: object, label: Hashable | None, prints: Prints) -> pd.Index:
    """What the rows of prints are called: as in the column or the index, of whatever type it has."""
    names: pd.Index = pd.RangeIndex(len(prints.texts))
    if label is None and isinstance(data, (pd.DataFrame, pd.Series)):
        names = data.index[prints.positions]
    elif label is not None:
        if not isinstance(data, pd.DataFrame):
            raise UsageError("label= names a column: pass the whole frame.")
        labels_of(data, label, prints)  # refuses voiceprints, and what is no column
        names = pd.Index(column_of(data, label).iloc[prints.positions])
    return names


def calibrate(
    data: pd.DataFrame,
    label: Hashable = "speaker",
    *,
    enrolled: int = 1,
    scoring: Scoring = "centroid",
    within: Hashable | None = None,
    cohort: pd.DataFrame | pd.Series | Iterable[Voiceprint | str] | None = None,
) -> Calibration:
    """What scores mean for voices like yours: thresholds, error rates and probabilities, with intervals.

    Parameters
    ----------
    data : DataFrame
        A result of `voiceprints` with a column that says who speaks; rows without a print or a name are left
        out, and so are equal clips of a speaker but for the first. Of more than 3,000, so many are taken
        evenly from all speakers.
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
    cohort : DataFrame, Series or iterable of Voiceprint or str, optional
        Prints of yet other people, none of whom is heard in ``data`` or will be enrolled, recorded under all
        the conditions that clips will have: a few hundred, of as many people as there are. Scores are
        normalised by them (adaptive s-norm, `analysis.normalising`), so that a threshold holds for clips of
        more noise, too; with a cohort that lacks that noise it holds less well than for cosines, and where
        all clips are alike in quality cosines do as well. Normalised scores are no cosines. Give the same
        cohort to `match` and `verify`.

    Returns
    -------
    Calibration
        For `match` and `verify`.

    Raises
    ------
    UsageError
        No such column, prints that cannot be compared, no two speakers with enough clips, or a cohort that is
        too small, has some of these prints, or, as a frame that has the column, people of these names.
    MissingExtra
        scikit-learn is not installed.

    Warns
    -----
    UserWarning
        There are too few speakers to say much, labels that contradict the voices, or a small cohort.
    """
    prints = prints_of(data)
    labels = labels_of(data, label, prints)
    is_again = pd.DataFrame({"text": prints.texts, "label": labels}).duplicated().to_numpy()
    rooms = labels if within is None else labels_of(data, within, prints)
    used = ~(pd.isna(labels) | pd.isna(rooms) | is_again)
    if not used.any():
        raise UsageError(f"No row with a voiceprint has a name in {quoted(label)}.")
    others = cohort_of(cohort, prints.model, prints.texts, label=label, names=labels[used])
    rows = np.flatnonzero(used)
    rows = rows[evenly(_numbers(labels[rows]))]
    trials = make_trials(
        prints.embeddings[rows],
        _numbers(labels[rows]),
        groups=None if within is None else _numbers(rooms[rows]),
        enrolled=enrolled,
        scoring=scoring,
        cohort=others,
    )
    made = calibrating.calibrate(
        trials,
        model=prints.model,
        n_clips=len(rows),
        enrolled=enrolled,
        scoring=scoring,
        normalisation=None if others is None else others.normalisation,
    )
    warn(*made.remarks, None if others is None else others.remark)
    return made


def cluster(
    data: pd.DataFrame | pd.Series | Iterable[Voiceprint | str],
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
    data : DataFrame, Series or sequence
        A result of `voiceprints`, its column, or voiceprints themselves; at most 20,000 prints, as each meets
        each other.
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
        ``vp_representative`` (true for the row of each group that is most like the others of it). What was
        decided by is in ``attrs["voiceprint_nb_cluster"][prefix]``.

    Raises
    ------
    UsageError
        Neither calibration nor threshold, or both, prints that cannot be compared, a calibration for
        something else, or columns that are taken.
    MissingExtra
        scikit-learn is not installed.

    Warns
    -----
    UserWarning
        The calibration has too few false claims for this rate.
    """
    names = {name: f"{prefix}{name}" for name in ("cluster", "silhouette", "representative")}
    frame, prints = asked(data, names, overwrite=overwrite)
    told: dict[str, Any] = {}
    if threshold is not None and calibration is not None:
        raise UsageError("Pass calibration= or threshold=, not both: one of them makes the groups.")
    if threshold is not None:
        threshold, told = checked(threshold), {"by": "given"}
    elif calibration is None:
        raise UsageError(NO_THRESHOLD_TO_GROUP)
    else:
        if calibration.model != prints.model or calibration.enrolled != 1:
            raise UsageError(
                "Clusters need a calibration of clip against clip (enrolled=1), of the same model."
            )
        if calibration.normalisation is not None:
            raise UsageError("Clusters are made by cosines: pass a calibration without a cohort.")
        estimate, remark = threshold_for(calibration, false_accept_rate)
        threshold = estimate.value
        told = {"by": "calibration", "false_accept_rate": false_accept_rate, "remark": remark}
        warn(remark)
    found = clustering.clusters(prints.embeddings, threshold=threshold)
    answers = {
        "cluster": found.number,
        "silhouette": found.silhouette,
        "representative": found.is_representative,
    }
    told |= {"threshold": threshold, "clusters": int(found.number.max()), "silhouette": found.mean_silhouette}
    return answered(frame, prints, answers, prefix=prefix, verb="cluster", told=told)


def _numbers(labels: np.ndarray) -> np.ndarray:
    return np.asarray(pd.factorize(pd.Series(labels, dtype=object), use_na_sentinel=False)[0], np.intp)
