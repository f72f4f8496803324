from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading

import httpx
import pytest

from tests.service.parts import plain
from voiceprint_nb.service.outside import Outside


def n_threads() -> int:
    return sum(thread.name == "voiceprint-outside" for thread in threading.enumerate())


async def answer(client: httpx.AsyncClient) -> int:
    return 42


def test_it_starts_when_it_is_first_needed_and_ends() -> None:
    before, outside = n_threads(), Outside(plain)
    assert n_threads() == before
    assert [outside.start(answer).result() for _ in range(2)] == [42, 42]
    assert n_threads() == before + 1
    outside.close()
    outside.close()
    assert n_threads() == before


STARVED = """
import os, resource, warnings
from voiceprint_nb.service.outside import Outside, plain_client

async def answer(client):
    return 42

outside = Outside(plain_client)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(0) + 1, hard))
try:
    outside.start(answer)
except OSError as error:
    print(error.strerror)
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(outside.start(answer).result())
outside.close()
"""


def test_a_start_that_fails_is_made_again() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STARVED], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "Too many open files\n42\n"


def test_a_client_that_cannot_be_made_is_asked_for_again() -> None:
    faults = [FileNotFoundError("certificates.pem")]

    def new_client() -> httpx.AsyncClient:
        if faults:
            raise faults.pop()
        return plain()

    outside = Outside(new_client)
    with pytest.raises(FileNotFoundError):
        outside.start(answer).result()
    assert outside.start(answer).result() == 42
    outside.close()


def test_work_that_will_not_end_and_clients_that_will_not_close_are_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(httpx.AsyncBaseTransport):
        async def aclose(self) -> None:
            raise OSError("no such socket")

    begun = threading.Event()

    async def stubborn(client: httpx.AsyncClient) -> None:
        begun.set()
        for _ in range(3):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    before, outside = n_threads(), Outside(lambda: httpx.AsyncClient(transport=Broken()))
    outside.start(stubborn)
    assert begun.wait(10)
    outside.close()
    assert n_threads() == before
    assert "did not end in order" in caplog.text
