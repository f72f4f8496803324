"""Runs that end by webhook: the line that users write, against a served instance."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

import voiceprint_nb as vp
from tests.served import Served, new_key, serving
from voiceprint_nb.service.keys import DEFAULT_TEAM, KeyRing

SAMPLES = sorted((Path(__file__).resolve().parents[2] / "data" / "samples").glob("[a-e]*-[12].*"))[:6]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("receiver") / "data"
    with serving(folder, "--plain-webhooks", "--allow-host", "127.0.0.1") as served:
        yield served


@pytest.fixture
def receiver(served: Served) -> Iterator[vp.Receiver]:
    with closing(KeyRing(served.data_dir / "keys.sqlite3")) as ring:
        secret = ring.webhook_secret(DEFAULT_TEAM)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with closing(vp.Receiver(public_url=f"http://127.0.0.1:{port}", secret=secret, port=port)) as receiver:
        yield receiver


def reads(served: Served) -> int:
    """How many jobs and lists the service was asked for."""
    key = new_key(served.data_dir, "--permission", "metrics:read")
    text = httpx.get(f"{served.base_url}/metrics", headers={"Authorization": f"Bearer {key}"}).text
    return sum(map(int, re.findall(r'requests_total\{operation="/v[12]/jobs.*",status="200"\} (\d+)', text)))


def test_rows_end_by_events_without_asking(served: Served, receiver: vp.Receiver, tmp_path: Path) -> None:
    assert len(SAMPLES) == 6
    before = reads(served)
    out = vp.voiceprints(
        list(SAMPLES),
        service=served.base_url,
        api_key=served.key,
        data_dir=tmp_path,
        progress=False,
        receiver=receiver,
    )
    assert out.vp_status.eq("succeeded").all()
    assert reads(served) == before
    local = vp.voiceprints(list(SAMPLES), service="local", ledger=False, progress=False)
    assert out["voiceprint"].tolist() == local["voiceprint"].tolist()


def test_failed_rows_are_asked_for_their_reason(
    served: Served, receiver: vp.Receiver, tmp_path: Path
) -> None:
    run = vp.submit(
        ["media://never-uploaded"],
        service=served.base_url,
        api_key=served.key,
        data_dir=tmp_path,
        progress=False,
        receiver=receiver,
    )
    out = run.result()
    assert out.vp_error_code.tolist() == ["job_failed"]
    assert "Nothing is stored under this key" in out.vp_error[0]


def test_a_receiver_is_refused_where_no_event_could_come(tmp_path: Path) -> None:
    receiver = vp.Receiver(public_url="http://127.0.0.1:9", secret="whsec_x", port=9)  # noqa: S106 - of nobody
    clip = shutil.copy(SAMPLES[0], tmp_path)
    with pytest.raises(vp.UsageError, match="the local service is in process"):
        vp.voiceprints([clip], service="local", receiver=receiver, data_dir=tmp_path)
    with pytest.raises(vp.UsageError, match="https:// only"):
        vp.voiceprints([clip], service="pyannoteai", api_key="k", receiver=receiver, data_dir=tmp_path)
