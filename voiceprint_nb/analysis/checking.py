"""Enrolled people looked at: who may be taken for whom, and which prints may be another's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voiceprint_nb.analysis.matching import People, nearest_people
from voiceprint_nb.analysis.names import quoted
from voiceprint_nb.analysis.trials import Scoring, check_scoring, unit

_COLUMNS = ["name", "n_prints", "own_score", "nearest", "nearest_score", "odd_prints", "remark"]


def check(people: People, *, scoring: Scoring) -> pd.DataFrame:
    """A row for each person, as `Library.check` describes it."""
    check_scoring(scoring)
    n_people = len(people.names)
    sizes = np.diff(np.append(people.begins, len(people.prints)))
    owner = np.repeat(np.arange(n_people), sizes)
    like, like_score = _nearest_others(people, owner, scoring)
    ends = people.begins[1:]
    rows = [
        _row(people.names, number, _alone(own, scoring), likes, scores)
        for number, (own, likes, scores) in enumerate(
            zip(
                *(np.split(values, ends) for values in (people.prints, like, like_score)),
                strict=True,
            )
        )
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _nearest_others(
    people: People, owner: NDArray[np.intp], scoring: Scoring
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Of each print, whoever else it is most like, and how much; -1 and minus infinity if there is nobody."""
    if len(people.names) == 1:
        return np.full(len(owner), -1), np.full(len(owner), -np.inf, np.float32)
    found = nearest_people(people.prints, people, scoring=scoring)  # one of two is not the owner
    rows, place = np.arange(len(owner)), (found.person[:, 0] == owner).astype(np.intp)
    return found.person[rows, place], found.score[rows, place]


def _alone(own: NDArray[np.float32], scoring: Scoring) -> NDArray[np.float32]:
    """Of each print of a person, the score with the others; empty for a single print."""
    if len(own) == 1:
        return np.empty(0, np.float32)
    if scoring == "centroid":
        cosines: NDArray[np.float32] = (own * unit(own.sum(axis=0) - own)).sum(axis=1)
        return cosines
    cosines = own @ own.T
    np.fill_diagonal(cosines, -np.inf)
    best: NDArray[np.float32] = cosines.max(axis=1)
    return best


def _row(
    names: list[str],
    number: int,
    alone: NDArray[np.float32],
    like: NDArray[np.intp],
    like_score: NDArray[np.float32],
) -> tuple[Any, ...]:
    first = int(like_score.argmax())
    nearest = names[like[first]] if like[first] >= 0 else None
    own_score = float(alone.min()) if len(alone) else np.nan
    odd = [n for n in range(len(alone)) if like_score[n] > alone[n]]
    remarks = [
        f"Print {n + 1} of {len(alone)} is more like {quoted(names[like[n]])} than like the others: "
        "listen to it."
        for n in odd
    ]
    if not odd and len(alone) and like_score[first] > own_score:
        remarks.append(f"May be taken for {quoted(nearest)}: enroll more and longer clips of both.")
    if not len(alone):
        remarks.append("One clip alone: enroll two more.")
    return (
        names[number],
        len(like),
        own_score,
        nearest,
        np.nan if nearest is None else float(like_score[first]),
        [n + 1 for n in odd],
        " ".join(remarks) or None,
    )
