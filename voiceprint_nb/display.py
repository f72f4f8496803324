"""How values show themselves in notebooks."""

from __future__ import annotations

import html
from collections.abc import Iterable


class Bundled:
    """Shows itself in notebooks as text and as HTML, and in no other way."""

    def _repr_html_(self) -> str:
        raise NotImplementedError

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self._repr_html_()}


def facts_table(lines: Iterable[tuple[str, str]]) -> str:
    """A small HTML table of names and what is said of them, in the colours of the page around it."""
    rows = "".join(
        f'<tr><th scope="row" style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(text)}</td></tr>'
        for name, text in lines
    )
    return f"<table><tbody>{rows}</tbody></table>"


class Facts(Bundled):
    """Shows itself as a line for each fact, or as a table of them."""

    def _lines(self) -> list[tuple[str, str]]:
        raise NotImplementedError

    def __str__(self) -> str:
        """A line for each fact."""
        return "\n".join(f"{name}: {text}" for name, text in self._lines())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return facts_table(self._lines())
