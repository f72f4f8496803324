"""A table as HTML: plain, or sorted and filtered by itables."""

from __future__ import annotations

import html
import importlib.util
import re
import sys
from typing import TYPE_CHECKING, Any

import pandas as pd

from voiceprint_nb.errors import MissingExtra
from voiceprint_nb.notebook.shown import shown

if TYPE_CHECKING:
    from voiceprint_nb.notebook.columns import Column
    from voiceprint_nb.notebook.players import Shelf

MOST_PLAIN_ROWS = 10
"""So many rows are taken in at a glance; only more of them are worth a megabyte of itables' code."""

_SIGNS = {  # beside the word, never in its place; colours hold 3:1 against white and against dark grey
    "succeeded": ("&#10003;", "#00875f"),
    "ok": ("&#10003;", "#00875f"),
    "invalid": ("&#10005;", "#b87700"),
    "failed": ("&#10005;", "#d55e00"),
    "canceled": ("&#8856;", "#808080"),
    "pending": ("&#8230;", "#b8659a"),
}
# itables puts its first rows in twice: as data, where quotes are escaped, and as a preview without script.
_PREVIEWED_PLAYER = re.compile('<audio controls="controls"[^>]*></audio>')
# Lines and greys are shares of the text's own colour, so that light and dark themes both fit.
_STYLE = """<style>
.vp-table{max-width:100%;overflow-x:auto;--dt-html-background:transparent}
.vp-table.vp-table table{border-collapse:collapse;margin:0}
.vp-table.vp-table caption{caption-side:top;text-align:left;font-weight:bold;padding:4px 0;color:inherit}
.vp-table.vp-table.vp-table :is(th,td){text-align:left;vertical-align:top;padding:6px 16px 6px 4px;
 border:0;border-bottom:1px solid #8885;white-space:normal;max-width:30em;overflow-wrap:break-word}
.vp-table.vp-table.vp-table thead th{vertical-align:bottom;border-bottom:1px solid #888a;white-space:nowrap}
.vp-table.vp-table.vp-table tbody th{font-weight:normal;opacity:.8}
.vp-table.vp-table.vp-table .vp-number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.vp-table.vp-table.vp-table .vp-status{white-space:nowrap}
.vp-table.vp-table.vp-table .vp-reason{min-width:16em}
.vp-table audio{display:block;width:190px;height:32px}
.vp-table .vp-note,.vp-table .vp-name,.vp-table p{font-size:90%;opacity:.85;margin:2px 0}
.vp-table p{margin:6px 4px}
.vp-table.vp-table.vp-table :is(.dt-paging-button,.dt-input){color:inherit!important;background:none;
 border:1px solid #888a}
</style>"""


def draw(
    columns: list[Column], shelf: Shelf, *, summary: str, notes: list[str], interactive: bool | None
) -> str:
    """The whole output of a cell.

    Raises
    ------
    MissingExtra
        ``interactive=True`` without itables.
    """
    there = importlib.util.find_spec("itables") is not None
    if interactive and not there:
        raise MissingExtra("Sorting and filtering needs itables: pip install 'voiceprint_nb[tables]'.")
    cells = [_cells(column, shelf) for column in columns]
    table = ""
    if len(cells[0]) and (interactive or (interactive is None and there and len(cells[0]) > MOST_PLAIN_ROWS)):
        try:
            table = _by_itables(columns, cells, summary)
        except Exception as error:  # another version of itables may know other options
            notes = [*notes, f"Sorting and filtering is off: itables says {type(error).__name__}."]
    table = table or _plain(columns, cells, summary)
    said = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    place = 'class="vp-table" role="region" aria-label="Table of rows" tabindex="0"'
    return f"{_STYLE}<div {place}>{table}{said}</div>"


def _plain(columns: list[Column], cells: list[list[str]], summary: str) -> str:
    heads = "".join(f'<th scope="col"{_class(column)}>{html.escape(column.head)}</th>' for column in columns)
    rows = "".join(f"<tr>{''.join(map(_plain_cell, columns, row))}</tr>" for row in zip(*cells, strict=True))
    caption = f"<caption>{html.escape(summary)}</caption>"
    return f"<table>{caption}<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _plain_cell(column: Column, cell: str) -> str:
    if column.kind == "label":
        return f'<th scope="row">{cell}</th>'
    return f"<td{_class(column)}>{cell}</td>"


def _class(column: Column) -> str:
    return f' class="vp-{column.kind}"' if column.kind in ("number", "status", "reason") else ""


def _cells(column: Column, shelf: Shelf) -> list[str]:
    """The cells with markup; everything that comes from the user is escaped here."""
    if column.kind == "audio":
        return [_audio(cell, shelf) for cell in column.cells]
    if column.kind == "status":
        return [_status(cell) for cell in column.cells]
    if column.kind == "reason":
        return [
            f"<code>{html.escape(code)}</code> {html.escape(said)}" if code else html.escape(said)
            for code, said in column.cells
        ]
    return [html.escape(text) for text in column.texts]


def _audio(cell: object, shelf: Shelf) -> str:
    name = shown(cell, most=60)
    return f'{shelf.player(cell).as_html(name)}<div class="vp-name">{html.escape(name)}</div>'


def _status(status: str) -> str:
    sign, colour = _SIGNS.get(status, ("&#8226;", "#808080"))
    return f'<span aria-hidden="true" style="color:{colour}">{sign}</span> {html.escape(status)}'


def _by_itables(columns: list[Column], cells: list[list[str]], summary: str) -> str:
    """The table with itables' own code, offline: everything in it is escaped before it gets there."""
    import itables
    from itables import javascript, options

    heads: dict[str, None] = {}
    for column in columns:
        head = html.escape(column.head)
        while head in heads:
            head += " "
        heads[head] = None
    frame = pd.DataFrame(dict(zip(heads, cells, strict=True)), dtype=object)
    defs: list[dict[str, Any]] = [
        {"targets": at, "className": f"vp-{column.kind}", **_traits(column)}
        for at, column in enumerate(columns)
    ]
    table = itables.to_html_datatable(
        frame,
        html.escape(summary),
        connected=False,
        allow_html=True,
        showIndex=False,
        maxBytes=0,
        maxColumns=0,
        classes="display compact",
        style="caption-side:top;width:auto;margin:0",
        columnDefs=defs,
        autoWidth=False,
        display_logo_when_loading=False,
    )
    # Outputs are pages of their own in Colab; elsewhere one copy of the code serves the whole notebook.
    is_there = not getattr(javascript, "_CONNECTED", True) and "google.colab" not in sys.modules
    code = "" if is_there else str(javascript.generate_init_offline_itables_html(options.dt_bundle))
    return code + _PREVIEWED_PLAYER.sub("", str(table))


def _traits(column: Column) -> dict[str, Any]:
    if column.kind == "label":
        return {"cellType": "th"}
    return {"orderable": False} if column.kind == "audio" else {}
