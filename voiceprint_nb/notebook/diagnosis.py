"""What `doctor` found, as values, text and HTML."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Literal

from voiceprint_nb.display import Bundled

Level = Literal["ok", "note", "wrong"]

_SIGNS = {"ok": "&#10003;", "note": "&#8505;", "wrong": "&#10005;"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: how it is, and in a sentence what to do if it is not well.

    Attributes
    ----------
    level : {"ok", "note", "wrong"}
        ``note``: something does less than it could; ``wrong``: something will fail.
    topic, text : str
        What was looked at, and what was seen.
    """

    level: Level
    topic: str
    text: str


@dataclass(frozen=True, repr=False)
class Report(Bundled):
    """What `doctor` returns: text in terminals, a table in notebooks.

    Attributes
    ----------
    findings : tuple of Finding
        In the order in which they are shown.
    """

    findings: tuple[Finding, ...]

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong."""
        return not any(finding.level == "wrong" for finding in self.findings)

    @property
    def summary(self) -> str:
        """One sentence for the whole report."""
        wrong = [finding.topic for finding in self.findings if finding.level == "wrong"]
        return f"Look at: {', '.join(wrong)}." if wrong else "Nothing is wrong."

    def __repr__(self) -> str:
        wide = max((len(finding.topic) for finding in self.findings), default=0)
        lines = [f"{one.level:<6} {one.topic:<{wide}}  {one.text}" for one in self.findings]
        return "\n".join([*lines, self.summary])

    def _repr_html_(self) -> str:
        cell = "text-align:left;vertical-align:top;padding:3px 12px 3px 0"
        rows = "".join(
            f'<tr><td style="{cell};white-space:nowrap"><span aria-hidden="true">{_SIGNS[one.level]}</span> '
            f'{one.level}</td><th scope="row" style="{cell};white-space:nowrap">{html.escape(one.topic)}</th>'
            f'<td style="{cell}">{html.escape(one.text)}</td></tr>'
            for one in self.findings
        )
        heads = "".join(f'<th scope="col" style="{cell}">{head}</th>' for head in ("", "what", "how it is"))
        return (
            f'<div style="overflow-x:auto"><table><caption style="caption-side:top;text-align:left;'
            f'color:inherit"><b>{html.escape(self.summary)}</b></caption><thead><tr>{heads}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )
