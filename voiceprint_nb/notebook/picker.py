"""`Picker`: listen to clips, choose the part of each that is used, get the frame."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import pandas as pd

from voiceprint_nb.batch.outcomes import Outcome
from voiceprint_nb.errors import RowError, UsageError
from voiceprint_nb.notebook.errands import Errands
from voiceprint_nb.notebook.frames import Data
from voiceprint_nb.notebook.picked import Item
from voiceprint_nb.notebook.picking import Picks
from voiceprint_nb.notebook.waveform import Outline

_CHECKED_AT_ONCE = 32
_TICK_S = 0.25
_NO_WIDGETS = "This front end shows no widgets: use JupyterLab, Notebook 7, VS Code or Colab, or fit='best'."


class _StoppedError(Exception):
    """Nobody wants this recording's outline any more."""


class Picker:
    """Choose clips and, of long recordings, the 30 seconds that are used.

    Shows a list of clips with what a check says of each, the waveform and speech of the current one, sliders
    for the window, and a player for exactly what will be used. Recordings are read in a thread, block by
    block: the kernel stays free, and memory does not grow with their length but for 6 MB in two hours (MP3
    files are held in memory as they are). Reading two hours takes some seconds of WAV or FLAC, longer of MP3,
    and with ffmpeg up to two minutes.

    Parameters
    ----------
    data : DataFrame, Series, list or path, optional
        Rows of audio, never changed; or a folder, whose audio files are listed. Without, the picker is empty.
    column : hashable, optional
        Column that holds the audio; by default ``audio``, or the only one.
    base, sign
        As in `voiceprint_nb.check`.
    prefix : str
        Start of the names of the columns ``start_s`` and ``end_s``.
    overwrite : bool
        Replace columns of these names.

    Raises
    ------
    UsageError
        The call itself is wrong. What is wrong with a clip is shown in the list.

    Examples
    --------
    >>> picker = Picker(["no-such-file.wav"])
    >>> picker
    <Picker of 1 clip: 1 cannot be used. This front end shows no widgets: ...>
    >>> picker.frame.columns.tolist()
    ['audio', 'start_s', 'end_s']
    >>> picker.close()
    """

    def __init__(
        self,
        data: Data | str | os.PathLike[str] | None = None,
        column: Hashable | None = None,
        *,
        base: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        prefix: str = "",
        overwrite: bool = False,
        sign: Callable[[str], str] | None = None,
    ) -> None:
        from voiceprint_nb.notebook.picker_view import View

        self._picks = Picks(data, column, base=base, prefix=prefix, overwrite=overwrite, sign=sign)
        self._errands = Errands()
        self._view = View()
        self._current: Item | None = None
        self._stop = threading.Event()  # of the reading that goes on
        self._asked: set[Item] = set()
        self._drawn_s = 0.0
        self._listen()
        self._open(self._picks.items[0] if self._picks.items else None)
        self._check_more()

    def __repr__(self) -> str:
        n = len(self._picks.items)
        told = ", ".join(self._picks.told()) or "empty"
        return f"<Picker of {n} clip{'s' * (n != 1)}: {told}. {_NO_WIDGETS}>"

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        bundle: dict[str, Any] = {"text/plain": repr(self)}
        if self._view.root.comm is not None:
            view = {"version_major": 2, "version_minor": 0, "model_id": self._view.root.model_id}
            bundle["application/vnd.jupyter.widget-view+json"] = view
        return bundle

    @property
    def frame(self) -> pd.DataFrame:
        """The frame for `voiceprint_nb.voiceprints`: rows that were not removed, then clips that were added.

        All columns of the given frame and its index are kept. The audio of a clip with a window is that
        window as FLAC bytes (16 kHz, mono), of all others the cell as it was. ``start_s`` and ``end_s`` tell
        the window, and are missing where the whole clip is used; ``name`` names the clips where some were
        added. Windows that were not listened to are cut now.
        """
        return self._picks.frame()

    def close(self) -> None:
        """Close the widgets and remove what was copied for listening; `frame` can still be asked for."""
        self._stop.set()
        self._errands.close()
        self._view.close()
        self._picks.close()

    # --- what the user does ---------------------------------------------------------------------------------

    def _listen(self) -> None:
        view = self._view
        self._on(view.list, lambda place: self._open(None if place is None else self._picks.items[place]))
        self._on(view.filter, lambda _: self._draw_list())
        for widget in (view.start_slider, view.start):
            self._on(widget, lambda at_s: self._change(lambda item: item.move(start_s=at_s)))
        for widget in (view.end_slider, view.end):
            self._on(widget, lambda at_s: self._change(lambda item: item.move(end_s=at_s)))
        self._on(view.upload, self._uploaded)
        view.previous.on_click(lambda _: view.step(-1))
        view.next.on_click(lambda _: view.step(1))
        view.best.on_click(lambda _: self._change(Item.choose_best))
        view.whole.on_click(lambda _: self._change(Item.use_whole))
        view.remove.on_click(lambda _: self._change(Item.toggle))
        view.add.on_click(lambda _: self._add_folder())

    def _on(self, widget: Any, act: Callable[[Any], None]) -> None:
        def changed(change: dict[str, Any]) -> None:
            if not self._view.is_filling:
                act(change["new"])

        widget.observe(changed, names="value")

    def _uploaded(self, files: Sequence[Any] | dict[str, Any]) -> None:
        if not files:
            return
        # Emptied: the bytes are kept once, and the same file may come again.
        self._view.upload.set_trait("value", type(files)())
        if isinstance(files, dict):  # as ipywidgets 7 has them
            files = [{"name": name, **file} for name, file in files.items()]
        self._added(self._picks.add_files((str(file["name"]), bytes(file["content"])) for file in files))

    def _add_folder(self) -> None:
        try:
            self._added(self._picks.add_folder(self._view.folder.value))
        except UsageError as error:
            self._view.say(str(error))

    def _added(self, items: list[Item]) -> None:
        self._view.say(f"{len(items)} clip{'s' * (len(items) != 1)} added.")
        if items:
            self._open(items[0])
        self._check_more()

    def _change(self, act: Callable[[Item], None]) -> None:
        if self._current is not None:
            act(self._current)
            self._draw()
            self._play()

    # --- what follows ---------------------------------------------------------------------------------------

    def _open(self, item: Item | None) -> None:
        """Make a clip the current one: draw it, read it if it was not read yet, have it played."""
        self._stop.set()
        self._stop = threading.Event()
        self._current = item
        self._view.play(b"")
        self._draw()
        if item is not None and item.outcome is not None:
            self._read(item)

    def _read(self, item: Item) -> None:
        facts = item.outcome.facts if item.outcome is not None else None
        if facts is None or not item.is_cuttable or item.outline is not None:
            self._play()
            return
        stop, told_s = self._stop, time.monotonic()

        def tick(share: float) -> None:
            nonlocal told_s
            if stop.is_set():
                raise _StoppedError
            if time.monotonic() - told_s >= _TICK_S:
                told_s = time.monotonic()
                self._errands.post(lambda: self._show_share(item, share))

        def done(outline: Outline | None, error: Exception | None) -> None:
            item.outline = outline
            if error is not None and not isinstance(error, _StoppedError):
                item.trouble = _sentence(error)
            if item is self._current:
                self._draw()
                self._play()

        self._view.show_item(item, read=0.0)
        self._errands.send(lambda: item.recording.outline(facts, tick=tick), done)

    def _show_share(self, item: Item, share: float) -> None:
        if item is self._current and item.outline is None:
            self._view.show_item(item, read=share)

    def _play(self) -> None:
        """Have the current window made and played."""
        item = self._current
        if item is None or not item.is_cuttable or item.removed or (item.outline is None and item.trouble):
            self._view.play(b"")
            return
        window = item.shown

        def make() -> tuple[bytes, bool] | None:
            wanted = item is self._current and item.shown == window  # else a later window waits behind
            return item.recording.cut(window) if wanted else None

        def done(made: tuple[bytes, bool] | None, error: Exception | None) -> None:
            if error is not None:
                item.trouble = _sentence(error)
            elif made is not None:
                item.keep(window, made[0], is_heard=made[1])
            if item is self._current and (error is not None or (made is not None and item.shown == window)):
                self._view.play(made[0] if made is not None else b"")
                self._draw()

        self._errands.send(make, done)

    def _check_more(self) -> None:
        """Check the next clips; the current one first and alone, for somebody waits for it."""
        items = [item for item in self._picks.items if item not in self._asked]
        if self._errands.in_background:
            items = [self._current] if self._current in items else items[:_CHECKED_AT_ONCE]
        if not items:
            self._draw_list()
            return
        self._asked.update(items)

        def done(outcomes: list[Outcome] | None, error: Exception | None) -> None:
            for item, outcome in zip(items, outcomes or [], strict=False):
                item.outcome = outcome
            if error is not None:
                self._view.say(_sentence(error))
            if self._current in items:
                self._open(self._current)
            elif time.monotonic() - self._drawn_s >= _TICK_S:
                self._draw_list()
            self._check_more()

        self._errands.send(lambda: self._picks.check(items), done)

    def _draw(self) -> None:
        self._draw_list()
        self._view.show_item(self._current)

    def _draw_list(self) -> None:
        self._drawn_s = time.monotonic()
        self._view.show_list(self._picks.items, self._picks.counts(), self._current)


def _sentence(error: Exception) -> str:
    if isinstance(error, (RowError, UsageError)):
        return str(error)
    return f"This did not work ({type(error).__name__}): see whether the file opens in an audio editor."
