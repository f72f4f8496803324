"""A document of headings, paragraphs, tables and pictures, as one HTML file or as Markdown."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

_STYLE = """
:root{color-scheme:light}
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;
background:#fff}
h1{font-size:1.9rem;line-height:1.2}h2{margin-top:2.2rem;border-bottom:1px solid #ccc}
.scroll{overflow-x:auto}.wide{margin-inline:min(0px,33rem - 50vw)}
table{border-collapse:collapse;margin:.6rem 0;font-size:.92rem}
table:has(th:nth-child(3)){width:max-content}
caption{text-align:left;font-weight:600;padding:.3rem 0}
th,td{text-align:left;vertical-align:top;padding:.25rem .8rem .25rem 0;border-bottom:1px solid #ddd;
max-width:min(24rem,60vw);overflow-wrap:break-word}thead th{border-bottom:1px solid #666}
figure{margin:1rem 0}figure img{max-width:100%;height:auto}figcaption{font-size:.92rem;color:#444}
summary{cursor:pointer;padding:.3rem 0}
@media screen and (max-width:40rem){figure img{max-width:none;width:30rem}}
@page wide{size:landscape}
@media print{details::details-content{content-visibility:visible;display:block}
@supports not selector(::details-content){details:not([open]) summary:after{content:" (open to print)"}}
body{margin:0;max-width:none}h2{break-after:avoid}figure,tr,.short{break-inside:avoid}
figure img{max-height:85vh}.scroll{overflow:visible}table:has(th){max-width:100%}th,td{max-width:none}
.wide,h2:has(+p+.wide),h2:has(+p+.wide)+p,h2:has(+p+details .wide),h2:has(+p+details .wide)+p{page:wide;
margin-inline:0}details:has(.wide){page:wide}
.wide table{width:100%;font-size:min(.62rem,12.5rem/var(--columns))}
.wide th,.wide td{padding-right:.3rem;min-width:var(--least)}}
"""
_COLUMN = (  # a class of the table for each column that is not plain text: marks on every cell are megabytes
    ".n{0} tr>:nth-child({0}){{text-align:right}}"
    ".l{0} tr>:nth-child({0}){{overflow-wrap:anywhere;--least:8em}}\n"
)
_MOST_NARROW = 8  # columns of a table that fits a page upright
_MOST_SHORT = 12  # rows of a table that is kept on one page
_MOST_UNBROKEN = 16  # characters of a word that stays whole
_ACTIVE = re.compile(
    r"""[\\`*_{}\[\]<>#$~^@&|"'!]"""
    r"|(?<=-)-|-(?=-)|(?<=\.)\.|\.(?=\.)"  # dashes and an ellipsis
    r"|:(?![\s\d]|$)|(?<=www)\."  # links, emoji, fenced divisions
    r"|^[-+:=%](?=\s|$)"
)
_NUMBER = re.compile(r"-?\d[\d,]*(\.\d*)?(e[-+]\d+)?%?")
_LIST = re.compile(r"^(\(?\w+)([.)])(?=\s|$)")  # 1. or a) or (iv): the beginning of a list


@dataclass(frozen=True)
class Heading:
    """A title of a part; level 1 is the document's own."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Plain words."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of cells; a long one is folded into pages of so many rows."""

    caption: str
    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    page: int = 0


@dataclass(frozen=True)
class Figure:
    """A picture, what it shows in words, and for those who cannot see it."""

    png: bytes = field(repr=False)
    caption: str
    alt: str


Block = Heading | Paragraph | Table | Figure


def as_html(title: str, blocks: Sequence[Block]) -> str:
    """One file that needs no other: no script, no font, no address."""
    body = "\n".join(map(_html, blocks))
    most = max((len(block.names) for block in blocks if isinstance(block, Table)), default=0)
    style = _STYLE + "".join(_COLUMN.format(number) for number in range(1, most + 1))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def as_markdown(title: str, blocks: Sequence[Block]) -> str:
    """Markdown with a title block for Quarto; pictures are data in the text."""
    head = f"---\ntitle: {_quoted(title)}\nformat: html\n---\n\n"
    return head + "\n\n".join(_markdown(block) for block in blocks if not _is_title(block)) + "\n"


def _is_title(block: Block) -> bool:
    return isinstance(block, Heading) and block.level == 1


# --- HTML -----------------------------------------------------------------------------------------------


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        return f"<p>{html.escape(block.text)}</p>"
    if isinstance(block, Figure):
        data = base64.b64encode(block.png).decode()
        image = f'<img src="data:image/png;base64,{data}" alt="{html.escape(block.alt)}">'
        caption = html.escape(block.caption)
        scroll = f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}">{image}</div>'
        return f"<figure>{scroll}<figcaption>{caption}</figcaption></figure>"
    marks = _marks(block)
    if not block.page or len(block.rows) <= block.page:
        return _html_table(block.caption, block.names, block.rows, marks)
    pages = []
    for begin in range(0, len(block.rows), block.page):
        rows = block.rows[begin : begin + block.page]
        name = f"{block.caption}: {begin + 1} to {begin + len(rows)}"
        table = _html_table(name, block.names, rows, marks)
        is_open = "" if begin else " open"
        pages.append(f"<details{is_open}><summary>{html.escape(name)}</summary>{table}</details>")
    return "\n".join(pages)


def _html_table(caption: str, names: Sequence[str], rows: Sequence[Sequence[str]], marks: str) -> str:
    head = "".join(f'<th scope="col">{_breakable(name)}</th>' for name in names)
    kind = "scroll" + " wide" * (len(names) > _MOST_NARROW) + " short" * (len(rows) <= _MOST_SHORT)
    return (
        f'<div class="{kind}" style="--columns:{len(names)}" tabindex="0" role="region" '
        f'aria-label="{html.escape(caption)}"><table class="{marks}">'
        f"<caption>{html.escape(caption)}</caption><thead><tr>{head}</tr></thead>\n"
        f"<tbody>{''.join(map(_html_row, rows))}</tbody></table></div>"
    )


def _html_row(cells: Sequence[str]) -> str:
    return f"<tr><td>{'<td>'.join(map(_breakable, cells))}\n"  # HTML needs no end tags here


def _marks(table: Table) -> str:
    """Classes that say which columns hold numbers (n), and which words too long for a line (l)."""
    columns = enumerate(zip(*table.rows, strict=True), start=1)
    return " ".join(f"{mark}{number}" for number, cells in columns if (mark := _mark(cells)))


def _mark(cells: Sequence[str]) -> str:
    if all(map(_is_number, cells)):
        return "n"
    is_long = any(len(word) > _MOST_UNBROKEN for cell in cells for word in re.split(r"[\s/_-]", cell))
    return "l" if is_long else ""


def _breakable(text: str) -> str:
    """Escaped text whose long words, such as paths, may go on in another line."""
    words = re.split(r"(\s+)", html.escape(text))
    return "".join(
        re.sub(r"(?<=[^_/][_/])(?=[^_/])", "<wbr>", word) if len(word) > _MOST_UNBROKEN else word
        for word in words
    )


def _is_number(text: str) -> bool:
    return not text or _NUMBER.fullmatch(text) is not None


# --- Markdown -------------------------------------------------------------------------------------------


def _markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {_plain(block.text)}"
    if isinstance(block, Paragraph):
        return _plain(block.text)
    if isinstance(block, Figure):
        data = base64.b64encode(block.png).decode()
        return f"![{_plain(block.caption)}](data:image/png;base64,{data}){{fig-alt={_quoted(block.alt)}}}"
    line = "|" + " --- |" * len(block.names) + "\n"
    body = _markdown_row(block.names) + line + "".join(map(_markdown_row, block.rows))
    return f"{body}\n: {_plain(block.caption)}"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_plain, cells))} |\n"


def _plain(text: str) -> str:
    """Text in which no character means anything to Markdown or HTML, here or at the beginning of a line."""
    text = _ACTIVE.sub(r"\\\g<0>", " ".join(text.split()))
    return _LIST.sub(r"\1\\\2", text)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@dataclass(frozen=True)
class Format:
    """A way to write a document, and a row of its tables alone, so that its size can be told."""

    write: Callable[[str, Sequence[Block]], str]
    row: Callable[[Sequence[str]], str]


FORMATS = {".html": Format(as_html, _html_row), ".md": Format(as_markdown, _markdown_row)}
