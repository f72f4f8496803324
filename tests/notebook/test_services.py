from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import voiceprint_nb as vp
from voiceprint_nb.batch.store import Ledger
from voiceprint_nb.contract import VoiceprintRequest
from voiceprint_nb.errors import RequestRefused
from voiceprint_nb.notebook.services import connect
from voiceprint_nb.settings import HOSTED_URL, Settings

ROOT = Path(__file__).parents[2]


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


def test_the_local_service_refuses_as_by_its_wire(tmp_path: Path) -> None:
    async def refusal(request: VoiceprintRequest) -> str:
        with Ledger(tmp_path) as ledger:
            service = connect(Settings("local"), ledger)
            claims: list[str] = []
            async with service.open_api() as api:
                with pytest.raises(RequestRefused) as refused:
                    await service.submit(api, request, before=lambda: claims.append("claimed"))
        assert claims  # before the first try
        return str(refused.value)

    assert "url" in asyncio.run(refusal(VoiceprintRequest("ftp://example.org/a.wav")))
    assert "model" in asyncio.run(refusal(VoiceprintRequest("media://a", model="no-such-model")))


def test_jobs_of_the_local_service_need_no_requests(tmp_path: Path) -> None:
    clips = [str(path) for path in sorted((ROOT / "data" / "samples").glob("ada-*.wav"))]
    out = vp.voiceprints(clips, service="local", data_dir=tmp_path, progress=False)
    assert (out.vp_status == "succeeded").all()
    requests = out.attrs["voiceprint_nb"]["requests"]
    assert requests["submit"] == requests["read"] == requests["list"] == 0
