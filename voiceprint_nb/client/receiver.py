"""A server for webhooks in a thread of its own, tested through its public address."""

from __future__ import annotations

import contextlib
import errno
import json
import secrets
import socket
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Self
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.routing import Route

from voiceprint_nb import contract
from voiceprint_nb.client.inbox import Callback, Inbox
from voiceprint_nb.errors import MissingExtra, UsageError
from voiceprint_nb.fetching import USER_AGENT, new_client, veil

_MAX_CONNECTIONS = 256
_TEST_S = 10.0
_GRACE_S = 2  # for requests that are being answered when the receiver closes
_SELF_TEST = "self-test"  # a status that no service sends
_CLOSED = "The receiver is closed, so that no events arrive: leave it open until the run has ended."


class Receiver:
    """Takes in the service's events, so that runs need not ask; a context manager.

    Nothing listens before `start`, which ``with`` and every run call.

    Parameters
    ----------
    public_url : str
        Address under which the service reaches this receiver, such as that of a tunnel. The hosted service
        takes https only.
    secret : str
        The team's webhook secret; never shown.
    host, port : str, int
        Where to listen on this machine: what the tunnel leads to.
    serve : bool
        False if another server serves `app`, mounted where ``public_url`` leads.
    clock : callable
        Unix time in seconds.

    Attributes
    ----------
    webhook_url : str
        What submissions pass as their webhook: ``public_url`` and a path that only this secret gives.
    app : starlette.applications.Starlette
        What is served.

    Raises
    ------
    UsageError
        An argument that cannot work.

    Examples
    --------
    >>> receiver = Receiver(public_url="https://abc.tunnel.example", secret="whsec_test_0123456789")
    >>> receiver
    Receiver('https://abc.tunnel.example')
    >>> receiver.close()
    """

    def __init__(
        self,
        *,
        public_url: str,
        secret: str,
        host: str = "127.0.0.1",
        port: int = 8765,
        serve: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        secret = (secret or "").strip()  # None: from an environment without it
        if not secret or not secret.isprintable():
            raise UsageError("Pass secret=, the webhook secret of your team; the dashboard shows it.")
        if not 0 < port < 65536:
            raise UsageError("port= needs a number from 1 to 65535.")
        # the same in the next process: late events of its jobs still find their way
        path = contract.sign_webhook(secret, "path", b"")[:32]
        self.webhook_url = f"{public_url.strip().rstrip('/')}/{path}"
        self._shown = _shown(self.webhook_url)
        self._inbox = Inbox(secret, clock)
        self.app = Starlette(routes=[Route(f"/{path}", self._inbox.hook, methods=["POST"])])
        self.app.router.redirect_slashes = False
        self._host, self._port, self._serve = host, port, serve
        self._starting = threading.RLock()
        self._stop: weakref.finalize[[], Self] | None = None

    def __repr__(self) -> str:
        return f"Receiver({self._shown!r})"

    @property
    def problem(self) -> str | None:
        """What keeps events from coming, in a sentence: a wrong secret or clock, or that this is closed."""
        return self._inbox.problem

    def listen(self, job_id: str, callback: Callback) -> Callable[[], None]:
        """Have a job's events: those of the last 24 h at once, more as they arrive.

        Parameters
        ----------
        job_id : str
            The job; one that is not known yet will do.
        callback : callable
            Takes the job as the event tells it. Called in this thread or the receiver's: it must neither
            block nor raise.

        Returns
        -------
        callable
            Ends it; safe to call twice.
        """
        return self._inbox.listen(job_id, callback)

    def start(self) -> Self:
        """Listen, then send a signed event through the public URL; does nothing when that was done before.

        Takes 10 s at most. If another server serves `app`, it must run by now, and not wait for this call.

        Raises
        ------
        UsageError
            The port cannot be had, or the public URL does not lead here.
        MissingExtra
            uvicorn is not installed.
        """
        with self._starting:
            if self._stop is None:
                stack = contextlib.ExitStack()
                if self._serve:
                    stack.callback(_served(self.app, self._host, self._port))
                self._stop = weakref.finalize(self, stack.close)
                try:
                    self._test()
                except BaseException:
                    self.close()
                    raise
                self._inbox.problem = None
        return self

    def close(self) -> None:
        """Stop listening, and wait until that is done; safe to call twice."""
        with self._starting:
            if self._stop is not None:
                self._stop()
                self._stop = None
                self._inbox.problem = _CLOSED if self._serve else None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _test(self) -> None:
        arrived, token = threading.Event(), secrets.token_hex(16)
        body = json.dumps({"jobId": token, "status": _SELF_TEST}).encode()
        headers = {**self._inbox.sign(body), "Content-Type": "application/json", "User-Agent": USER_AGENT}
        here = f"http://{self._host}:{self._port}" if self._serve else "the server that has receiver.app"
        unlisten = self.listen(token, lambda _: arrived.set())
        try:
            status = _status_of(self.webhook_url, headers, body)
            told = (
                f"something else answers there ({status}). Let the tunnel or proxy forward to {here}, with "
                "bodies and headers unchanged."
            )
        except Exception as error:
            why = contract.scrubbed(str(error)) or type(error).__name__
            told = (
                f"it cannot be reached ({why}). Check that the tunnel runs, that its address is still this "
                f"one, and that it forwards to {here}."
            )
        finally:
            unlisten()
        if not arrived.is_set():
            raise UsageError(f"The public URL {self._shown} does not lead here: {told}")


def _shown(url: str) -> str:
    """The address without its path; raises `UsageError` if no event could be sent to it."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        parts, port = urlsplit(""), ""
    fits = contract.is_webhook_url(url) and parts.hostname and not (parts.query or parts.fragment)
    if not fits or parts.username is not None:
        raise UsageError("public_url= needs the address of a tunnel or proxy, such as https://abc.example.")
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{name}{port}"


# --- sockets --------------------------------------------------------------------------------------------


def _served(app: Starlette, host: str, port: int) -> Callable[[], None]:
    """Serve in a thread of its own; the result ends that."""
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtra("A receiver needs uvicorn: pip install 'voiceprint_nb[serve]'.") from error

    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,  # the path is a secret
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server, listener = uvicorn.Server(config), _listener(host, port)
    thread = threading.Thread(target=server.run, args=([listener],), name="voiceprint-receiver", daemon=True)
    thread.start()

    def stop() -> None:
        server.should_exit = True
        if thread is not threading.current_thread():  # a receiver may be collected anywhere
            thread.join(2 * _GRACE_S)

    return stop


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"Port {port} of {host} is in use: close what listens there (another receiver?), or pass "
                "another port= and let the tunnel lead to it."
            ) from None
        raise UsageError(f"The receiver cannot listen on {host}:{port}: {error.strerror}.") from None
    # asyncio does this only for sockets that name their protocol; without it each answer waits 40 ms
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _status_of(url: str, headers: dict[str, str], body: bytes) -> int:
    """Status of the answer to a POST; the whole takes `_TEST_S` seconds at most."""
    import httpx

    answer: Future[int] = Future()

    def send() -> None:
        try:
            with new_client(httpx.Client, timeout=_TEST_S) as client:
                request = client.build_request("POST", url, headers=headers, content=body)
                veil(request)
                with contextlib.closing(client.send(request, stream=True)) as got:
                    answer.set_result(got.status_code)
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=send, name="voiceprint-self-test", daemon=True).start()
    return answer.result(_TEST_S)
