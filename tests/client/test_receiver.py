from __future__ import annotations

import gc
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from voiceprint_nb.client import receiver as module
from voiceprint_nb.client.receiver import Receiver
from voiceprint_nb.contract import sign_webhook
from voiceprint_nb.errors import MissingExtra, UsageError

SIGNER, OTHER = "whsec_h0ly", "whsec_other"
WAIT_S = 20.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def local(port: int | None = None, *, leads_to: int | None = None, **options: Any) -> Receiver:
    """A receiver whose public address is its own, or another port of this machine."""
    port = port or free_port()
    return Receiver(public_url=f"http://127.0.0.1:{leads_to or port}", secret=SIGNER, port=port, **options)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with local() as started:
        yield started


def signed(body: bytes, *, secret: str = SIGNER) -> dict[str, str]:
    timestamp = str(int(time.time()))
    return {"X-Request-Timestamp": timestamp, "X-Signature": sign_webhook(secret, timestamp, body)}


def failed(job_id: str) -> bytes:
    return json.dumps({"jobId": job_id, "status": "failed"}).encode()


def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=WAIT_S)
    try:
        connection.request("POST", parts.path, body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("voiceprint-receiver")}


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


# --- start and end --------------------------------------------------------------------------------------


def test_it_listens_until_it_is_closed() -> None:
    port = free_port()
    receiver = local(port)
    assert is_free(port)
    for _ in range(2):  # it may be started again
        assert receiver.start() is receiver is receiver.start()
        assert not is_free(port)
        body = failed("a")
        assert post(receiver.webhook_url, body, signed(body)) == 204
        assert receiver.problem is None
        receiver.close()
        receiver.close()
        assert receiver.problem is not None
        assert "The receiver is closed" in receiver.problem
        assert is_free(port)
        assert not threads()


def test_a_receiver_that_is_forgotten_ends() -> None:
    port = free_port()
    receiver = local(port).start()
    stop = receiver.listen("a", print)
    gc.disable()  # a cell that is run again needs its port at once
    try:
        del receiver
        assert is_free(port)
    finally:
        gc.enable()
    assert not threads()
    stop()


def test_two_receivers_of_one_port(receiver: Receiver) -> None:
    port = urlsplit(receiver.webhook_url).port
    with pytest.raises(UsageError, match=f"Port {port} of 127.0.0.1 is in use: .* another port="):
        local(port).start()
    body = failed("a")
    assert post(receiver.webhook_url, body, signed(body)) == 204


def test_an_address_of_another_machine() -> None:
    with pytest.raises(UsageError, match=r"cannot listen on 192\.0\.2\.1:\d+: "):
        local(host="192.0.2.1").start()


def test_without_uvicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    port = free_port()
    with pytest.raises(MissingExtra, match=r"voiceprint_nb\[serve\]"):
        local(port).start()
    assert is_free(port)


def test_closing_while_events_arrive_loses_none_that_was_accepted(receiver: Receiver) -> None:
    heard: list[str] = []
    accepted: list[str] = []
    busy = threading.Semaphore(0)

    def send(name: int) -> None:
        try:
            for n in range(10_000):
                body = failed(f"{name} {n}")
                receiver.listen(f"{name} {n}", lambda job: heard.append(job.job_id))
                if post(receiver.webhook_url, body, signed(body)) == 204:
                    accepted.append(f"{name} {n}")
                    busy.release()
        except OSError:
            pass  # the receiver is closed

    senders = [threading.Thread(target=send, args=(name,)) for name in range(3)]
    for sender in senders:
        sender.start()
    for _ in range(20):
        assert busy.acquire(timeout=WAIT_S)
    receiver.close()
    for sender in senders:
        sender.join(WAIT_S)
        assert not sender.is_alive()
    assert set(accepted) <= set(heard)
    assert not threads()


# --- its public address ---------------------------------------------------------------------------------


@contextmanager
def answering(status: int | None) -> Iterator[int]:
    """Port of a server that is something else; with None, its answer never comes to an end."""
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status or 200)
            self.send_header("Content-Length", "0")
            while status is None and not released.wait(0.02):
                self.send_header("X-More", "to come")
                self.flush_headers()
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            released.set()
            server.shutdown()
            thread.join()


