"""A run that is killed again and again loses nothing and buys nothing twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import voiceprint_nb as vp
from voiceprint_nb.contract import decode_voiceprint

ROWS, KILLS, SEED = 200, 6, 20261123
KEY = "key-that-nobody-may-find-7f3a91"
DEADLINE_S = 60.0

SERVER = """
import json, os, socket, sys
from pathlib import Path

import uvicorn
from voiceprint_nb.engine.model import Model
from voiceprint_nb.service.app import Policy
from voiceprint_nb.service.assembly import assemble
from voiceprint_nb.service.keys import PERMISSIONS, Caller, OpenDoor

folder, log_path, key = Path(sys.argv[1]), sys.argv[2], sys.argv[3]


class Door(OpenDoor):
    def caller(self, authorization):
        return Caller("default", frozenset(PERMISSIONS)) if authorization == f"Bearer {key}" else None


app, _ = assemble(folder, Policy(Door()), model=Model.packaged())
log = os.open(log_path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)


async def logged(scope, receive, send):
    if scope["type"] != "http" or scope["path"] != "/v1/voiceprint":
        return await app(scope, receive, send)
    body = b""

    async def read():
        nonlocal body
        message = await receive()
        body += message.get("body", b"")
        return message

    async def write(message):
        if message["type"] == "http.response.start" and message["status"] == 200:
            os.write(log, (json.loads(body)["url"] + "\\n").encode())
        await send(message)

    await app(scope, read, write)


listener = socket.create_server(("127.0.0.1", 0))
listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
print(listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(logged, log_level="error", lifespan="off")).run(sockets=[listener])
"""

CLIENT = """
import json, os, sys
from pathlib import Path
import httpx, pandas as pd, soundfile, stamina
import voiceprint_nb as vp
import voiceprint_nb.notebook.runs, voiceprint_nb.notebook.verbs

folder, data_dir, url, answer = sys.argv[1:]
for _ in sys.stdin:  # each line asks for a run in a process of its own; forked, as imports take longest
    if child := os.fork():
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    rows = pd.DataFrame({"audio": sorted(map(str, Path(folder).glob("*.wav")))})
    out = vp.voiceprints(rows, service=url, data_dir=data_dir, progress=False)
    told = {"codes": out["vp_error_code"].tolist(), "prints": out["voiceprint"].tolist()}
    Path(answer).write_text(json.dumps(told, default=lambda missing: None))
    os._exit(0)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    draw = np.random.default_rng(SEED)
    t = np.arange(25_600) / 16_000
    for number in range(ROWS):
        tone = np.sin(2 * np.pi * draw.uniform(90, 300) * t) * draw.uniform(0.5, 1.0)
        samples = 0.2 * tone * (0.6 + 0.4 * np.sin(8 * np.pi * t)) + draw.normal(0, 0.02, len(t))
        soundfile.write(folder / f"{number:03}.wav", samples, 16_000, subtype="PCM_16")
    return folder


class Server:
    def __init__(self, folder: Path) -> None:
        self.log = folder / "accepted.log"
        arguments = [sys.executable, "-c", SERVER, str(folder / "server"), str(self.log), KEY]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    def accepted(self) -> list[str]:
        """Digests of the contents for which jobs were made, oldest first."""
        return [line.rpartition("/")[2] for line in self.log.read_text().split()]

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    started = Server(tmp_path)
    yield started
    started.close()


def in_ledger(data_dir: Path, files: list[Path]) -> set[str]:
    """Digests of the contents that the ledger holds as finished, or with the id of their job."""
    if not (data_dir / "ledger.sqlite3").exists():
        return set()
    with sqlite3.connect(data_dir / "ledger.sqlite3", timeout=10) as ledger:
        found = ledger.execute(
            "SELECT DISTINCT position FROM rows JOIN jobs ON jobs.key = rows.key "
            "WHERE jobs.state IN ('open', 'succeeded')"
        ).fetchall()
    ledger.close()
    return {hashlib.sha256(files[position].read_bytes()).hexdigest() for (position,) in found}


def one_run(client: subprocess.Popen[str], server: Server, kill_at: int | None, deadline_s: float) -> int:
    """Exit status of a run that is killed when so many jobs were made."""
    assert client.stdin is not None
    assert client.stdout is not None
    print("go", file=client.stdin, flush=True)
    child = int(client.stdout.readline())
    if kill_at is not None:
        while len(server.accepted()) < kill_at and not select.select([client.stdout], [], [], 0.003)[0]:
            assert time.monotonic() < deadline_s
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return int(client.stdout.readline())


def vectors(prints: list[str]) -> np.ndarray:
    return np.stack([np.frombuffer(decode_voiceprint(text).vector, "<f4") for text in prints])


def test_killed_runs_lose_nothing_and_buy_nothing_twice(tmp_path: Path, folder: Path, server: Server) -> None:
    files = sorted(folder.glob("*.wav"))
    names = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    data_dir, answer = tmp_path / "ledger", tmp_path / "answer.json"
    arguments = [sys.executable, "-c", CLIENT, str(folder), str(data_dir), server.url, str(answer)]
    environment = os.environ | {"PYANNOTEAI_API_KEY": KEY}
    draw = np.random.default_rng(SEED)
    marks = sorted(draw.choice(np.arange(1, ROWS), KILLS, replace=False).tolist())  # jobs made at the kill
    server.log.touch()
    unknown: Counter[str] = Counter()
    kept_at: list[tuple[int, set[str]]] = []
    kills = 0
    started = time.monotonic()
    client = subprocess.Popen(
        arguments, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    while True:
        ended = one_run(client, server, marks[0] if marks else None, started + DEADLINE_S)
        kept_at.append((len(server.accepted()), in_ledger(data_dir, files)))
        if ended < 0:
            kills += 1
            made = len(server.accepted())
            last = max(made, ROWS - 1)  # what is left may be the collecting only
            marks = [min(max(mark, made + int(draw.integers(1, 8))), last) for mark in marks[1:]]
            continue
        assert ended == 0
        told = json.loads(answer.read_text())
        failed = {names[row]: code for row, code in enumerate(told["codes"]) if code}
        if not failed:
            break
        assert set(failed.values()) == {"submit_unknown"}
        unknown.update(failed.keys())
    client.communicate("")
    assert kills == KILLS

    accepted = server.accepted()
    counts = Counter(accepted)
    assert set(counts) == set(names)
    for made, kept in kept_at:
        assert not kept & set(accepted[made:])
    assert all(counts[name] <= 1 + unknown[name] for name in names)
    assert len(accepted) <= ROWS + unknown.total()

    again = vp.resume(api_key=KEY, data_dir=data_dir, progress=False)
    assert len(server.accepted()) == len(accepted)
    assert again.vp_source.eq("reused").all()
    assert again["voiceprint"].tolist() == told["prints"]

    rows = pd.DataFrame({"audio": list(map(str, files))})
    calm = vp.voiceprints(
        rows, service=server.url, api_key=KEY, data_dir=tmp_path / "calm", progress=False, ledger=True
    )
    assert calm.vp_status.eq("succeeded").all()
    assert np.allclose(vectors(calm["voiceprint"].tolist()), vectors(told["prints"]), rtol=0, atol=1e-5)

    for file in [*data_dir.rglob("*"), *(tmp_path / "calm").rglob("*")]:
        assert file.is_dir() or KEY.encode() not in file.read_bytes()
