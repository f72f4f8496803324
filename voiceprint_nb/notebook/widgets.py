"""The progress panel: a view over snapshots, without state of its own."""

from __future__ import annotations

import html
import weakref
from collections.abc import Callable
from typing import Any

from voiceprint_nb.batch.progress import WAITING, Snapshot

_COLOURS = {  # Okabe-Ito palette: distinguishable for colour-blind readers; every part is labelled as well
    "ok": "#009E73",
    "succeeded": "#009E73",
    "reused": "#56B4E9",
    "invalid": "#E69F00",
    "failed": "#D55E00",
    "canceled": "#999999",
    "pending": "#CC79A7",
    "checking": "#F0E442",
    "uploading": "#b8d8f0",
    "running": "#0072B2",
    WAITING: "#5b6b9a",
    "queued": "#8886",
}
_STRIPED = ("failed", WAITING)  # told apart from their neighbours in the bar without colour, too
_GROUPS = {"submit": "submissions", "media": "upload links", "read": "job reads", "list": "job lists"}
_MOST_PROBLEMS = 8
_LOADED_LATER = (
    "<div>This page was loaded after the run had begun: run.show() in a new cell draws a panel that is saved "
    "with the notebook.</div>"
)
_TEXT = (  # the same in a widget, in an output and in a converted notebook, which differ in their styles
    "font-family:sans-serif;font-size:var(--jp-content-font-size1,14px);line-height:1.6;max-width:60em;"
    "overflow-wrap:break-word"
)
_BAR = "display:flex;gap:1px;height:14px;margin:4px 0;background:#8883;border-radius:3px;overflow:hidden"
_CELL = "padding:3px 14px 3px 0;border:0;background:none;vertical-align:top;line-height:inherit"


class PanelMeter:
    """A live widget in a notebook; plain HTML under the same display id when the run ends.

    Buttons have an output of their own below it, so that the text stays when they go. A page that is loaded
    later knows no display ids, only the widget: where there are buttons it tells the end as well, and is
    closed when nobody holds the run any more.

    Parameters
    ----------
    on_cancel, on_retry : callable, optional
        Add a Cancel button while the run goes on, and a Retry button when it has ended with rows that may yet
        succeed; they call these. Only useful where the cell is not blocked.
    """

    def __init__(
        self, *, on_cancel: Callable[[], None] | None = None, on_retry: Callable[[], None] | None = None
    ) -> None:
        self._on_cancel, self._on_retry = on_cancel, on_retry
        self._panel, self._buttons = _Output(), _Output()
        self._is_live = False
        self._body: Any = None
        self._box: Any = None

    def show(self, snapshot: Snapshot) -> None:
        """Draw; the first snapshot opens the panel, one that has ended closes it."""
        drawn, said = as_html(snapshot), {"text/plain": str(snapshot)}
        if self._is_live and not snapshot.ended:
            self._body.value = drawn
            return
        if snapshot.ended:
            self._panel.put(said | {"text/html": drawn})
            self._end(drawn)
        else:
            self._begin(drawn)
            self._panel.put(said, self._body)
        self._is_live = not snapshot.ended
        self._put_button(snapshot)

    def _begin(self, drawn: str) -> None:
        if self._body is not None:
            self._body.value = drawn
            return
        import ipywidgets

        self._body = ipywidgets.HTML(drawn)
        weakref.finalize(self, _close, self._body).atexit = False

    def _end(self, drawn: str) -> None:
        if self._body is None:
            return
        if self._on_cancel is not None:
            self._body.value = drawn + _LOADED_LATER
            return
        _close(self._body)
        self._body = None

    def _put_button(self, snapshot: Snapshot) -> None:
        n_left = sum(snapshot.counts.get(state, 0) for state in ("failed", "canceled", "pending"))
        if not snapshot.ended and self._on_cancel is not None:
            tip = "Stop new work; submitted jobs stay resumable"
            self._put_in_box(_button("Cancel", tip, self._on_cancel))
        elif snapshot.ended and n_left and self._on_retry is not None:
            tip = f"Work again on {n_left} rows; finished rows stay"
            self._put_in_box(_button("Retry failed", tip, self._on_retry))
        elif self._box is not None:
            self._buttons.put({"text/plain": "run.result() gives the frame."})
            _close(self._box)
            self._box = None

    def _put_in_box(self, button: Any) -> None:
        """One box for all buttons: JupyterLab hides an output whose widget is closed, whatever follows it."""
        import ipywidgets

        if self._box is None:
            self._box = ipywidgets.HBox([button])
            said = "run.cancel() stops it; run.retry() works again on what failed."
            self._buttons.put({"text/plain": said}, self._box)
            return
        before, self._box.children = self._box.children, (button,)
        for old in before:
            _close(old)


