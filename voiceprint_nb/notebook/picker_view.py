"""The picker's widgets and the HTML in them; what they show is told by the clips."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets

from voiceprint_nb.notebook.finding import SUFFIXES
from voiceprint_nb.notebook.picked import LEAST_S, MOST_S, WORDS, Item
from voiceprint_nb.notebook.waveform import Window, as_svg, clock

_DETAIL_S = 60.0
_HINT = "No clips yet: upload files, or add a folder of recordings."
_UPLOADS = (  # the server's limit for a message; the front end waits for its answer, and says nothing
    "Jupyter loses uploads of more than about 10 MB at once, and those after them until the page is "
    "reloaded: add such files by their folder."
)


class View:
    """Widgets with names; `show_item` and `show_list` fill them.

    Changes that these make are no choices of the user: `is_filling` is true meanwhile.
    """

    def __init__(self) -> None:
        wide = {"width": "auto"}
        self.is_filling = False
        self.head = ipywidgets.HTML()
        self.filter = ipywidgets.Dropdown(
            options=[("all clips", "")], description="Show", layout=wide, style={"description_width": "40px"}
        )
        self.list = ipywidgets.Select(
            options=[], rows=14, description="Clips", layout={"width": "auto", "height": "240px"},
            style={"description_width": "40px"},
        )  # fmt: skip
        # JupyterLab takes the arrow keys in a list for its own: these work by keyboard everywhere.
        self.previous = _button("Previous", "Go to the clip before this one in the list", "arrow-up")
        self.next = _button("Next", "Go to the clip after this one in the list", "arrow-down")
        self.upload = ipywidgets.FileUpload(
            accept=",".join(("audio/*", *sorted(SUFFIXES))), multiple=True, description="Upload files",
            layout=wide,
            tooltip="Add audio files from your computer, up to about 10 MB at once",
        )  # fmt: skip
        self.folder = ipywidgets.Text(
            description="Folder", placeholder="path where the kernel runs",
            style={"description_width": "50px"},
            layout={"width": "auto", "min_width": "0", "flex": "1 1 130px"},
        )  # fmt: skip
        self.add = _button("Add folder", "Add the audio files of this folder and the folders in it", "plus")
        self.note = ipywidgets.HTML()
        self.status = ipywidgets.HTML()
        self.picture = ipywidgets.HTML(layout={"min_height": "150px"})
        options = {"step": 0.1, "continuous_update": False, "style": {"description_width": "36px"}}
        self.start_slider, self.end_slider = (
            ipywidgets.FloatSlider(description=name, readout=False, layout={"width": "auto"}, **options)
            for name in ("Start", "End")
        )
        options["style"] = {"description_width": "initial"}
        self.start, self.end = (
            ipywidgets.BoundedFloatText(description=name, layout={"width": "136px"}, **options)
            for name in ("Start (s)", "End (s)")
        )
        self.player = ipywidgets.HTML(layout={"min_height": "60px"})
        best = f"Best {MOST_S:.0f} s"
        self.best = _button(best, "Choose the window with the most speech", "magic")
        self.whole = _button("Whole clip", "Choose no window", "arrows-h")
        self.remove = _button("Remove", "Leave this clip out of the frame", "minus")
        self.root = self._arranged()

    def _arranged(self) -> Any:
        row = {"flex_flow": "row wrap", "align_items": "center"}
        adding = ipywidgets.HBox([self.upload, self.folder, self.add], layout=row)
        steps = ipywidgets.HBox([self.previous, self.next], layout={"margin": "0 0 0 46px"})
        hint = ipywidgets.HTML(f'<div style="opacity:.8;line-height:1.4">{_UPLOADS}</div>')
        self.editor = ipywidgets.VBox(
            [
                self.status, self.picture, self.start_slider, self.end_slider,
                ipywidgets.HBox([self.start, self.end, self.best, self.whole, self.remove], layout=row),
                self.player,
            ],
            layout={"flex": "3 1 440px", "min_width": "300px", "padding": "0 0 0 8px"},
        )  # fmt: skip
        chosen = ipywidgets.VBox(
            [self.filter, self.list, steps, adding, hint], layout={"flex": "2 1 300px", "min_width": "260px"}
        )
        both = ipywidgets.HBox([chosen, self.editor], layout={"flex_flow": "row wrap"})
        return ipywidgets.VBox([self.head, both, self.note], layout={"max_width": "1100px"})

    def step(self, by: int) -> None:
        """Choose another clip, so many places further down the list, if there is one."""
        places = [place for _, place in self.list.options]
        at = places.index(self.list.value) + by if self.list.value in places else 0
        if 0 <= at < len(places):
            self.list.value = places[at]

    def show_list(self, items: Sequence[Item], counts: Mapping[str, int], current: Item | None) -> None:
        """Fill the list with the clips that the filter lets through, and the current one."""
        state = self.filter.value
        n_all = len(items)
        told = [f"{n} {WORDS[name][1]}" for name, n in counts.items()]
        self.head.value = (
            f"<b>Picker</b>: {n_all} clip{'s' * (n_all != 1)}{': ' * bool(told)}{', '.join(told)}"
            if n_all
            else f"<b>Picker</b>: {_HINT}"
        )
        states = [("all clips", ""), *((WORDS[name][1], name) for name in counts)]
        listed = [
            (f"{n + 1}  {item.label}", n)
            for n, item in enumerate(items)
            if not state or item.state == state or item is current
        ]
        place = next((n for n, item in enumerate(items) if item is current), None)
        self.is_filling = True
        try:
            if self.filter.options != tuple(states):
                self.filter.options = states
                self.filter.value = state if state in counts else ""
            if self.list.options != tuple(listed):
                self.list.options = listed
            if self.list.value != place:
                self.list.value = place
        finally:
            self.is_filling = False

    def show_item(self, item: Item | None, *, read: float | None = None) -> None:
        """Fill the editor; ``read`` is the share of the recording that is read so far."""
        self.editor.layout.display = "none" if item is None else ""
        if item is None:
            return
        cuttable = item.is_cuttable and not item.removed
        self.status.value = _status(item)
        self.picture.value = (
            _pictures(item) if item.outline is not None and cuttable else _waiting(item, read)
        )
        shown = item.shown
        self.is_filling = True
        try:
            for slider, field, at_s in (
                (self.start_slider, self.start, shown[0]),
                (self.end_slider, self.end, shown[1]),
            ):
                _fill(slider, at_s, item.duration_s)
                _fill(field, at_s, item.duration_s)
                slider.disabled = field.disabled = not (cuttable and item.duration_s > LEAST_S)
            self.best.disabled = not cuttable or item.outline is None
            self.whole.disabled = not cuttable or item.window is None
            self.remove.description = "Put back" if item.removed else "Remove"
        finally:
            self.is_filling = False

    def play(self, data: bytes) -> None:
        """Give the player another sound; none is no player."""
        source = f"data:audio/flac;base64,{base64.b64encode(data).decode()}"
        player = f'<audio controls aria-label="The window, as it is used" style="width:100%" src="{source}">'
        told = f"{player}</audio>" if data else ""
        if told != self.player.value:
            self.player.value = told

    def say(self, text: str) -> None:
        """One sentence below everything, which screen readers read out."""
        self.note.value = f'<div role="status">{html.escape(text)}</div>'

    def close(self) -> None:
        """Close all widgets."""
        _close(self.root)


def _button(name: str, tip: str, icon: str) -> Any:
    return ipywidgets.Button(description=name, tooltip=tip, icon=icon, layout={"width": "auto"})


def _fill(widget: Any, at_s: float, most_s: float) -> None:
    """Range and value at once: the widget refuses what would not fit in between."""
    with widget.hold_sync():
        widget.max = round(max(most_s, LEAST_S), 2)
        widget.value = min(round(at_s, 2), widget.max)


def _status(item: Item) -> str:
    sign, words = WORDS[item.state]
    return (
        f'<div role="status" style="line-height:1.5;overflow-wrap:anywhere"><b>{html.escape(item.name)}</b>'
        f"<br>{sign} <b>{words}</b>: {html.escape(item.sentence)}</div>"
    )


def _waiting(item: Item, read: float | None) -> str:
    if read is None or not item.is_cuttable:
        return ""
    percent = round(read * 100)
    return (
        f"<label>The recording is being read: {percent} % "
        f'<progress max="100" value="{percent}" style="width:50%"></progress></label>'
    )


def _pictures(item: Item) -> str:
    """The whole clip; of a long one also the surroundings of the window."""
    outline, window, whole = item.outline, item.shown, (0.0, item.duration_s)
    if outline is None:
        return ""
    chosen = item.window is not None or item.duration_s <= MOST_S
    said = "chosen" if item.window is not None else "whole clip" if chosen else "proposed"
    speech_s = outline.speech_s(window)
    spoken = f"{speech_s:.1f} s of speech"
    told = f"{said}: {clock(window[0])} to {clock(window[1])}, {window[1] - window[0]:.1f} s with {spoken}"
    title = f"{item.name}, {clock(whole[1])}; {told}"
    legend = (
        f"<div>[&nbsp;] {told}"
        ' &middot; <span style="color:#3b8ed0" aria-hidden="true">&#9644;</span> bars below: speech</div>'
    )
    if item.duration_s <= _DETAIL_S:
        return _above_sliders(as_svg(outline, span=whole, window=window, title=title, chosen=chosen) + legend)
    near = _around(window, item.duration_s)
    detail = as_svg(outline, span=near, window=window, title=f"Around the window of {title}", chosen=chosen)
    overview = as_svg(outline, span=whole, window=window, title=title, height=48, chosen=chosen)
    said = f'<div style="margin-top:4px">The whole recording, {clock(item.duration_s)}:</div>'
    return _above_sliders(f"{detail}{legend}{said}{overview}")


def _above_sliders(pictures: str) -> str:
    """As wide as the sliders' tracks, so that a knob is below the moment that it stands for."""
    return f'<div style="padding:0 6px 0 50px;line-height:1.5">{pictures}</div>'


def _around(window: Window, duration_s: float) -> Window:
    middle = (window[0] + window[1]) / 2
    start = min(max(0.0, middle - _DETAIL_S / 2), duration_s - _DETAIL_S)
    return start, start + _DETAIL_S


def _close(widget: Any) -> None:
    """Close a widget with its parts: ipywidgets leaves layouts and styles in the kernel otherwise."""
    for key in widget.keys:
        value = getattr(widget, key)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, ipywidgets.Widget):
                _close(part)
    widget.close()
