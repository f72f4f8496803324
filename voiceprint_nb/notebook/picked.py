"""One clip of a picker: what is known of it, and which part of it is used."""

from __future__ import annotations

import unicodedata

import numpy as np

from voiceprint_nb import contract
from voiceprint_nb.batch.outcomes import Outcome
from voiceprint_nb.intake import clips
from voiceprint_nb.notebook.listening import Recording, Workroom, held
from voiceprint_nb.notebook.waveform import Outline, Window, clock

LEAST_S = 1.0
MOST_S = contract.MAX_DURATION_S
WORDS = {  # by state: a sign, and what the list says
    "ok": ("\u2713", "ok"),
    "cut": ("\u2702", "cut"),
    "long": ("!", "too long"),
    "bad": ("\u2717", "cannot be used"),
    "removed": ("\u2013", "removed"),
    "checking": ("\u2026", "being checked"),
}


class Item:
    """One clip of a picker.

    Attributes
    ----------
    name : str
        As it is shown.
    cell : object
        As in the frame.
    row : int or None
        Its place in the given frame; None if it was added since.
    outcome : Outcome or None
        What its check said.
    outline : Outline or None
        Once it was read.
    window : (float, float) or None
        The chosen part in seconds; None for the whole clip.
    trouble : str or None
        What was found wrong later than by the check, in a sentence.
    removed : bool
        Whether the frame leaves it out.
    """

    def __init__(self, name: str, cell: object, row: int | None, room: Workroom) -> None:
        self.name = readable(name)
        self.row = row
        self.cell, self.heard = held(cell)
        self.recording = Recording(self.heard, room)
        self.outcome: Outcome | None = None
        self.outline: Outline | None = None
        self.window: Window | None = None
        self.trouble: str | None = None
        self.removed = False
        self._cut: tuple[Window, bytes] | None = None

    @property
    def duration_s(self) -> float:
        """Length of the whole clip; 0 where it is unknown."""
        facts = self.outcome.facts if self.outcome is not None else None
        return facts.duration_s if facts is not None else 0.0

    @property
    def state(self) -> str:
        """``checking``, ``ok``, ``long`` (a window must be chosen), ``cut``, ``bad`` or ``removed``."""
        if self.removed:
            return "removed"
        if self.outcome is None:
            return "checking"
        if self.trouble is not None:
            return "bad"
        if self.window is not None:
            return "cut"
        if self.outcome.status == "ok":
            return "ok"
        return "long" if self.is_cuttable else "bad"

    @property
    def is_cuttable(self) -> bool:
        """Whether it can be heard and cut: it is audio, if perhaps too much."""
        if self.outcome is None or not self.duration_s:
            return False
        return self.outcome.status == "ok" or self.outcome.error_code in ("too_long", "too_large")

    @property
    def label(self) -> str:
        """One line for a list, without its number."""
        sign, words = WORDS[self.state]
        if self.state == "cut" and self.window is not None:
            words = f"{clock(self.window[0])} to {clock(self.window[1])}"
        elif self.state in ("ok", "long"):
            words = f"{words}, {clock(self.duration_s)}"
        elif self.state == "bad" and self.outcome is not None and self.outcome.error_code:
            words = self.outcome.error_code.replace("_", " ")
        name = self.name if len(self.name) <= 40 else f"{self.name[:24]}\u2026{self.name[-15:]}"
        return f"{sign} {name} \u00b7 {words}"

    @property
    def sentence(self) -> str:
        """What there is to say about it."""
        if self.outcome is None:
            return "It is being checked."
        if self.trouble is not None:
            return self.trouble
        if self.window is not None:
            length_s = self.window[1] - self.window[0]
            short = (
                f": prints of clips under {clips.SHORT_S:.0f} s are unreliable"
                if length_s < clips.SHORT_S
                else ""
            )
            return f"{clock(self.window[0])} to {clock(self.window[1])} is used, {length_s:.1f} s{short}."
        if self.state == "long":
            return (
                f"It lasts {clock(self.duration_s)}, and at most {MOST_S:.0f} s can be used: choose a window."
            )
        if self.outcome.error is not None:
            return self.outcome.error
        return " ".join(["The whole clip is used.", *filter(None, [self.outcome.warning])])

    @property
    def shown(self) -> Window:
        """The chosen window; else the one to begin with: the whole clip, or its most speech-rich part."""
        if self.window is not None:
            return self.window
        if self.duration_s <= MOST_S or self.outline is None:
            return 0.0, min(self.duration_s, MOST_S)
        start_s = min(self.outline.best_start_s(MOST_S), self.duration_s - MOST_S)
        return start_s, start_s + MOST_S

    def move(self, *, start_s: float | None = None, end_s: float | None = None) -> None:
        """Move one edge of the window; the other stays if the length allows it, else it comes along."""
        if not self.is_cuttable or self.duration_s <= LEAST_S:
            return
        start, end = self.shown
        length_s = min(max(end - start, LEAST_S), MOST_S)
        if start_s is not None and np.isfinite(start_s):
            start = min(max(0.0, _tenth(start_s)), self.duration_s - LEAST_S)
            if not LEAST_S <= end - start <= MOST_S + 1e-6:
                end = min(start + length_s, self.duration_s)
        if end_s is not None and np.isfinite(end_s):
            end = max(min(_tenth(end_s), self.duration_s), LEAST_S)
            if not LEAST_S <= end - start <= MOST_S + 1e-6:
                start = max(0.0, end - length_s)
        self._set(None if (start, end) == (0.0, self.duration_s) else (start, end))

    def choose_best(self) -> None:
        """Choose the most speech-rich window; of a clip within the limit, all of it."""
        window = self.window
        self.window = None
        if self.duration_s <= MOST_S:
            self._set(None)
        elif self.outline is not None:
            self._set(self.shown)
        else:
            self.window = window

    def use_whole(self) -> None:
        """Choose no window."""
        self._set(None)

    def toggle(self) -> None:
        """Leave it out of the frame, or put it back."""
        self.removed = not self.removed

    def _set(self, window: Window | None) -> None:
        self.window, self.trouble = window, None

    def keep(self, window: Window, data: bytes, *, is_heard: bool) -> None:
        """Take a cut that was made; one for a window that is not wanted any more is dropped."""
        if window == self.window:
            self._cut = window, data
            self.trouble = None if is_heard else "Nothing can be heard in this window: choose another."

    def used(self) -> object:
        """What goes into the frame: the cell itself, or the chosen part of it as FLAC bytes.

        Raises
        ------
        RowError
            The recording cannot be read any more.
        """
        if self.window is None:
            return self.cell
        if self._cut is None or self._cut[0] != self.window:
            self._cut = self.window, self.recording.cut(self.window)[0]
        return self._cut[1]


def readable(text: str) -> str:
    """The text on one line, with a sign in place of characters that cannot be seen or sent."""
    return "".join("\ufffd" if unicodedata.category(sign)[0] == "C" else sign for sign in text)


def _tenth(at_s: float) -> float:
    return round(at_s * 10) / 10
