"""What a report tells of answers: who speaks, who is enrolled, which voices there are, and by what."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from voiceprint_nb.analysis.library import Library
from voiceprint_nb.notebook.report_facts import (
    OF_CLUSTER,
    OF_MATCH,
    Facts,
    decided_by,
    percent,
    prefixes,
    told,
)
from voiceprint_nb.notebook.report_page import Block, Heading, Table
from voiceprint_nb.notebook.report_rows import PAGE_ROWS, cell
from voiceprint_nb.notebook.shown import shown

_MOST_LINES = 2000  # of names, people or voices
_TOLD = {  # what match and cluster were decided by, in words
    "by": "source of the threshold",
    "threshold_interval": "95% interval of that",
    "unknown_below": "unknown below",
    "false_name_rate": "strangers with a name, asked",
    "supported_false_name_rate": "strangers with a name, least that the calibration can tell",
    "gives_names": "gives names",
    "false_accept_rate": "pairs of different speakers as alike",
    "people": "enrolled people",
    "clusters": "voices",
    "silhouette": "mean silhouette",
}
_RATES = {"false_name_rate", "supported_false_name_rate", "false_accept_rate"}


def matches(data: pd.DataFrame) -> list[Block]:
    """Who speaks: a part for each `match`, with what it was decided by."""
    blocks: list[Block] = []
    begins = prefixes(data, OF_MATCH)
    for prefix in begins:
        which = f" ({prefix}label)" if len(begins) > 1 else ""
        decisions = told(data, f"{prefix}decision").value_counts()
        blocks += [Heading(f"Who speaks{which}"), shares("Decisions", "decision", decisions)]
        if len(names := told(data, f"{prefix}label").value_counts()):
            blocks.append(shares("Names", "name", names))
        blocks += _decided(decided_by(data, "match", prefix))
    return blocks


def people(library: Library | None) -> list[Block]:
    """Who is enrolled."""
    if library is None:
        return []
    enrolled = library.people
    lines = [[cell(value) for value in line] for line in enrolled.head(_MOST_LINES).to_numpy()]
    caption = "People" if len(lines) == len(enrolled) else f"{len(lines)} of {len(enrolled)} people"
    return [Heading("Enrolled people"), Table(caption, list(enrolled.columns), lines, PAGE_ROWS)]


def clusters(data: pd.DataFrame) -> list[Block]:
    """The voices found: a part for each `cluster`, with what it was decided by."""
    blocks: list[Block] = []
    begins = prefixes(data, OF_CLUSTER)
    for prefix in begins:
        which = f" ({prefix}cluster)" if len(begins) > 1 else ""
        sizes = told(data, f"{prefix}cluster").value_counts()
        blocks += [Heading(f"Voices found{which}"), shares("Rows by voice", "voice", sizes)]
        blocks += _decided(decided_by(data, "cluster", prefix))
    return blocks


def _decided(facts: Facts) -> list[Block]:
    """What the answers of one verb under one prefix rest on."""
    lines = [
        [_TOLD.get(name, name), percent(value) if name in _RATES else _value(value)]
        for name, value in facts.items()
        if value is not None
    ]
    return [Table("Decided by", ["what", "value"], lines)] if lines else []


def shares(caption: str, what: str, counts: pd.Series[int]) -> Table:
    """How many rows each of the names has."""
    n_all = max(int(counts.sum()), 1)
    most = counts.head(_MOST_LINES)
    lines = [[shown(name), str(count), f"{count / n_all:.1%}"] for name, count in most.items()]
    if n_others := len(counts) - len(most):
        rest = int(counts.sum() - most.sum())
        lines.append([f"{n_others} others", str(rest), f"{rest / n_all:.1%}"])
    return Table(caption, [what, "rows", "share"], lines, PAGE_ROWS)


def pairs(facts: Mapping[str, object]) -> list[list[str]]:
    """Lines of a table of names and values."""
    return [[name, _value(value)] for name, value in facts.items()]


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(one)}" for name, one in value.items())
    if isinstance(value, (tuple, list)):
        return " to ".join(map(_value, value))
    return f"{value:.4g}" if isinstance(value, float) else shown(value)
