"""Names made from cells, and names told in messages."""

from __future__ import annotations

import datetime
import decimal

import numpy as np
import pandas as pd
import pytest
from voices import prints, voices

from voiceprint_nb.analysis.names import is_print, name_of, quoted
from voiceprint_nb.analysis.prints import labels_of, prints_of
from voiceprint_nb.errors import UsageError

EMBEDDINGS, _ = voices(3, 1, noise=0.5)
PRINTS = prints(EMBEDDINGS)


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("ada", "ada"),
        ("nan", "nan"),
        (" ", None),
        ("", None),
        (None, None),
        (np.nan, None),
        (pd.NA, None),
        (pd.NaT, None),
        (7, "7"),
        (np.int64(7), "7"),
        (7.0, "7"),
        (np.float32(7), "7"),
        (7.5, "7.5"),
        (float("inf"), "inf"),
        (decimal.Decimal("7.5"), "7.5"),
        (("ada", 1), "('ada', 1)"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
    ],
)
def test_cells_become_names(cell: object, name: str | None) -> None:
    assert name_of(cell) == name


def test_what_is_no_name_is_refused_and_never_shown() -> None:
    for cell, words in {"['ada']": "list is no name", PRINTS[0]: "voiceprint is no name"}.items():
        with pytest.raises(UsageError, match=words) as caught:
            name_of(["ada"] if words.startswith("list") else cell)
        assert PRINTS[0][:20] not in str(caught.value)


def test_quoted_names_are_short_and_hold_no_print() -> None:
    text = PRINTS[0]
    assert quoted("ada's") == '"ada\'s"'
    assert quoted(text) == "(voiceprint, not shown)"
    assert is_print(text) and is_print("x" * 200) and not is_print("x" * 110) and not is_print(7)
    for name in (f"ada: {text}", f"{text}!", ("ada", text)):
        shown = quoted(name)
        assert len(shown) <= 60
        assert not any(text[begin : begin + 12] in shown for begin in range(len(text) - 12))


def test_a_column_with_gaps_names_as_one_without() -> None:
    whole = pd.DataFrame({"voiceprint": PRINTS, "who": [7, 8, 7]})
    gap = whole.assign(who=[7, None, "7"])
    assert labels_of(whole, "who", prints_of(whole)).tolist() == ["7", "8", "7"]
    assert labels_of(gap, "who", prints_of(gap)).tolist() == ["7", None, "7"]
    for refused, words in {
        "voiceprint": "'voiceprint': A voiceprint is no name",
        "x": "no column 'x'",
    }.items():
        with pytest.raises(UsageError, match=words):
            labels_of(whole, refused, prints_of(whole))
    with pytest.raises(UsageError, match="no column") as caught:
        labels_of(whole, PRINTS[0], prints_of(whole))
    assert PRINTS[0][:20] not in str(caught.value)
    with pytest.raises(UsageError, match="no column \\['who'\\]"):
        labels_of(whole, ["who"], prints_of(whole))  # type: ignore[arg-type]
