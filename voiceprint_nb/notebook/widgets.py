"""The progress panel: a view over snapshots, without state of its own."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

from voiceprint_nb.batch.progress import END_STATES, LIVE_STATES, Snapshot

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
    "queued": "#8884",
}


class PanelMeter:
    """A live widget in a notebook; plain HTML under the same display id when the run ends.

    Parameters
    ----------
    on_cancel : callable, optional
        Adds a Cancel button that calls it. Only useful where the cell is not blocked.
    """

    def __init__(self, *, on_cancel: Callable[[], None] | None = None) -> None:
        self._on_cancel = on_cancel
        self._handle: Any = None
        self._body: Any = None
        self._box: Any = None
        self._drawn = ""

    def show(self, snapshot: Snapshot) -> None:
        """Draw, if anything has changed."""
        from IPython.display import HTML

        drawn = as_html(snapshot)
        if self._handle is None:
            self._open(drawn)
        elif snapshot.ended:
            self._handle.update(HTML(drawn))
            for widget in (*self._box.children, self._box):
                widget.close()
        elif drawn != self._drawn:
            self._body.value = drawn
        self._drawn = drawn

    def _open(self, drawn: str) -> None:
        import ipywidgets
        from IPython.display import display

        self._body = ipywidgets.HTML(drawn)
        children = [self._body]
        if (on_cancel := self._on_cancel) is not None:
            button = ipywidgets.Button(
                description="Cancel", tooltip="Stop new work; submitted jobs stay resumable"
            )
            button.on_click(lambda _: on_cancel())
            children.append(button)
        self._box = ipywidgets.VBox(children)
        self._handle = display(self._box, display_id=True)


def as_html(snapshot: Snapshot) -> str:
    """The panel as self-contained HTML: bar, counts, time, where the audio goes, problems."""
    counts = snapshot.counts
    parts = [(state, counts[state]) for state in (*END_STATES, *LIVE_STATES[::-1]) if counts.get(state)]
    total = max(1, snapshot.n_rows)
    bar = "".join(
        f'<span title="{n} {state}" style="display:inline-block;height:14px;width:{100 * n / total:.3f}%;'
        f'background:{_COLOURS[state]}"></span>'
        for state, n in parts
    )
    legend = " &middot; ".join(
        f'<span style="white-space:nowrap"><span aria-hidden="true" style="color:{_COLOURS[state]}">&#9632;'
        f"</span> {n} {state}</span>"
        for state, n in parts
    )
    if snapshot.waiting_for_limit:
        legend += f" &middot; {snapshot.waiting_for_limit} waiting for the limit"
    head = f"{snapshot.title}: {snapshot.done} of {snapshot.n_rows} rows"
    return (
        '<div style="font-family:sans-serif;max-width:60em">'
        f"<div><b>{html.escape(head)}</b>, {_time_text(snapshot)}</div>"
        f'<div role="progressbar" aria-valuemin="0" aria-valuemax="{snapshot.n_rows}" '
        f'aria-valuenow="{snapshot.done}" aria-label="{html.escape(head)}" '
        f'style="margin:4px 0;line-height:0;background:#8883;border-radius:3px;overflow:hidden">{bar}</div>'
        f"<div>{legend}</div>"
        f'<div style="opacity:.7">{html.escape(snapshot.destination)}</div>'
        f"{_stopped(snapshot)}{_problems(snapshot)}</div>"
    )


def _time_text(snapshot: Snapshot) -> str:
    if snapshot.ended:
        return f"{snapshot.elapsed_s:.1f} s"
    left = "" if snapshot.left_s is None else f", about {snapshot.left_s:.0f} s left"
    return f"{snapshot.rows_per_s:.1f} rows/s{left}"


def _stopped(snapshot: Snapshot) -> str:
    return f"<div><b>Stopped:</b> {html.escape(snapshot.stopped_by)}</div>" if snapshot.stopped_by else ""


def _problems(snapshot: Snapshot) -> str:
    if not snapshot.problems:
        return ""
    rows = "".join(
        f"<tr><td style='text-align:right'>{n}</td>"
        f"<td style='text-align:left'><code>{html.escape(code)}</code></td>"
        f"<td style='text-align:left'>{html.escape(example)}</td></tr>"
        for code, n, example in snapshot.problems[:8]
    )
    return (
        "<table><thead><tr><th>rows</th><th style='text-align:left'>reason</th>"
        f"<th style='text-align:left'>example</th></tr></thead><tbody>{rows}</tbody></table>"
    )
