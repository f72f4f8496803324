"""What may be shown of a value: short, without secrets, voiceprints or characters that act on a terminal."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

from voiceprint_nb.analysis.names import PRINT, is_print, without_prints

_MOST_CHARACTERS = 60
_LINK = re.compile(r"\b([a-z][a-z0-9+.-]*://)([^\s/?#@]*@)?([^\s?#]*)([?#]\S*)?", re.IGNORECASE)
_QUERY = re.compile(r"\?[\w.~%+-]+=\S*")  # of a link that lacks its beginning


def shown(value: object, *, most: int | None = None) -> str:
    """Text of a cell or a label: one line, links without user, password, query and fragment.

    Parameters
    ----------
    value : object
        Any cell; what is neither text, number nor time is named by its type only.
    most : int, optional
        Characters beyond are replaced by an ellipsis in the middle, so that a file's name stays.

    Examples
    --------
    >>> shown("https://host/a.wav?token=secret"), shown(None), shown(b"RIFF")
    ('https://host/a.wav?…', '', 'bytes, 4 B')
    """
    if is_print(value):
        return PRINT
    text = veiled(_text(value))
    return (
        text if most is None or len(text) <= most else f"{text[: most // 3]}…{text[1 - (most - most // 3) :]}"
    )


def is_short(value: object) -> bool:
    """Whether the value is shown whole in a column of its own."""
    return len(_text(value)) <= _MOST_CHARACTERS


def veiled(text: str) -> str:
    """The text with links cut down to what is no secret, and without voiceprints or control characters."""
    text = _LINK.sub(lambda link: f"{link[1]}{link[3]}{'?…' if link[4] else ''}", text)
    text = without_prints(_QUERY.sub("?…", text))
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "�" for c in text)


def size(n_bytes: float) -> str:
    """A number of bytes for people.

    Examples
    --------
    >>> size(999), size(20_340), size(3_500_000)
    ('999 B', '20 kB', '3.5 MB')
    """
    if n_bytes < 1000:
        return f"{n_bytes:.0f} B"
    return f"{n_bytes / 1e3:.0f} kB" if n_bytes < 1e6 else f"{n_bytes / 1e6:.1f} MB"


def _text(value: Any) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"bytes, {size(len(value))}"
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], np.ndarray):
        return f"{len(value[0]):,} samples"
    if isinstance(value, tuple):
        return ", ".join(PRINT if is_print(part) else _text(part) for part in value)
    if isinstance(value, str) or hasattr(value, "__fspath__"):
        return str(value)
    if not pd.api.types.is_scalar(value):
        return f"({type(value).__name__})"
    return (
        ""
        if _is_missing(value)
        else f"{value:.6g}"
        if isinstance(value, (float, np.floating))
        else str(value)
    )


def _is_missing(value: Any) -> bool:
    try:
        return bool(pd.isna(value))
    except ArithmeticError:  # a signalling NaN of decimal
        return True
