"""The vendor's own SDK against a served instance: nothing but its address is changed."""

from __future__ import annotations

import csv
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyannoteai.sdk import Client
from pyannoteai.sdk.client import PyannoteAIFailedJob
from requests.exceptions import HTTPError

import voiceprint_nb as vp
from tests.served import DEADLINE_S, Served, serving
from voiceprint_nb.contract import TERMINAL_STATUSES, decode_voiceprint

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
GOOD = sorted(
    Path(row["audio"]).name
    for row in csv.DictReader((SAMPLES / "manifest.csv").read_text().splitlines())
    if row["note"].partition(" ")[0] in ("", "duplicate")
)
CODECS = {"m4a": "aac", "webm": "libopus"}  # formats that need ffmpeg, and are made by it here


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("sdk") / "data", "--reads-per-minute", "0") as served:
        yield served


def connected(served: Served, key: str) -> Client:
    class Local(Client):
        API_URL = f"{served.base_url}/v1"

    return Local(token=key)


@pytest.fixture(scope="module")
def client(served: Served) -> Client:
    return connected(served, served.key)


def submitted(client: Client, path: Path) -> str:
    """Id of a job on an uploaded clip, once the job has ended: the SDK itself would poll without end."""
    with pytest.warns(UserWarning, match="temporary storage"):
        media_url = client.upload(path)
    job_id: str = client.voiceprint(media_url)
    deadline_s = time.monotonic() + DEADLINE_S
    while client._authenticated_get(f"/jobs/{job_id}").json()["status"] not in TERMINAL_STATUSES:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    return job_id


def voiceprint(client: Client, path: Path) -> str:
    job_id = submitted(client, path)
    with pytest.warns(UserWarning, match="periodic polling"):
        job: dict[str, Any] = client.retrieve(job_id)
    assert job["jobId"] == job_id
    assert job["status"] == "succeeded"
    return str(job["output"]["voiceprint"])


def made_here(path: Path) -> str:
    return vp.voiceprint(path, service="local", ledger=False).text


def test_samples_cover_the_formats() -> None:
    assert {Path(name).suffix for name in GOOD} == {".wav", ".flac", ".mp3", ".ogg", ".opus"}


@pytest.mark.parametrize("name", GOOD)
def test_upload_voiceprint_retrieve(client: Client, name: str) -> None:
    told = voiceprint(client, SAMPLES / name)
    assert decode_voiceprint(told) == decode_voiceprint(made_here(SAMPLES / name))


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("kind", CODECS)
def test_formats_that_need_ffmpeg(client: Client, tmp_path: Path, kind: str) -> None:
    source, clip = SAMPLES / "ada-1.wav", tmp_path / f"clip.{kind}"
    subprocess.run(["ffmpeg", "-v", "error", "-i", source, "-c:a", CODECS[kind], clip], check=True)
    assert decode_voiceprint(voiceprint(client, clip)) == decode_voiceprint(made_here(clip))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("not-audio.wav", "Could not load audio"),
        ("empty.wav", "Could not load audio"),
        ("silent.flac", "No speech found"),
        ("ben-long.opus", "the limit is 30 s"),
    ],
)
def test_failed_jobs_say_why(client: Client, name: str, message: str) -> None:
    job_id = submitted(client, SAMPLES / name)
    with pytest.raises(PyannoteAIFailedJob) as failed:
        client.retrieve(job_id)
    assert message in failed.value.args[0]
    assert failed.value.args[1] == job_id


def test_wrong_key(served: Served) -> None:
    with pytest.raises(HTTPError, match="Failed to authenticate"):
        connected(served, f"{served.key}x")
