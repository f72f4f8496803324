"""CPU that a job costs the client, over the transports that could carry its requests.

::

    python -m benchmarks.transports [--jobs 200] [--rounds 5] [--in-flight 16 64 256]

The client is `client.transport.Api` with its bound of 16 connections. A job is what a local file takes: a
POST for a ticket, a streamed PUT of 64 KiB, a POST to submit, and one GET of the finished job. The other side
is a web server in a process of its own that answers from memory, so that only the client is measured: the CPU
seconds of this process, user and system. Every round measures every transport once, in turn; medians over the
rounds are shown, and their ratio to httpx as it comes. First over plain HTTP, then over TLS as the hosted
service has it, with the usual bundle of certificates to trust.

"no wire" answers inside the client's process: what our code and httpx's own part cost, which no transport can
save. "vendor's SDK" makes the same four requests, in as many threads as there are jobs in flight; the pauses
between its looks at a job are left out. It opens a connection, and reads all certificates, for each request.

Transports that are not installed are left out: ``pip install httpx-aiohttp pyreqwest`` for all of them.

Last, a connection is reset after the request was read: each transport's error says whether it was sent.

The project stays with httpx as it comes. The others take 0.6 to 0.7 of its CPU with 16 connections: they save
1 to 1.5 ms a job, at the hosted 100 jobs a minute a quarter of a hundredth of a core. Over TLS a job costs
0.04 of the vendor's SDK as it is, and no more with 256 in flight than with 16. But both call a connection
that was reset after the request a failed attempt to connect (ConnectTimeout, ConnectError): a submission
that may have been carried out would be sent again, and bought twice.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import certifi
import httpx

from tests.service import parts
from voiceprint_nb import contract
from voiceprint_nb.client.transport import Api
from voiceprint_nb.client.wire import CONNECTIONS

CLIP_BYTES = 65_536
WARM_UP_JOBS = 32
JOB = "0b6d5a3e-9a1f-4a6e-8a60-6f0d1b1f2a3b"
PRINT = "cHJpbnQ-of-a-voice" * 60  # about what a voiceprint weighs
OUTPUT = {"voiceprint": PRINT}


# --- the other side -------------------------------------------------------------------------------------


def answer_to(method: str, path: str, base_url: str) -> dict[str, object]:
    """What the service would say."""
    if path == contract.MEDIA_INPUT_PATH:
        return {"url": f"{base_url}/store/clip?X-Amz-Signature=5f1e"}
    if path == contract.VOICEPRINT_PATH:
        return {"jobId": JOB, "status": "created"}
    if method == "GET" and path != contract.TEST_PATH:
        times = {"createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"}
        return {"jobId": JOB, "status": "succeeded", "output": OUTPUT, **times}
    return {}


def serve(certificate: list[str]) -> None:
    """Answer until told to stop; prints the port."""
    import uvicorn

    scheme = "https" if certificate else "http"

    async def app(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        while (await receive()).get("more_body"):
            pass
        base_url = f"{scheme}://127.0.0.1:{scope['server'][1]}"
        body = json.dumps(answer_to(scope["method"], scope["path"], base_url)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers += [(b"x-ratelimit-limit", b"100000"), (b"x-ratelimit-remaining", b"99999")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listening.getsockname()[1], flush=True)
    tls = {"ssl_certfile": certificate[0], "ssl_keyfile": certificate[1]} if certificate else {}
    options = {"lifespan": "off", "log_config": None, "access_log": False, "timeout_keep_alive": 60}
    uvicorn.Server(uvicorn.Config(app, **options, **tls)).run(sockets=[listening])


@contextmanager
def served(*certificate: Path) -> Iterator[str]:
    """The base URL of the other side, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.transports", "--serve", *map(str, certificate)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        port = int(process.stdout.readline()) if process.stdout else 0
        yield f"http{'s' if certificate else ''}://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


# --- this side ------------------------------------------------------------------------------------------


class NoWire(httpx.AsyncBaseTransport):
    """Answers on the spot."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Read the request, and answer."""
        if request.method == "PUT":
            async for _ in request.stream:  # type: ignore[union-attr]
                pass
        url = f"{request.url.scheme}://{request.url.host}"
        return httpx.Response(200, json=answer_to(request.method, request.url.path, url))


class Unveiled(httpx.AsyncBaseTransport):
    """Gives requests their address as text: `fetching.veil` hides that of uploads from logs."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass it on."""
        request.url = httpx.URL(request.url)
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


def aiohttp_transport() -> httpx.AsyncBaseTransport:
    """The transport of the package httpx-aiohttp."""
    from httpx_aiohttp import AiohttpTransport

    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    return Unveiled(AiohttpTransport(limits=limits))


def reqwest_transport() -> httpx.AsyncBaseTransport:
    """The transport of the package pyreqwest."""
    from pyreqwest.client import ClientBuilder
    from pyreqwest.compatibility.httpx import HttpxTransport

    # it takes no certificate that vouches for itself, as that of the other side here
    builder = ClientBuilder().max_connections(CONNECTIONS).danger_accept_invalid_certs(True)
    return Unveiled(HttpxTransport(builder.build()))


TRANSPORTS: dict[str, tuple[str, Callable[[], httpx.AsyncBaseTransport | None]]] = {
    "httpx": ("httpx", lambda: None),
    "httpx-aiohttp": ("httpx_aiohttp", aiohttp_transport),
    "pyreqwest": ("pyreqwest", reqwest_transport),
    "no wire": ("httpx", NoWire),
}


