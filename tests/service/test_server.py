"""The served service: its options, its start and its end, as an operator meets them."""

from __future__ import annotations

import asyncio
import http.server
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from tests.served import COMMAND, DEADLINE_S, Served, new_key, serving
from tests.service.parts import self_signed
from voiceprint_nb.command import main
from voiceprint_nb.contract import verify_webhook
from voiceprint_nb.service import server
from voiceprint_nb.service.options import Options, service_folder
from voiceprint_nb.service.patience import protocol

SAMPLE = Path(__file__).resolve().parents[2] / "data" / "samples" / "ada-1.wav"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("server") / "data", "--shutdown-s", "5") as served:
        yield served


def keyed(served: Served, **options: Any) -> httpx.Client:
    headers = {"Authorization": f"Bearer {served.key}"}
    return httpx.Client(base_url=served.base_url, headers=headers, **options)


def finished(client: httpx.Client, **body: Any) -> dict[str, Any]:
    job_id = client.post("/v1/voiceprint", json=body).json()["jobId"]
    deadline_s = time.monotonic() + DEADLINE_S
    while (job := client.get(f"/v1/jobs/{job_id}").json())["status"] in ("created", "running"):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    return dict(job)


# --- what cannot be served ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--host", "0.0.0.0"], "make a key"),  # noqa: S104 - that it is refused
        (["--host", "::"], "make a key"),
        (["--host", "example.com"], "make a key"),
        (["--behind-proxy", "127.0.0.1"], "A proxy lets others in"),
        (["--tls-cert", "x.pem"], "both --tls-cert and --tls-key"),
        (["--tls-cert", "x.pem", "--tls-key", "y.pem"], "'x.pem' is not a file"),
        (["--public-url", "voices.example"], "no http or https address"),
        (["--workers", "0"], "--workers needs a number from 1 to 256"),
        (["--workers", "100000"], "--workers"),
        (["--max-waiting", "-5"], "--max-waiting"),
        (["--reads-per-minute", "-1"], "--reads-per-minute"),
        (["--shutdown-s", "nan"], "--shutdown-s"),
        (["--shutdown-s", "inf"], "--shutdown-s"),
        (["--data-dir", "/proc/no-such-folder"], "cannot be made"),
        *((["--public-url", url], "no http or https address") for url in ("http://:99/x", "https://a/?b")),
        (["--port", "99999"], "--port"),
        *((["--allow-host", name], "without scheme and port") for name in ("https://a", "a:443", "*.a", "")),
        (["--redeliver", "no-such-job"], "There is no webhook to send"),
    ],
)
def test_what_cannot_be_served_is_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    assert main(["serve", "--data-dir", str(tmp_path / "data"), *options]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("proxy", ["*", "proxy.example", "10.0.0.0/33"])
def test_proxies_are_named_by_address(tmp_path: Path, capsys: pytest.CaptureFixture[str], proxy: str) -> None:
    new_key(tmp_path)
    assert main(["serve", "--data-dir", str(tmp_path), "--behind-proxy", proxy]) == 2
    assert "--behind-proxy takes an address or network" in capsys.readouterr().err


def test_redelivery_makes_nothing_in_a_wrong_folder(tmp_path: Path) -> None:
    assert main(["serve", "--data-dir", str(tmp_path), "--redeliver", "x"]) == 2
    assert not (tmp_path / "jobs.sqlite3").exists()


def test_keys_and_service_mean_the_same_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VOICEPRINT_NB_DATA_DIR", str(tmp_path / "own"))
    assert service_folder(Path("~/here")) == tmp_path / "here"
    assert service_folder(None) == tmp_path / "own" / "service"
    assert main(["keys", "add", "--data-dir", "~/here"]) == 0
    assert (tmp_path / "here" / "keys.sqlite3").exists()


def test_an_address_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--data-dir", str(tmp_path), "--port", port]) == 2
    assert f"127.0.0.1:{port} cannot be served" in capsys.readouterr().err


def test_tls_files_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.pem").write_text("no certificate")
    files = ["--tls-cert", str(tmp_path / "x.pem"), "--tls-key", str(tmp_path / "x.pem")]
    assert main(["serve", "--data-dir", str(tmp_path / "data"), "--port", "0", *files]) == 2
    assert "The TLS files cannot be used" in capsys.readouterr().err


def test_one_service_a_folder(served: Served) -> None:
    second = subprocess.run(
        [*COMMAND, "serve", "--port", "0", "--data-dir", str(served.data_dir)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 2
    assert "Another service already works on this data folder" in second.stderr


def test_answers_do_not_wait_to_be_acknowledged() -> None:
    with server._listener(Options(port=0)) as listener:
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# --- who is let in --------------------------------------------------------------------------------------


def test_keys_work_as_soon_as_they_are_made_until_they_are_revoked(served: Served) -> None:
    def status(key: str) -> int:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.get(f"{served.base_url}/v2/jobs", headers=headers).status_code

    folder = ["--data-dir", str(served.data_dir)]
    key = new_key(served.data_dir, "--team", "new", "--permission", "jobs:read")
    assert status(key) == 200
    assert main(["keys", "list", *folder]) == 0
    listed = subprocess.run([*COMMAND, "keys", "list", *folder], capture_output=True, text=True, check=True)
    (line,) = [line for line in listed.stdout.splitlines() if " new " in line]
    assert main(["keys", "revoke", line.split()[0], *folder]) == 0
    assert status(key) == 401


def test_hosted_limits_are_the_default(served: Served) -> None:
    with keyed(served) as client:
        told = {path: client.get(path).headers["x-ratelimit-limit"] for path in ("/v1/test", "/v2/jobs")}
    assert told == {"/v1/test": "100", "/v2/jobs": "300"}


def test_without_keys_only_names_of_this_machine_are_answered(tmp_path: Path) -> None:
    with unkeyed(tmp_path / "data") as served:
        for host, status in (
            ("localhost", 200),
            ("127.0.0.1:80", 200),
            ("[::1]:9", 200),
            ("evil.example", 400),
        ):
            assert httpx.get(f"{served}/v1/test", headers={"Host": host}).status_code == status, host


def test_the_first_key_shuts_an_open_service(tmp_path: Path) -> None:
    with unkeyed(tmp_path / "data") as served:
        assert httpx.get(f"{served}/v2/jobs").status_code == 200
        key = new_key(tmp_path / "data")
        assert httpx.get(f"{served}/v2/jobs").status_code == 401
        headers = {"Authorization": f"Bearer {key}"}
        assert httpx.get(f"{served}/v2/jobs", headers=headers).status_code == 200


def test_a_signal_right_after_the_start_is_heard(tmp_path: Path) -> None:
    for _ in range(3):
        with unkeyed(tmp_path / "data"):
            pass  # its end sends SIGTERM at once


def test_loopback_of_the_sixth_version(tmp_path: Path) -> None:
    with unkeyed(tmp_path / "data", "--host", "::1") as served:
        assert served.startswith("http://[::1]:")
        assert httpx.get(f"{served}/v1/test").status_code == 200


class unkeyed:  # noqa: N801 - used as a function
    """A served instance without keys; its address."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        command = [*COMMAND, "serve", "--port", "0", "--data-dir", str(data_dir), *options]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def __enter__(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().split()[2]

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        try:
            assert self._process.wait(DEADLINE_S) == 0
        finally:
            self._process.kill()
            self._process.communicate()


def test_who_never_ends_the_headers_is_hung_up_on() -> None:
    async def talk() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        config = uvicorn.Config(app, port=0, http=protocol(0.05), ws="none", lifespan="off", log_config=None)
        config.load()
        impatient = uvicorn.Server(config)
        impatient.lifespan = config.lifespan_class(config)
        await impatient.startup()
        port = impatient.servers[0].sockets[0].getsockname()[1]
        async with asyncio.timeout(DEADLINE_S):
            for first, then in (
                (b"", b""),
                (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nX-Slow:"),
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                if first:
                    writer.write(first)
                    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
                writer.write(then)
                assert await reader.read() == b""  # nothing more, until the server hangs up
                writer.close()
        await impatient.shutdown()

    asyncio.run(talk())


# --- proxies and TLS ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "scheme"), [([], "http"), (["--behind-proxy", "127.0.0.1"], "https")])
def test_forwarded_headers_count_only_from_named_proxies(
    tmp_path: Path, options: list[str], scheme: str
) -> None:
    with serving(tmp_path / "data", *options) as served, keyed(served) as client:
        headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "9.9.9.9", "Host": "voices.example"}
        ticket = client.post("/v1/media/input", json={"url": "media://a"}, headers=headers)
        assert ticket.json()["url"].startswith(f"{scheme}://voices.example/media/")


def test_tls(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path, "IP:127.0.0.1")
    with serving(tmp_path / "data", "--tls-cert", str(cert), "--tls-key", str(key)) as served:
        assert served.base_url.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=str(cert))
        with keyed(served, verify=context) as client:
            ticket = client.post("/v1/media/input", json={"url": "media://a"}).json()["url"]
            assert ticket.startswith(served.base_url)
            assert client.put(ticket, content=b"x").status_code == 200


# --- start and end --------------------------------------------------------------------------------------


def test_jobs_finish_in_order_or_at_the_next_start(tmp_path: Path) -> None:
    data_dir, limits = tmp_path / "data", ("--writes-per-minute", "0", "--reads-per-minute", "0")
    with serving(data_dir, *limits) as served, keyed(served) as client:
        client.put(
            client.post("/v1/media/input", json={"url": "media://a"}).json()["url"],
            content=SAMPLE.read_bytes(),
        )
        ids = [client.post("/v1/voiceprint", json={"url": "media://a"}).json()["jobId"] for _ in range(24)]
    with serving(data_dir, *limits, key=served.key) as again, keyed(again) as client:
        prints = set()
        for job_id in ids:
            deadline_s = time.monotonic() + DEADLINE_S
            while (job := client.get(f"/v1/jobs/{job_id}").json())["status"] != "succeeded":
                assert job["status"] in ("created", "running")
                assert time.monotonic() < deadline_s
            prints.add(job["output"]["voiceprint"])
    assert len(prints) == 1


def test_logs_hold_neither_keys_nor_links_nor_voiceprints(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as served, keyed(served) as client:
        link = client.post("/v1/media/input", json={"url": "media://a"}).json()["url"]
        client.put(link, content=SAMPLE.read_bytes())
        voiceprint = finished(client, url="media://a", webhook="https://127.0.0.1:1/hook?token=s3cret")[
            "output"
        ]["voiceprint"]
        client.get("/v1/jobs/" + "x" * 50)
        deadline_s = time.monotonic() + DEADLINE_S
        while "webhook failed" not in served.log.read_text():
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
    written = served.log.read_text()
    lines = [json.loads(line) for line in written.splitlines()]
    events = {line["event"] for line in lines}
    assert {"request", "job ended", "webhook failed", "stopped"} <= events
    for secret in (served.key, link.rpartition("/")[2], voiceprint, "s3cret", "xxxxx"):
        assert secret not in written


def test_figures_for_prometheus(served: Served) -> None:
    with keyed(served) as client:
        client.put(
            client.post("/v1/media/input", json={"url": "media://m"}).json()["url"],
            content=SAMPLE.read_bytes(),
        )
        finished(client, url="media://m")
        assert client.get("/metrics").status_code == 403
    key = new_key(served.data_dir, "--permission", "metrics:read")
    text = httpx.get(f"{served.base_url}/metrics", headers={"Authorization": f"Bearer {key}"}).text
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(figures['voiceprint_nb_jobs{status="succeeded"}']) >= 1
    assert float(figures['voiceprint_nb_jobs_ended_total{status="succeeded"}']) >= 1
    assert float(figures["voiceprint_nb_engine_seconds_total"]) > 0
    assert float(figures["voiceprint_nb_queue_jobs"]) == 0


# --- a webhook once more --------------------------------------------------------------------------------


class Receiver(http.server.BaseHTTPRequestHandler):
    """Keeps what it is sent."""

    events: list[tuple[dict[str, str], bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.events.append(({key.lower(): value for key, value in self.headers.items()}, body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    events: list[tuple[dict[str, str], bytes]] = []
    handler = type("Handler", (Receiver,), {"events": events})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/hook", events
        server.shutdown()


def test_redeliver_sends_the_event_again_whether_served_or_not(
    tmp_path: Path, receiver: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    url, events = receiver
    data_dir, allowed = tmp_path / "data", ("--plain-webhooks", "--allow-host", "127.0.0.1")
    with serving(data_dir, *allowed) as served, keyed(served) as client:
        job = finished(client, url="media://nothing", webhook=url)
        again = [*COMMAND, "serve", "--data-dir", str(data_dir), "--redeliver", job["jobId"], *allowed]
        done = subprocess.run(again, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "Delivered.\n")
    assert main(["serve", "--data-dir", str(data_dir), "--redeliver", job["jobId"], *allowed]) == 0
    assert main(["keys", "secret", "--data-dir", str(data_dir)]) == 0
    secret = capsys.readouterr().out.splitlines()[-1]
    assert len(events) >= 2
    for headers, body in events:
        stamp = headers["x-request-timestamp"]
        verify_webhook(secret, stamp, headers["x-signature"], body, now_unix_s=time.time())
        assert json.loads(body) == {"jobId": job["jobId"], "status": "failed"}
        assert "x-retry-num" not in headers


def test_redelivery_obeys_the_rules_of_addresses(tmp_path: Path, receiver: Any, capsys: Any) -> None:
    url, events = receiver
    data_dir = tmp_path / "data"
    with serving(data_dir, "--plain-webhooks") as served, keyed(served) as client:
        job = finished(client, url="media://nothing", webhook=url)
    assert main(["serve", "--data-dir", str(data_dir), "--redeliver", job["jobId"], "--plain-webhooks"]) == 1
    assert "Not delivered: connection_failed" in capsys.readouterr().out
    assert events == []
