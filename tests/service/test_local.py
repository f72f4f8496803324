from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from voiceprint_nb.engine.model import Model
from voiceprint_nb.errors import UsageError
from voiceprint_nb.service.local import LocalService


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


async def voiceprint(service: LocalService, data: bytes) -> Any:
    async with httpx.AsyncClient(transport=service.transport(), base_url=service.base_url) as client:
        ticket = (await client.post("/v1/media/input", json={"url": "media://a"})).json()["url"]
        assert ticket.startswith(service.base_url)
        await client.put(ticket, content=data)
        job_id = (await client.post("/v1/voiceprint", json={"url": "media://a"})).json()["jobId"]
        async with asyncio.timeout(30):
            while (job := (await client.get(f"/v1/jobs/{job_id}")).json())["status"] != "succeeded":
                assert job["status"] != "failed", job
                await asyncio.sleep(0.005)
        return job["output"]["voiceprint"]


def test_same_service_from_several_event_loops(temporary: Path, clip: Any) -> None:
    data = clip().read_bytes()
    with LocalService(threads=1) as service:
        assert asyncio.run(voiceprint(service, data)) == asyncio.run(voiceprint(service, data))


def test_recipes_are_different_services(temporary: Path, clip: Any) -> None:
    data = clip(duration_s=2.0).read_bytes()
    with (
        LocalService(threads=1) as robust,
        LocalService(model=Model.named("compatible"), threads=1) as compatible,
    ):
        assert robust.identity.startswith("local:")
        assert robust.identity != compatible.identity
        assert asyncio.run(voiceprint(robust, data)) != asyncio.run(voiceprint(compatible, data))


def test_unknown_recipe(temporary: Path) -> None:
    with pytest.raises(UsageError):
        LocalService(model=Model.named("magic"))
    assert not list(temporary.iterdir())


def test_temporary_folder_is_private_and_goes_with_the_service(temporary: Path, clip: Any) -> None:
    data = clip().read_bytes()
    before, threads = set(temporary.iterdir()), set(threading.enumerate())
    service = LocalService(threads=1)
    (folder,) = set(temporary.iterdir()) - before
    assert folder.stat().st_mode & 0o777 == 0o700
    asyncio.run(voiceprint(service, data))
    service.close()
    service.close()
    assert set(temporary.iterdir()) == before
    assert set(threading.enumerate()) <= threads


def test_collected_service_closes_but_not_under_a_transport(temporary: Path) -> None:
    service = LocalService(threads=1)
    transports = [service.transport()]
    base_url = service.base_url

    async def status() -> int:
        async with httpx.AsyncClient(transport=transports[0], base_url=base_url) as client:
            return (await client.get("/v2/jobs")).status_code

    del service
    gc.collect()
    assert asyncio.run(status()) == 200
    transports.clear()
    gc.collect()
    assert not list(temporary.iterdir())


def test_kept_folder_serves_another_day(tmp_path: Path, clip: Any) -> None:
    data = clip().read_bytes()
    folder = tmp_path / "kept"
    with LocalService(threads=1, data_dir=folder) as service:
        first = asyncio.run(voiceprint(service, data))
        with pytest.raises(UsageError, match="Another service"):
            LocalService(data_dir=folder)

    async def newest(service: LocalService) -> Any:
        async with httpx.AsyncClient(transport=service.transport(), base_url=service.base_url) as client:
            (item,) = (await client.get("/v2/jobs")).json()["items"]
            return (await client.get(f"/v1/jobs/{item['id']}")).json()["output"]["voiceprint"]

    with LocalService(threads=1, data_dir=folder) as service:
        assert asyncio.run(newest(service)) == first
    assert folder.stat().st_mode & 0o777 == 0o700


LEFT_OPEN = """
import asyncio, sys, tempfile
from voiceprint_nb.service.local import LocalService

service = LocalService()
assert "onnxruntime" not in sys.modules and "httpx" not in sys.modules
print(tempfile.gettempdir())
"""


def test_process_that_forgets_to_close_leaves_nothing(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", LEFT_OPEN],
        env={"TMPDIR": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.strip() == str(tmp_path)
    assert not list(tmp_path.iterdir())
