"""``df.voiceprint``: the verbs as methods of a DataFrame."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, NoReturn

import pandas as pd

if TYPE_CHECKING:
    from voiceprint_nb.notebook.planning import Plan
    from voiceprint_nb.notebook.runs import Run
    from voiceprint_nb.notebook.tables import Table


@pd.api.extensions.register_dataframe_accessor("voiceprint")
class VoiceprintAccessor:
    """Verbs over this frame; see the functions of the same package for their arguments.

    The column of voiceprints has the same name: it is ``df["voiceprint"]``, never ``df.voiceprint``.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame

    def __repr__(self) -> str:
        return "<df.voiceprint: check, plan, extract, submit, show, compare; the column is df['voiceprint']>"

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"df.voiceprint has no {name!r}: the column of that name is df['voiceprint'].")

    def check(self, column: Hashable | None = None, **options: Any) -> pd.DataFrame:
        """As `voiceprint_nb.check`."""
        from voiceprint_nb.notebook import verbs

        return verbs.check(self._frame, column, **options)

    def plan(self, column: Hashable | None = None, **options: Any) -> Plan:
        """As `voiceprint_nb.plan`."""
        from voiceprint_nb.notebook import planning

        return planning.plan(self._frame, column, **options)

    def extract(self, column: Hashable | None = None, **options: Any) -> pd.DataFrame:
        """As `voiceprint_nb.voiceprints`."""
        from voiceprint_nb.notebook import verbs

        return verbs.voiceprints(self._frame, column, **options)

    def submit(self, column: Hashable | None = None, **options: Any) -> Run:
        """As `voiceprint_nb.submit`."""
        from voiceprint_nb.notebook import verbs

        return verbs.submit(self._frame, column, **options)

    def show(self, column: Hashable | None = None, **options: Any) -> Table:
        """As `voiceprint_nb.show`."""
        from voiceprint_nb.notebook import tables

        return tables.show(self._frame, column, **options)

    def compare(self, label: Hashable | None = None, **options: Any) -> pd.DataFrame:
        """As `voiceprint_nb.compare`."""
        from voiceprint_nb.notebook import comparing

        return comparing.compare(self._frame, label, **options)