async def job(api: Api, clip: Path, number: int) -> None:
    """The four requests of a local file."""
    media = contract.MediaRequest(f"media://voiceprint-nb/{number:064x}")
    answer = await api.post(
        contract.MEDIA_INPUT_PATH, media.to_wire(), pacer=api.media_pacer, repeatable=True
    )
    link = contract.MediaTicket.from_wire(answer).url
    await api.put(link, lambda: chunks(clip), CLIP_BYTES, media_key=str(clip))
    request = contract.VoiceprintRequest(media.url).to_wire()
    answer = await api.post(contract.VOICEPRINT_PATH, request, pacer=api.submit_pacer, repeatable=False)
    path = contract.JOB_PATH.format(job_id=contract.JobCreated.from_wire(answer).job_id)
    if contract.Job.from_wire(await api.get(path, pacer=api.read_pacer)).status != "succeeded":
        raise ValueError("the other side says something else than it should")


async def chunks(clip: Path) -> AsyncIterator[bytes]:
    """The file in one piece."""
    yield clip.read_bytes()


@dataclass
class Load:
    """So many jobs at a time on one clip."""

    base_url: str
    clip: Path
    n_jobs: int
    in_flight: int

    def ours(self, new_transport: Callable[[], httpx.AsyncBaseTransport | None]) -> float:
        """CPU seconds of a job of our client."""

        async def session() -> float:
            async with Api(base_url=self.base_url, api_key="key", transport=new_transport()) as api:
                await self._batch(api, WARM_UP_JOBS)
                began_s = time.process_time()
                await self._batch(api, self.n_jobs)
                return (time.process_time() - began_s) / self.n_jobs

        return asyncio.run(session())

    async def _batch(self, api: Api, n_jobs: int) -> None:
        async def work(numbers: Iterator[int]) -> None:
            for number in numbers:
                await job(api, self.clip, number)

        numbers = iter(range(n_jobs))
        async with asyncio.TaskGroup() as group:
            for _ in range(self.in_flight):
                group.create_task(work(numbers))

    def sdk(self) -> float:
        """CPU seconds of a job of the vendor's SDK, in threads."""
        from pyannoteai.sdk import Client

        class Local(Client):
            API_URL = f"{self.base_url}/v1"

        client = Local("key")

        def work(number: int) -> None:
            url = client.upload(self.clip, f"media://a/{number}")
            client.retrieve(client.voiceprint(url))  # raises unless it has succeeded

        n_jobs = max(self.n_jobs // 4, WARM_UP_JOBS)  # they take long, and vary little
        with ThreadPoolExecutor(self.in_flight) as threads, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # each upload says that the storage is temporary
            list(threads.map(work, range(WARM_UP_JOBS)))
            began_s = time.process_time()
            list(threads.map(work, range(n_jobs)))
            return (time.process_time() - began_s) / n_jobs


def measured(load: Load, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of a job in each round, by transport."""
    kinds: dict[str, Callable[[], float]] = {}
    for name, (module, new_transport) in TRANSPORTS.items():
        if importlib.util.find_spec(module):
            kinds[name] = lambda new_transport=new_transport: load.ours(new_transport)
    if importlib.util.find_spec("pyannoteai"):
        kinds["vendor's SDK"] = load.sdk
    taken_s: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, measure in kinds.items():
            gc.collect()
            taken_s[name].append(measure())
    return taken_s


async def error_of_a_reset(new_transport: Callable[[], httpx.AsyncBaseTransport | None]) -> str:
    """What a transport calls a connection that is reset once the request was read."""

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"end")
        linger = struct.pack("ii", 1, 0)  # closing sends a reset
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async with await asyncio.start_server(reset, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with httpx.AsyncClient(transport=new_transport()) as client:
            try:
                await client.post(url, content=b"end")
            except httpx.TransportError as error:
                return type(error).__name__
    return "none"


def show(title: str, taken_s: dict[str, list[float]]) -> None:
    """One line a transport: median, range, and both ratios."""
    print(f"\n{title}")
    print(f"{'':14} {'CPU ms a job':>12} {'range':>15} {'to httpx':>9} {'to SDK':>7}")
    medians = {name: statistics.median(values) for name, values in taken_s.items()}
    sdk_s = medians.get("vendor's SDK")
    for name, values in taken_s.items():
        extent = f"{min(values) * 1e3:.2f} to {max(values) * 1e3:.2f}"
        to_sdk = f"{medians[name] / sdk_s:7.2f}" if sdk_s else "      -"
        ratio = medians[name] / medians["httpx"]
        print(f"{name:14} {medians[name] * 1e3:12.2f} {extent:>15} {ratio:9.2f} {to_sdk}")


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--serve", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = folder / "clip.wav"
        clip.write_bytes(os.urandom(CLIP_BYTES))
        pair = parts.self_signed(folder, "IP:127.0.0.1")
        bundle = folder / "bundle.pem"
        bundle.write_text(Path(certifi.where()).read_text() + pair[0].read_text())
        os.environ |= {"SSL_CERT_FILE": str(bundle), "REQUESTS_CA_BUNDLE": str(bundle)}
        for certificate in ((), pair):
            with served(*certificate) as base_url:
                for in_flight in options.in_flight:
                    load = Load(base_url, clip, options.jobs, in_flight)
                    title = f"{in_flight} in flight, {'TLS' if certificate else 'plain'}"
                    show(title, measured(load, options.rounds))
        print("\nReset after the request was read")
        for kind, (module, new_transport) in TRANSPORTS.items():
            if importlib.util.find_spec(module) and new_transport is not NoWire:
                print(f"{kind:14} {asyncio.run(error_of_a_reset(new_transport))}")


if __name__ == "__main__":
    main()
