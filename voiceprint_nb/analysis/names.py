"""Names of people and what else labels rows: one way to make them from cells, and to tell them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

from voiceprint_nb.contract import decode_voiceprint
from voiceprint_nb.errors import UsageError

PRINT = "(voiceprint, not shown)"

_LEAST_PRINT_CHARACTERS = 120
_MOST_SHOWN = 60
_OPAQUE = re.compile(r"[A-Za-z0-9+/_-]{200,}={0,2}")
_LIKE_PRINT = re.compile(r"[A-Za-z0-9+/_-]{100,}={0,2}")
_UNBROKEN = re.compile(r"[A-Za-z0-9+]{24}")  # in long paths, folders are named in fewer characters


def name_of(value: object) -> str | None:
    """The name that a cell gives: None if it is missing or blank, numbers as people write them.

    A column of whole numbers becomes one of floats where a cell is missing, so 7.0 is named as 7 is.

    Raises
    ------
    UsageError
        The cell is a list or the like, or a voiceprint.

    Examples
    --------
    >>> name_of("ada"), name_of(7.0), name_of(7), name_of(" "), name_of(float("nan"))
    ('ada', '7', '7', None, None)
    """
    if not pd.api.types.is_hashable(value):
        raise UsageError(f"A {type(value).__name__} is no name: a label is one text or number a row.")
    if is_print(value):
        raise UsageError("A voiceprint is no name: pass the column that says who speaks.")
    cell: Any = value
    if pd.isna(cell):
        return None
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    text = str(value)
    return text if text.strip() else None


def quoted(name: object) -> str:
    """A name in quotes for a message: short, and without voiceprints.

    Examples
    --------
    >>> quoted("ada"), quoted(7), len(quoted("long " * 30))
    ("'ada'", '7', 60)
    """
    text = PRINT if is_print(name) else without_prints(repr(name))
    half = _MOST_SHOWN // 2
    return text if len(text) <= _MOST_SHOWN else f"{text[:half]}…{text[1 - half :]}"


def without_prints(text: str) -> str:
    """The text with every voiceprint in it replaced.

    Examples
    --------
    >>> without_prints(f"ada: {'Qk9' * 50}=="), without_prints("ada/" * 50) == "ada/" * 50
    ('ada: (voiceprint, not shown)', True)
    """
    return _LIKE_PRINT.sub(lambda run: PRINT if _UNBROKEN.search(run[0]) else run[0], text)


def is_print(value: object) -> bool:
    """Whether a value is the text of a voiceprint: a local one, or long base64 as the hosted ones are."""
    if not isinstance(value, str) or len(value) < _LEAST_PRINT_CHARACTERS:
        return False
    if _OPAQUE.fullmatch(value.strip()):
        return True
    try:
        decode_voiceprint(value.strip())
    except UsageError as error:
        return "not a voiceprint" not in str(error)
    return True
