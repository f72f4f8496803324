from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceprint_nb.client.receiver import Receiver
from voiceprint_nb.contract import Job, sign_webhook

SIGNER = "whsec_test_0123456789"  # of the contract's test vectors, as are the next three
NOW_S = 1767225600
FAILED_ID = "7f9d0c2a-6a63-4b0d-8a26-0f3f8b7e0c55"
VECTORS = [
    (
        Job("5b1f3f0e-52f1-4e0e-9a63-0d4c7f0d7a10", "succeeded", "", output={"voiceprint": "Zm9v"}),
        b'{"jobId":"5b1f3f0e-52f1-4e0e-9a63-0d4c7f0d7a10","status":"succeeded",'
        b'"output":{"voiceprint":"Zm9v"}}',
        "81a532691744dd8f99914608a626ec776502c9a6c1005a535dffdc864434284f",
        "gaUyaRdE3Y+ZkUYIpibsd2UCyabBAFpTXf/chkQ0KE8=",
    ),
    (
        Job(FAILED_ID, "failed", ""),
        b'{"jobId":"7f9d0c2a-6a63-4b0d-8a26-0f3f8b7e0c55","status":"failed"}',
        "5c95722005e1c6d47414e7b24fc26f226d2ae7ad84513e014773a46fc20e9845",
        "XJVyIAXhxtR0FOeyT8JvIm0q562EUT4BR3Okb8IOmEU=",
    ),
]
FAILED, SIGNATURE = VECTORS[1][1:3]


class Post:
    """A receiver's app, without a server; its clock says what the test says."""

    def __init__(self) -> None:
        self.now_s = float(NOW_S)
        self.receiver = Receiver(
            public_url="https://abc.example/hooks/", secret=SIGNER, clock=lambda: self.now_s
        )

    def send(
        self,
        body: bytes | AsyncIterator[bytes] = FAILED,
        signature: str | bytes | None = None,
        timestamp: str = str(NOW_S),
        **options: Any,
    ) -> int:
        """Status of the answer; rightly signed unless the test says otherwise."""
        if signature is None and isinstance(body, bytes):
            signature = sign_webhook(SIGNER, timestamp, body)
        headers = {"X-Request-Timestamp": timestamp, "X-Signature": signature or ""}
        return self.request("POST", content=body, headers=headers, **options)

    def request(self, method: str, *, path: str | None = None, **options: Any) -> int:
        async def session() -> int:
            transport = httpx.ASGITransport(self.receiver.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                own = "/" + self.receiver.webhook_url.rpartition("/")[2]
                return (await client.request(method, own if path is None else path, **options)).status_code

        return asyncio.run(session())

    def events(self, job_id: str = FAILED_ID) -> list[Job]:
        """Takes a job's events from now on, and those that are kept."""
        heard: list[Job] = []
        self.receiver.listen(job_id, heard.append)
        return heard


@pytest.fixture
def post() -> Post:
    return Post()


def failed(job_id: str) -> bytes:
    return json.dumps({"jobId": job_id, "status": "failed"}).encode()


# --- who is let in --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("event", "body", "as_hex", "as_base64"), VECTORS)
def test_the_contracts_vectors_are_accepted(
    post: Post, event: Job, body: bytes, as_hex: str, as_base64: str
) -> None:
    heard = post.events(event.job_id)
    assert post.send(body, as_hex) == 204
    assert heard == [event]
    for same in (as_base64, f"v0={as_hex}"):
        assert Post().send(body, same) == 204


@pytest.mark.parametrize(("late_s", "status"), [(-301, 401), (-300, 204), (300, 204), (301, 401)])
def test_an_event_must_be_of_these_minutes(post: Post, late_s: int, status: int) -> None:
    post.now_s += late_s
    assert post.send() == status
    assert len(post.events()) == (status == 204)


def test_a_replay_is_answered_and_ignored(post: Post) -> None:
    heard = post.events()
    assert [post.send(), post.send(), post.send(FAILED, VECTORS[1][3])] == [204] * 3
    assert len(heard) == 1


def test_a_repeated_event_with_a_new_signature_is_heard_again(post: Post) -> None:
    heard = post.events()
    assert [post.send(), post.send(timestamp=str(NOW_S + 1))] == [204, 204]
    assert len(heard) == 2


@pytest.mark.parametrize("signature", ["", "v0=", "ü", sign_webhook("whsec_other", str(NOW_S), FAILED)])
def test_nobody_else_is_let_in(post: Post, signature: str) -> None:
    heard = post.events()
    assert post.send(signature=signature.encode("latin-1")) == 401
    assert post.send(failed("another"), SIGNATURE) == 401
    assert post.send(signature=SIGNATURE, timestamp=str(NOW_S + 1)) == 401
    assert not heard


def test_only_posts_to_the_secret_path_are_taken(post: Post) -> None:
    assert post.request("GET") == 405
    assert [post.send(path=path) for path in ("/", "/hooks", "/" + "0" * 32)] == [404] * 3
    assert not post.events()


def test_large_bodies_are_refused(post: Post) -> None:
    def body(n_bytes: int) -> bytes:
        return failed(FAILED_ID).ljust(n_bytes)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1000)

    assert post.send(body(64 * 1024 + 1)) == 413
    assert post.send(endless(), SIGNATURE) == 413
    assert not post.events()
    assert post.send(body(64 * 1024)) == 204


