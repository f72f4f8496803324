from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import soundfile

import voiceprint_nb as vp
from voiceprint_nb import audio
from voiceprint_nb.batch.store import Ledger
from voiceprint_nb.client import jobs
from voiceprint_nb.contract import VoiceprintRequest
from voiceprint_nb.errors import RequestRefused
from voiceprint_nb.notebook.services import connect
from voiceprint_nb.service.local import LocalService
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


def test_what_the_local_service_refuses_goes_by_its_wire(tmp_path: Path) -> None:
    async def refusal(request: VoiceprintRequest) -> str:
        with Ledger(tmp_path) as ledger:
            service = connect(Settings("local"), ledger)
            assert service.accept is not None
            assert service.accept(request) is None
            async with service.open_api() as api:
                with pytest.raises(RequestRefused) as refused:
                    await jobs.submit(api, request)
        return str(refused.value)

    assert "url" in asyncio.run(refusal(VoiceprintRequest("ftp://example.org/a.wav")))
    assert "model" in asyncio.run(refusal(VoiceprintRequest("media://a", model="no-such-model")))


def test_jobs_of_the_local_service_need_no_requests(tmp_path: Path) -> None:
    clips = [str(path) for path in sorted((ROOT / "data" / "samples").glob("ada-*.wav"))]
    out = vp.voiceprints(clips, service="local", data_dir=tmp_path, progress=False)
    assert (out.vp_status == "succeeded").all()
    requests = out.attrs["voiceprint_nb"]["requests"]
    assert requests["submit"] == requests["read"] == requests["list"] == 0


def test_each_file_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, rate_hz = soundfile.read(ROOT / "data" / "samples" / "ada-1.wav", dtype="float32")
    clips = [tmp_path / name for name in ("a.flac", "b.mp3", "same-as-a.flac", "silent.flac")]
    for clip in clips:
        soundfile.write(clip, samples * (clip.stem != "silent"), rate_hz)
    opened = Counter[str]()
    really_open = audio._open_raw

    def open_raw(path: Path) -> IO[bytes]:
        opened[path.name] += 1
        return really_open(path)

    monkeypatch.setattr(audio, "_open_raw", open_raw)
    out = vp.voiceprints(clips, service="local", data_dir=tmp_path / "kept", progress=False)
    assert list(out.vp_error_code.fillna("")) == ["", "", "", "silent"]
    assert (opened["a.flac"], opened["b.mp3"]) == (1, 1)
    assert out["voiceprint"][0] == out["voiceprint"][2]
    with Ledger(tmp_path / "kept") as ledger:
        decoded = connect(Settings("local"), ledger).decoded
    assert decoded is not None
    assert decoded._kept == {}  # whoever took them, or not: a row that has ended leaves none


def test_files_whose_prints_are_known_are_not_decoded_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, rate_hz = soundfile.read(ROOT / "data" / "samples" / "ada-1.wav", dtype="float32")
    clips = [tmp_path / f"{number:03d}.flac" for number in range(2)]
    for number, clip in enumerate(clips):
        soundfile.write(clip, np.roll(samples, number), rate_hz)
    vp.voiceprints(clips, service="local", data_dir=tmp_path, progress=False)
    read = Counter[str]()
    really = audio._whole_and_heard

    def whole(file: Any) -> Any:
        read["whole"] += 1
        return really(file)

    monkeypatch.setattr(audio, "_whole_and_heard", whole)
    monkeypatch.setattr(LocalService, "in_flight", 4)  # 6 rows at once, however many processors there are
    out = vp.voiceprints(clips * 20, service="local", data_dir=tmp_path, progress=False)
    assert (out.vp_source == "reused").all()
    assert read["whole"] <= 6  # those that were on their way when the first was known