class StillMeter:
    """Plain HTML all along, for programs that run notebooks: they would save the state of closed widgets."""

    def __init__(self) -> None:
        self._panel = _Output()

    def show(self, snapshot: Snapshot) -> None:
        """Draw anew under the same display id."""
        self._panel.put({"text/plain": str(snapshot), "text/html": as_html(snapshot)})


class _Output:
    """One output of a cell, which holds a widget or plain text by turns."""

    def __init__(self) -> None:
        self._handle: Any = None

    def put(self, bundle: dict[str, Any], widget: Any = None) -> None:
        """Show a bundle; front ends without widgets show its text in the widget's place."""
        from IPython.display import display

        if widget is not None:
            view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
            bundle = {**bundle, "application/vnd.jupyter.widget-view+json": view}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def _button(name: str, tip: str, on_click: Callable[[], None]) -> Any:
    import ipywidgets

    button = ipywidgets.Button(description=name, tooltip=tip)

    def click(_: object) -> None:
        button.disabled = True
        on_click()

    button.on_click(click)
    return button


def _close(widget: Any) -> None:
    """Close a widget with its parts: ipywidgets leaves layouts and styles in the kernel otherwise."""
    parts = [*getattr(widget, "children", ()), widget.layout, getattr(widget, "style", None)]
    widget.close()
    for part in parts:
        if part is not None:
            _close(part) if hasattr(part, "layout") else part.close()


def as_html(snapshot: Snapshot) -> str:
    """The panel as self-contained HTML: bar, counts, time, where the audio goes, problems.

    It says everything in words as well, since some places keep neither styles nor colours.
    """
    parts = snapshot.parts
    bar = "".join(
        f'<span title="{n} {state}" style="flex:{n} {n} 0;min-width:3px;{_fill(state)}"></span>'
        for state, n in parts.items()
    )
    legend = [
        f'<span style="white-space:nowrap"><span style="display:inline-block;width:.7em;height:.7em;'
        f'border-radius:2px;{_fill(state)}"></span> {n} {state}</span>'
        for state, n in parts.items()
    ]
    head = f"{snapshot.title}: {snapshot.done} of {snapshot.n_rows} rows"
    return (
        f'<div style="{_TEXT}">'
        f"<div><b>{html.escape(head)}</b>, {_pace(snapshot)}</div>"
        f'<div role="progressbar" aria-valuemin="0" aria-valuemax="{snapshot.n_rows}" '
        f'aria-valuenow="{snapshot.done}" aria-label="{html.escape(head)}" '
        f'style="{_BAR}">{bar}</div>'
        f"<div>{' &middot; '.join([*legend, *map(html.escape, snapshot.asides)])}</div>"
        f"{_limits(snapshot)}"
        f'<div style="opacity:.8">{html.escape(snapshot.destination)}</div>'
        f"{_stopped(snapshot)}{_problems(snapshot)}</div>"
    )


def _fill(state: str) -> str:
    stripes = "repeating-linear-gradient(135deg,#fff6 0 2px,#fff0 2px 6px) " if state in _STRIPED else ""
    return f"background:{stripes}{_COLOURS[state]}"


def _pace(snapshot: Snapshot) -> str:
    if snapshot.ended:
        return snapshot.time_text
    return f"{snapshot.rows_per_s:.1f} rows/s, {snapshot.time_text}"


def _limits(snapshot: Snapshot) -> str:
    """What is used of the service's limits; only while it matters."""
    if snapshot.ended or not snapshot.limits:
        return ""
    used = [f"{n} of {most} {_GROUPS[group]}" for group, (n, most) in snapshot.limits.items()]
    return f'<div style="opacity:.8">This minute: {", ".join(used)}</div>'


def _stopped(snapshot: Snapshot) -> str:
    return f"<div><b>Stopped:</b> {html.escape(snapshot.stopped_by)}</div>" if snapshot.stopped_by else ""


def _problems(snapshot: Snapshot) -> str:
    if not snapshot.problems:
        return ""
    rows = "".join(
        f'<tr style="background:none"><td style="{_CELL};text-align:right">{n}</td>'
        f'<td style="{_CELL};text-align:left;white-space:nowrap"><code>{html.escape(code)}</code></td>'
        f'<td style="{_CELL};text-align:left;overflow-wrap:anywhere">{html.escape(example)}</td></tr>'
        for code, n, example in snapshot.problems[:_MOST_PROBLEMS]
    )
    if (n_more := len(snapshot.problems) - _MOST_PROBLEMS) > 0:
        more = f'<td colspan="2" style="{_CELL};text-align:left">and {n_more} more</td>'
        rows += f'<tr style="background:none"><td></td>{more}</tr>'
    heads = "".join(
        f'<th scope="col" style="{_CELL};text-align:{side};white-space:nowrap">{name}</th>'
        for name, side in (("rows", "right"), ("reason", "left"), ("example", "left"))
    )
    return (
        '<table style="margin:6px 0;border-collapse:collapse;font-size:inherit">'
        f'<thead style="border-bottom:1px solid #8888"><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    )