def test_a_body_that_does_not_come_is_not_waited_for(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stuck() -> AsyncIterator[bytes]:
        await asyncio.get_running_loop().create_future()
        yield b""

    monkeypatch.setattr("voiceprint_nb.contract.WEBHOOK_TIMEOUT_S", 0.01)
    assert post.send(stuck(), SIGNATURE) == 408


HEADERS = st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"])).map(str.strip)


@given(body=st.binary(), signature=HEADERS, timestamp=HEADERS | st.just(str(NOW_S)))
def test_junk_has_no_effect(body: bytes, signature: str, timestamp: str) -> None:
    post = Post()
    junk = {b"x-signature": signature.encode("latin-1"), b"x-request-timestamp": timestamp.encode("latin-1")}
    assert post.request("POST", content=body, headers=junk) == 401
    assert "signature" in (post.receiver.problem or "")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["jobId", "status", "output"]), inner),
    max_leaves=6,
)


@given(body=st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_signed_junk_is_refused(body: bytes) -> None:
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    is_event = isinstance(told, dict) and all(isinstance(told.get(name), str) for name in ("jobId", "status"))
    assert Post().send(body) == (204 if is_event else 400)


def test_json_without_end_is_refused(post: Post) -> None:
    assert post.send(b"[" * 50_000) == 400


# --- what is kept ---------------------------------------------------------------------------------------


def test_events_wait_for_who_wants_them(post: Post) -> None:
    post.send()
    assert post.events() == post.events() == [VECTORS[1][0]]
    assert not post.events("another")


def test_events_are_kept_for_a_day(post: Post) -> None:
    post.send()
    post.now_s += 24 * 3600 - 1
    assert post.events()
    post.now_s += 1
    assert not post.events()


def test_a_bounded_number_of_events_is_kept(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voiceprint_nb.client.inbox._MAX_KEPT", 3)
    monkeypatch.setattr("voiceprint_nb.client.inbox._MAX_SEEN", 3)
    for late_s, n in enumerate((0, 1, 2, 0, 3)):
        post.send(failed(str(n)), timestamp=str(NOW_S + late_s))
    assert len(post.receiver._inbox._seen) == len(post.receiver._inbox._kept) == 3
    assert [len(post.events(str(n))) for n in range(4)] == [1, 0, 1, 1]


def test_who_has_stopped_listening_hears_nothing(post: Post) -> None:
    heard: list[Job] = []
    stop = post.receiver.listen(FAILED_ID, heard.append)
    others = post.events()
    stop()
    stop()
    post.send()
    assert not heard
    assert len(others) == 1


def test_a_state_that_is_no_end_is_not_kept(post: Post) -> None:
    heard = post.events()
    assert post.send(json.dumps({"jobId": FAILED_ID, "status": "running"}).encode()) == 204
    assert [job.status for job in heard] == ["running"]
    assert not post.events()


# --- what is wrong --------------------------------------------------------------------------------------


def test_a_wrong_secret_is_told_until_an_event_fits(post: Post) -> None:
    assert post.receiver.problem is None
    post.send(signature="0" * 64)
    assert post.receiver.problem is not None
    assert "check secret=" in post.receiver.problem
    post.send()
    assert post.receiver.problem is None
    post.send(signature="0" * 64)
    assert post.receiver.problem is None


def test_a_wrong_clock_is_told(post: Post) -> None:
    post.now_s += 3600
    post.send()
    assert "clock" in (post.receiver.problem or "")


# --- arguments ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "public_url",
    [
        "",
        "abc.example",
        "ftp://abc.example",
        "https://",
        "https://[half",
        "https://abc.example:port",
        "https://abc.example/?a=b",
        "https://abc.example/#here",
        "https://user:pa55@abc.example",
        "https://abc example",
        "https://abc.example/" + "x" * 2048,
    ],
)
def test_addresses_that_cannot_work(public_url: str) -> None:
    with pytest.raises(ValueError, match="public_url=") as caught:
        Receiver(public_url=public_url, secret=SIGNER)
    assert "pa55" not in str(caught.value)


@pytest.mark.parametrize("secret", ["", " ", None, "whsec_\x07", "\ud800"])
def test_secrets_that_cannot_work(secret: Any) -> None:
    with pytest.raises(ValueError, match="secret="):
        Receiver(public_url="https://abc.example", secret=secret)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_ports_that_cannot_work(port: int) -> None:
    with pytest.raises(ValueError, match="port="):
        Receiver(public_url="https://abc.example", secret=SIGNER, port=port)


def test_the_address_is_the_same_in_the_next_process_and_another_for_each_secret() -> None:
    def url(secret: str) -> str:
        return Receiver(public_url="https://abc.example/hooks/", secret=secret).webhook_url

    assert url(SIGNER) == url(f" {SIGNER}\n") != url("another")
    base, _, path = url(SIGNER).rpartition("/")
    assert base == "https://abc.example/hooks"
    assert len(path) == 32


def test_secrets_are_not_shown(post: Post) -> None:
    assert repr(post.receiver) == "Receiver('https://abc.example')"