def refused(receiver: Receiver) -> str:
    with pytest.raises(UsageError, match="does not lead here") as caught:
        receiver.start()
    told = str(caught.value)
    assert urlsplit(receiver.webhook_url).path not in told
    assert SIGNER not in told
    assert not threads()
    return told


@pytest.mark.parametrize("status", [200, 302, 404, 502])
def test_something_else_at_the_public_address(status: int) -> None:
    with answering(status) as port:
        told = refused(local(leads_to=port))
    assert f"something else answers there ({status})" in told
    assert "forward to http://127.0.0.1:" in told


def test_another_receiver_at_the_public_address(receiver: Receiver) -> None:
    there = urlsplit(receiver.webhook_url).port or 0
    other = Receiver(public_url=f"http://127.0.0.1:{there}", secret=OTHER, port=free_port())
    with pytest.raises(UsageError, match=r"something else answers there \(404\)"):
        other.start()
    with pytest.raises(UsageError, match=r"something else answers there \(204\)"):
        local(leads_to=there).start()  # even one of the same secret


def test_nobody_at_the_public_address() -> None:
    with socket.socket() as silent:  # bound, so that the receiver does not get the port, and not listening
        silent.bind(("127.0.0.1", 0))
        told = refused(local(leads_to=silent.getsockname()[1]))
    assert "cannot be reached (" in told
    assert "Check that the tunnel runs" in told


def test_an_answer_that_never_ends_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TEST_S", 0.3)
    with answering(None) as port:
        assert "cannot be reached (TimeoutError)" in refused(local(leads_to=port))


def test_a_proxy_that_changes_bodies_is_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = local()
    monkeypatch.setattr(receiver._inbox, "sign", lambda body: signed(body + b" "))
    assert "something else answers there (401). " in refused(receiver)


def test_it_can_be_mounted_in_another_server() -> None:
    port = free_port()
    receiver = Receiver(public_url=f"http://127.0.0.1:{port}/hooks", secret=SIGNER, serve=False)
    with pytest.raises(UsageError, match=r"forwards to the server that has receiver\.app"):
        receiver.start()
    outer = Starlette(routes=[Mount("/hooks", receiver.app)])
    server = uvicorn.Server(uvicorn.Config(outer, port=port, ws="none", log_config=None, access_log=False))
    listener = socket.create_server(("127.0.0.1", port))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        with receiver:
            body = failed("a")
            assert post(receiver.webhook_url, body, signed(body)) == 204
            assert not threads()
        assert thread.is_alive()
    finally:
        server.should_exit = True
        thread.join(WAIT_S)


# --- on the wire ----------------------------------------------------------------------------------------


def test_a_body_without_end_is_cut(receiver: Receiver) -> None:
    parts = urlsplit(receiver.webhook_url)
    with socket.create_connection((parts.hostname, parts.port), timeout=WAIT_S) as connection:
        connection.sendall(
            f"POST {parts.path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        connection.sendall(b"10001\r\n" + bytes(0x10001) + b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_sender_that_hangs_up_does_no_harm(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    parts = urlsplit(receiver.webhook_url)
    with socket.create_connection((parts.hostname, parts.port), timeout=WAIT_S) as connection:
        connection.sendall(f"POST {parts.path} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1".encode())
    body = failed("a")
    assert post(receiver.webhook_url, body, signed(body)) == 204
    receiver.close()
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_secrets_stay_out_of_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with local() as receiver:
        body = json.dumps({"jobId": "a", "status": "succeeded", "output": {"voiceprint": "cHJpbnQ"}}).encode()
        assert post(receiver.webhook_url, body, signed(body)) == 204
        assert post(receiver.webhook_url, body, signed(body, secret=OTHER)) == 401
        assert post(receiver.webhook_url, b"?cHJpbnQ", signed(b"?cHJpbnQ")) == 400
    told = caplog.text + "".join(repr(vars(record)) for record in caplog.records) + repr(receiver)
    assert "httpcore" in told
    for secret in (SIGNER, "cHJpbnQ", urlsplit(receiver.webhook_url).path):
        assert secret not in told
