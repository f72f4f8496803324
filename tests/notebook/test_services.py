from __future__ import annotations

from pathlib import Path

import pytest

from voiceprint_nb.batch.store import Ledger
from voiceprint_nb.notebook.services import connect
from voiceprint_nb.settings import HOSTED_URL, Settings


def first_turns(*runs: tuple[str, Path | None]) -> list[float]:
    """Seconds until each run's first submission may leave, asked in turn."""
    left_s = []
    for key, folder in runs:
        with Ledger(folder) as ledger:
            pacer = connect(Settings(HOSTED_URL, key), ledger).open_api().submit_pacer
            left_s.append(pacer._take())
    return left_s


@pytest.mark.parametrize("kept", [True, False])
def test_runs_of_one_key_share_the_pace_and_others_do_not(tmp_path: Path, kept: bool) -> None:
    folder, key = tmp_path if kept else None, f"key-{kept}"
    first, second, other = first_turns((key, folder), (key, folder), ("another", folder))
    assert (first, other) == (0.0, 0.0)
    assert 0.0 < second <= 0.61
