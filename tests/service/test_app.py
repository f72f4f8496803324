from __future__ import annotations

import asyncio
import json
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette

from voiceprint_nb.service.app import Policy, create_app
from voiceprint_nb.service.desk import Desk
from voiceprint_nb.service.keys import PERMISSIONS, KeyRing, OpenDoor
from voiceprint_nb.service.limits import RateLimits
from voiceprint_nb.service.local import LocalService
from voiceprint_nb.service.media import MediaStore
from voiceprint_nb.service.places import AT_ONCE
from voiceprint_nb.service.reading import MAX_JSON_BYTES

Session = Callable[[httpx.AsyncClient], Awaitable[Any]]
UNKNOWN_ID = "3c8a89a5-dcc6-4edb-a75d-ffd64739674d"


def talk(transport: httpx.AsyncBaseTransport, session: Session, **options: Any) -> Any:
    """Runs one client session in an event loop of its own."""

    async def run() -> Any:
        async with httpx.AsyncClient(
            transport=transport, base_url=LocalService.base_url, **options
        ) as client:
            return await session(client)

    return asyncio.run(run())


async def upload(client: httpx.AsyncClient, key: str, data: bytes) -> None:
    ticket = await client.post("/v1/media/input", json={"url": key})
    assert ticket.status_code == 201
    answer = await client.put(ticket.json()["url"], content=data)
    assert (answer.status_code, answer.content) == (200, b"")


async def finish(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """Submits a job and asks for it until it has ended."""
    created = (await client.post("/v1/voiceprint", json={"url": url})).json()
    assert created["status"] == "created"
    deadline = time.monotonic() + 30
    while True:
        job = (await client.get(f"/v1/jobs/{created['jobId']}")).json()
        if job["status"] in ("succeeded", "failed"):
            return dict(job)
        assert job["status"] in ("created", "running")
        assert time.monotonic() < deadline, job
        await asyncio.sleep(0.005)


class StuckEngine:
    """Takes clips and never answers."""

    busy_s = 0.0

    def submit(self, load: Callable[[], Any]) -> Future[Any]:
        return Future()


class App:
    """An app whose jobs never end, for everything that is not about results."""

    def __init__(self, folder: Path, *, keyed: bool = False, policy: Any = None, **options: Any) -> None:
        self.media = MediaStore(folder, max_bytes=100_000)
        self.ring = KeyRing(folder / "keys.sqlite3")
        self.desk = Desk(
            folder, StuckEngine(), self.media, voiceprint=lambda _: "", webhook_secret=str, **options
        )
        door: Any = self.ring if keyed else OpenDoor()
        self.app: Starlette = create_app(self.desk, self.media, Policy(door, **(policy or {})))

    def key(self, *permissions: str, team: str = "default") -> dict[str, str]:
        """The header of a new key."""
        made = self.ring.add(team, permissions or PERMISSIONS)
        return {"Authorization": f"Bearer {made.text}"}

    def talk(self, session: Session, **options: Any) -> Any:
        return talk(httpx.ASGITransport(self.app), session, **options)


@pytest.fixture
def quiet(tmp_path: Path) -> Any:
    apps: list[App] = []

    def make(**options: Any) -> App:
        apps.append(app := App(tmp_path / f"app{len(apps)}", **options))
        return app

    yield make
    for app in apps:
        app.desk.close()
        app.ring.close()


# --- the way of a clip ----------------------------------------------------------------------------------


def test_uploaded_clip_becomes_a_voiceprint(service: LocalService, clip: Any) -> None:
    from voiceprint_nb.engine.embedder import vector_of

    async def session(client: httpx.AsyncClient) -> dict[str, Any]:
        await upload(client, "media://a/b.wav", clip().read_bytes())
        return await finish(client, "media://a/b.wav")

    job = talk(service.transport(), session)
    assert job["status"] == "succeeded"
    assert list(job["output"]) == ["voiceprint"]
    fingerprint, vector = vector_of(job["output"]["voiceprint"])
    assert service.identity == f"local:{fingerprint}"
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)


def test_answers_conform_to_the_contract(service: LocalService, clip: Any, conforms: Any) -> None:
    async def session(client: httpx.AsyncClient) -> None:
        conforms(await client.get("/v1/test"), "GET /v1/test")
        await upload(client, "media://conform", clip().read_bytes())
        ticket = await client.post("/v1/media/input", json={"url": "media://conform"})
        conforms(ticket, "POST /v1/media/input")
        body = {"url": "media://conform", "model": "precision-2"}
        created = await client.post("/v1/voiceprint", json=body)
        conforms(created, "POST /v1/voiceprint")
        assert set(created.json()) == {"jobId", "status"}
        for url in ("media://conform", "media://nothing-there"):
            job = await finish(client, url)
            answer = await client.get(f"/v1/jobs/{job['jobId']}")
            conforms(answer, "GET /v1/jobs/{jobId}")
            assert set(answer.json()) == {"jobId", "status", "createdAt", "updatedAt", "output"}
        page = await client.get("/v2/jobs", params={"limit": 2})
        conforms(page, "GET /v2/jobs")
        assert [set(item) for item in page.json()["items"]] == [{"id", "status", "createdAt"}] * 2

    talk(service.transport(), session)


def test_error_answers_conform_to_the_contract(quiet: Any, conforms: Any) -> None:
    async def session(client: httpx.AsyncClient) -> None:
        denied = await client.post("/v1/voiceprint", headers={"Authorization": "Bearer no"}, json={})
        assert denied.status_code == 401
        conforms(denied, "POST /v1/voiceprint")
        conforms(await client.post("/v1/voiceprint", json={"url": "ftp://x"}), "POST /v1/voiceprint")
        conforms(await client.post("/v1/voiceprint", content=b"url=x"), "POST /v1/voiceprint")
        conforms(await client.post("/v1/media/input", json={"url": "a b"}), "POST /v1/media/input")
        conforms(await client.get(f"/v1/jobs/{UNKNOWN_ID}"), "GET /v1/jobs/{jobId}")
        conforms(await client.get("/v2/jobs?limit=0"), "GET /v2/jobs")
        await client.post("/v1/voiceprint", json={"url": "media://a"})
        full = await client.post("/v1/voiceprint", json={"url": "media://a"})
        assert full.status_code == 429
        conforms(full, "POST /v1/voiceprint")

    app = quiet(keyed=True, max_waiting=1)
    app.talk(session, headers=app.key())


@pytest.mark.parametrize("key", ["media://never-uploaded", "media://" + "x" * 300, "media://odd~name"])
def test_job_on_a_missing_upload_is_accepted_and_fails(service: LocalService, key: str) -> None:
    job = talk(service.transport(), lambda client: finish(client, key))
    assert job["status"] == "failed"
    assert job["output"]["error"].startswith("Could not load audio")


def test_failures_say_why_and_no_more(service: LocalService, clip: Any, tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "silence.wav", np.zeros(16_000), 16_000)
    clips = {
        "media://text": (b"hello, this is text" * 100, "Could not load audio"),
        "media://empty": (b"", "Could not load audio"),
        "media://cut": (clip().read_bytes()[:9000], "Could not load audio"),
        "media://silence": ((tmp_path / "silence.wav").read_bytes(), "No speech found"),
        "media://long": (
            clip(duration_s=31.5).read_bytes(),
            "The audio is 31.5 s long and the limit is 30 s",
        ),
    }

    async def session(client: httpx.AsyncClient) -> None:
        for key, (data, text) in clips.items():
            await upload(client, key, data)
            job = await finish(client, key)
            assert job["status"] == "failed", key
            assert job["output"]["error"].startswith(text)
            assert "/" not in job["output"]["error"]

    talk(service.transport(), session)


@pytest.mark.parametrize(
    ("format", "suffix", "seconds"), [("FLAC", "flac", 30.0), ("OGG", "ogg", 2.0), ("MP3", "mp3", 2.0)]
)
def test_formats_and_the_longest_clip(
    service: LocalService, clip: Any, format: str, suffix: str, seconds: float
) -> None:
    data = clip(f"clip.{suffix}", duration_s=seconds, format=format).read_bytes()

    async def session(client: httpx.AsyncClient) -> dict[str, Any]:
        await upload(client, f"media://{suffix}", data)
        return await finish(client, f"media://{suffix}")

    assert talk(service.transport(), session)["status"] == "succeeded"


def test_last_upload_wins(service: LocalService, clip: Any) -> None:
    voices = [clip(f"{pitch}.wav", pitch_hz=pitch).read_bytes() for pitch in (90.0, 260.0)]

    async def session(client: httpx.AsyncClient) -> list[str]:
        prints = []
        for key, data in (("media://low", 0), ("media://both", 0), ("media://both", 1), ("media://high", 1)):
            await upload(client, key, voices[data])
            prints.append((await finish(client, key))["output"]["voiceprint"])
        return prints

    low, first, second, high = talk(service.transport(), session)
    assert low == first
    assert second == high != low


# --- requests that are refused --------------------------------------------------------------------------


def test_any_key_or_none_is_fine_without_keys(quiet: Any) -> None:
    async def session(client: httpx.AsyncClient) -> list[int]:
        named = await client.get("/v1/test", headers={"Authorization": "Bearer whatever"})
        return [named.status_code, (await client.get("/v1/test")).status_code]

    assert quiet().talk(session) == [200, 200]


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer", 401),
        ("Bearer no", 401),
        ("Bearer k\u00e9", 401),
        ("Basic {key}", 401),
        ("{key}", 401),
        ("Bearer {key}", 200),
        ("bearer {key}", 200),
    ],
)
def test_keys(quiet: Any, header: str | None, status: int) -> None:
    app = quiet(keyed=True)
    key = app.key()["Authorization"].removeprefix("Bearer ")
    headers = {} if header is None else {"Authorization": header.format(key=key).encode()}

    async def session(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [
            await client.get("/v1/test", headers=headers),
            await client.get("/v2/jobs", headers=headers),
            await client.get("/v1/jobs", headers=headers),
            await client.get(f"/v1/jobs/{UNKNOWN_ID}", headers=headers),
            await client.post("/v1/media/input", headers=headers, json={"url": "media://a"}),
            await client.post("/v1/media/output", headers=headers, json={"url": "media://a"}),
            await client.post("/v1/voiceprint", headers=headers, json={"url": "media://a"}),
        ]

    answers = app.talk(session)
    codes = [200, 200, 200, 404, 201, 404, 200] if status == 200 else [401] * 7
    assert [answer.status_code for answer in answers] == codes
    if status == 401:
        assert {answer.json()["message"] for answer in answers} == {"Unauthorized"}
        assert len({answer.json()["requestId"] for answer in answers}) == 7


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("POST", "/v1/identify", 404),
        ("POST", "/v1/diarize", 404),
        ("GET", "/v1/test/", 404),
        ("GET", f"/v1/jobs/{UNKNOWN_ID}", 404),
        ("GET", "/v1/jobs/' OR 1=1", 404),
        ("POST", "/v1/test", 405),
        ("GET", "/v1/voiceprint", 405),
        ("DELETE", f"/v1/jobs/{UNKNOWN_ID}", 405),
        ("GET", "/media/x.y", 403),
        ("DELETE", "/media/x.y", 405),
        ("PUT", "/media/x.y", 403),
        ("PUT", "/media/%C3%A9.%C3%A9", 403),
    ],
)
def test_unknown_and_forbidden_paths(quiet: Any, method: str, path: str, status: int) -> None:
    answer = quiet().talk(lambda client: client.request(method, path))
    assert answer.status_code == status
    assert set(answer.json()) == {"requestId", "message"}
    assert ("no such operation" in answer.json()["message"]) == (status == 404 and "/jobs/" not in path)
    uuid.UUID(answer.json()["requestId"])
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"", ["body"]),
        (b"{", ["body"]),
        (b"\xff\xfe\xfa", ["body"]),
        (b"[" * 60_000, ["body"]),
        (b'{"n": ' + b"1" * 5000 + b"}", ["body"]),
        (b"[]", ["body"]),
        (b'"media://a"', ["body"]),
        (b"{}", ["url"]),
        (b'{"url": "\\ud800"}', ["url"]),
        (b'{"url": 5, "model": [], "webhook": "x", "webhookStatusOnly": 1}', None),
    ],
)
def test_bad_bodies(quiet: Any, body: bytes, fields: list[str] | None) -> None:
    answer = quiet().talk(
        lambda client: client.post(
            "/v1/voiceprint", content=body, headers={"Content-Type": "application/json"}
        )
    )
    assert answer.status_code == 400
    assert answer.json()["message"] == "Invalid request"
    fields = fields or ["url", "model", "webhook", "webhookStatusOnly"]
    assert [error["field"] for error in answer.json()["errors"]] == fields


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (None, 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON", 200),
        ("application/problem+json", 200),
    ],
)
def test_bodies_are_json(quiet: Any, content_type: str | None, status: int) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    body = json.dumps({"url": "media://a"}).encode()
    answer = quiet().talk(lambda client: client.post("/v1/voiceprint", content=body, headers=headers))
    assert answer.status_code == status


async def spaces(n_bytes: int) -> AsyncIterator[bytes]:
    for _ in range(n_bytes // 65536 + 1):
        yield b" " * 65536


@pytest.mark.parametrize("announced", [True, False])
def test_large_bodies_are_refused(quiet: Any, announced: bool) -> None:
    app = quiet()
    headers = {"Content-Type": "application/json"}

    async def session(client: httpx.AsyncClient) -> list[int]:
        json_body = b" " * (MAX_JSON_BYTES + 1) if announced else spaces(MAX_JSON_BYTES)
        ticket = (await client.post("/v1/media/input", json={"url": "media://big"})).json()["url"]
        media_body = b" " * 100_001 if announced else spaces(100_000)
        answers = [
            await client.post("/v1/voiceprint", content=json_body, headers=headers),
            await client.put(ticket, content=media_body),
        ]
        return [answer.status_code for answer in answers]

    assert app.talk(session) == [413, 413]
    assert not app.media.path("default", "media://big").exists()


def test_full_desk_asks_to_wait(quiet: Any) -> None:
    async def session(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [await client.post("/v1/voiceprint", json={"url": "media://a"}) for _ in range(4)]

    answers = quiet(max_waiting=3).talk(session)
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[3].headers["retry-after"] == "1"
    assert answers[3].json()["message"] == "Too many requests: too many jobs wait"


@pytest.mark.parametrize(("plain", "status"), [(False, 400), (True, 200)])
def test_plain_webhooks_are_taken_where_they_are_allowed(quiet: Any, plain: bool, status: int) -> None:
    bodies = [{"url": "media://a", "webhook": f"{scheme}://example.com/hook"} for scheme in ("https", "http")]

    async def session(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [await client.post("/v1/voiceprint", json=body) for body in bodies]

    answers = quiet(policy={"plain_webhooks": plain}).talk(session)
    assert [answer.status_code for answer in answers] == [200, status]
    if status == 400:
        assert answers[1].json()["errors"] == [{"field": "webhook", "message": "Expected an https address"}]


def test_a_fault_answers_500_and_is_logged(quiet: Any, caplog: pytest.LogCaptureFixture) -> None:
    app = quiet()
    app.desk.close()
    transport = httpx.ASGITransport(app.app, raise_app_exceptions=False)
    answer = talk(transport, lambda client: client.post("/v1/voiceprint", json={"url": "media://secret"}))
    assert answer.status_code == 500
    assert answer.json()["requestId"] in caplog.text
    assert "secret" not in caplog.text


# --- lists ----------------------------------------------------------------------------------------------


def test_list_walks_from_the_newest_to_the_oldest(quiet: Any) -> None:
    async def session(client: httpx.AsyncClient) -> tuple[list[str], list[str], int]:
        created = [
            (await client.post("/v1/voiceprint", json={"url": "media://a"})).json()["jobId"]
            for _ in range(25)
        ]
        seen: list[str] = []
        page = (await client.get("/v2/jobs")).json()
        first = len(page["items"])
        seen += [item["id"] for item in page["items"]]
        while page["nextCursor"]:
            page = (await client.get("/v2/jobs", params={"cursor": page["nextCursor"], "limit": 5})).json()
            seen += [item["id"] for item in page["items"]]
        return created, seen, first

    created, seen, first = quiet().talk(session)
    assert first == 10
    assert seen == created[::-1]


def test_list_filters_by_status(service: LocalService) -> None:
    async def session(client: httpx.AsyncClient) -> None:
        job = await finish(client, "media://no-such-thing")
        failed = (await client.get("/v2/jobs?status=failed&limit=100")).json()["items"]
        assert failed[0]["id"] == job["jobId"]
        assert {item["status"] for item in failed} == {"failed"}
        assert (await client.get("/v2/jobs?status=canceled")).json() == {"items": [], "nextCursor": None}

    talk(service.transport(), session)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("limit=1.0", "limit"),
        ("limit=%D9%A1", "limit"),
        ("cursor=5", "cursor"),
        ("status=done", "status"),
    ],
)
def test_bad_list_queries(quiet: Any, query: str, field: str) -> None:
    answer = quiet().talk(lambda client: client.get(f"/v2/jobs?{query}"))
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_the_older_list_takes_and_skips(quiet: Any, conforms: Any) -> None:
    async def session(client: httpx.AsyncClient) -> None:
        ids = [
            (await client.post("/v1/voiceprint", json={"url": "media://a"})).json()["jobId"]
            for _ in range(12)
        ]
        newest = ids[::-1]
        answer = await client.get("/v1/jobs")
        conforms(answer, "GET /v1/jobs")
        assert ([item["id"] for item in answer.json()["items"]], answer.json()["total"]) == (newest[:10], 12)
        for query, expected in (
            ("take=3", newest[:3]),
            ("take=3&skip=2", newest[2:5]),
            ("skip=11", newest[11:]),
            (f"skip={10**30}", []),
        ):
            items = (await client.get(f"/v1/jobs?{query}")).json()["items"]
            assert [item["id"] for item in items] == expected
        none = (await client.get("/v1/jobs?status=failed")).json()
        assert none == {"items": [], "total": 0}
        for query, field in (
            ("take=0", "take"),
            ("take=101", "take"),
            ("skip=-1", "skip"),
            ("status=x", "status"),
        ):
            refused = await client.get(f"/v1/jobs?{query}")
            conforms(refused, "GET /v1/jobs")
            assert [error["field"] for error in refused.json()["errors"]] == [field]

    quiet().talk(session)


def test_any_cursor_is_a_position(quiet: Any) -> None:
    async def session(client: httpx.AsyncClient) -> list[int]:
        for _ in range(3):
            await client.post("/v1/voiceprint", json={"url": "media://a"})
        cursors = [
            "f" * 8 + "-ffff-4fff-bfff-" + "f" * 12,
            UNKNOWN_ID.upper(),
            "0" * 8 + "-0000-4000-8000-" + "0" * 12,
        ]
        return [len((await client.get(f"/v2/jobs?cursor={cursor}")).json()["items"]) for cursor in cursors]

    assert quiet().talk(session) == [3, 3, 0]


# --- teams, permissions, limits -------------------------------------------------------------------------


def test_teams_see_neither_jobs_nor_media_of_each_other(quiet: Any) -> None:
    app = quiet(keyed=True)
    ours, same, theirs = app.key(team="ours"), app.key(team="ours"), app.key(team="theirs")

    async def session(client: httpx.AsyncClient) -> None:
        ticket = await client.post("/v1/media/input", json={"url": "media://a"}, headers=ours)
        await client.put(ticket.json()["url"], content=b"ours")
        job = (await client.post("/v1/voiceprint", json={"url": "media://a"}, headers=ours)).json()
        for headers, n_jobs, status, output in (
            (ours, 1, 200, 201),
            (same, 1, 200, 201),
            (theirs, 0, 404, 404),
        ):
            assert (await client.get(f"/v1/jobs/{job['jobId']}", headers=headers)).status_code == status
            assert len((await client.get("/v2/jobs", headers=headers)).json()["items"]) == n_jobs
            assert (await client.get("/v1/jobs", headers=headers)).json()["total"] == n_jobs
            answer = await client.post("/v1/media/output", json={"url": "media://a"}, headers=headers)
            assert answer.status_code == output
        ticket = await client.post("/v1/media/input", json={"url": "media://a"}, headers=theirs)
        await client.put(ticket.json()["url"], content=b"theirs")
        link = (await client.post("/v1/media/output", json={"url": "media://a"}, headers=ours)).json()["url"]
        assert (await client.get(link)).content == b"ours"

    app.talk(session)


OPERATIONS = {
    "jobs:read": [("GET", f"/v1/jobs/{UNKNOWN_ID}"), ("GET", "/v1/jobs"), ("GET", "/v2/jobs")],
    "jobs:write": [("POST", "/v1/voiceprint")],
    "media:read": [("POST", "/v1/media/output")],
    "media:write": [("POST", "/v1/media/input")],
    "metrics:read": [("GET", "/metrics")],
}


@pytest.mark.parametrize("permission", OPERATIONS)
def test_a_key_may_do_what_it_was_made_for(quiet: Any, conforms: Any, permission: str) -> None:
    app = quiet(keyed=True, policy={"metrics": lambda: (b"", "text/plain")})
    headers = app.key(permission)

    async def session(client: httpx.AsyncClient) -> None:
        assert (await client.get("/v1/test")).status_code == 200
        for needed, calls in OPERATIONS.items():
            for method, path in calls:
                answer = await client.request(method, path, json={"url": "media://a"})
                assert (answer.status_code == 403) == (needed != permission), (method, path)
                if needed != permission:
                    assert answer.json()["message"] == f"Forbidden: the key lacks the permission {needed}"

    app.talk(session, headers=headers)


def test_limits_count_each_endpoint_for_the_team(quiet: Any, conforms: Any) -> None:
    clock = [0.0]
    limits = RateLimits(writes=2, reads=3, clock=lambda: clock[0])
    app = quiet(keyed=True, policy={"limits": limits})
    keys = [app.key(), app.key("jobs:read", "jobs:write")]
    body = {"url": "media://a"}

    async def session(client: httpx.AsyncClient) -> None:
        answers = [await client.post("/v1/voiceprint", json=body, headers=key) for key in (*keys, keys[0])]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
        assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {"2"}
        assert answers[2].headers["retry-after"] == answers[2].headers["x-ratelimit-reset"] == "60"
        conforms(answers[2], "POST /v1/voiceprint")
        other = await client.get("/v2/jobs", headers=keys[0])
        assert (other.headers["x-ratelimit-limit"], other.headers["x-ratelimit-remaining"]) == ("3", "2")
        test = await client.get("/v1/test", headers=keys[0])
        assert test.headers["x-ratelimit-limit"] == "2"
        stranger = await client.post("/v1/voiceprint", json=body, headers=app.key(team="others"))
        assert stranger.headers["x-ratelimit-remaining"] == "1"
        clock[0] = 60.0
        assert (await client.post("/v1/voiceprint", json=body, headers=keys[0])).status_code == 200

    app.talk(session)


def test_error_answers_tell_of_the_limit_too(quiet: Any) -> None:
    async def session(client: httpx.AsyncClient) -> list[httpx.Response]:
        json_type = {"Content-Type": "application/json"}
        return [
            await client.post("/v1/voiceprint", json={"url": "no"}),
            await client.post("/v1/voiceprint", content=b"x"),
            await client.post("/v1/voiceprint", content=b"{", headers=json_type),
            await client.post("/v1/media/output", json={"url": "media://none"}),
            await client.get(f"/v1/jobs/{UNKNOWN_ID}"),
        ]

    answers = quiet(policy={"limits": RateLimits()}).talk(session)
    assert [answer.status_code for answer in answers] == [400, 415, 400, 404, 404]
    remaining = [answer.headers["x-ratelimit-remaining"] for answer in answers]
    assert remaining == ["99", "98", "97", "99", "299"]


def test_strangers_use_up_no_limit(quiet: Any) -> None:
    app = quiet(keyed=True, policy={"limits": RateLimits(writes=1)})
    headers = app.key()

    async def session(client: httpx.AsyncClient) -> int:
        for _ in range(3):
            refused = await client.get("/v1/test", headers={"Authorization": "Bearer vpnb_guess"})
            assert refused.status_code == 401
            assert "x-ratelimit-limit" not in refused.headers
        return (await client.get("/v1/test", headers=headers)).status_code

    assert app.talk(session) == 200


# --- presigned links ------------------------------------------------------------------------------------


def test_downloads_by_range(quiet: Any) -> None:
    data = bytes(range(256)) * 40

    async def session(client: httpx.AsyncClient) -> None:
        await upload(client, "media://a", data)
        answer = await client.post("/v1/media/output", json={"url": "media://a"})
        assert answer.status_code == 201
        link = answer.json()["url"]
        whole = await client.get(link)
        assert (whole.status_code, whole.content) == (200, data)
        assert whole.headers["accept-ranges"] == "bytes"
        assert whole.headers["cache-control"] == "private, no-store"
        assert whole.headers["content-type"] == "application/octet-stream"
        head = await client.head(link)
        assert (head.headers["content-length"], head.content) == (str(len(data)), b"")
        for span, part in (("0-41", data[:42]), ("-100", data[-100:]), ("10000-", data[10000:])):
            answer = await client.get(link, headers={"Range": f"bytes={span}"})
            assert (answer.status_code, answer.content) == (206, part)
            assert answer.headers["content-range"].endswith(f"/{len(data)}")
        beyond = await client.get(link, headers={"Range": "bytes=999999-"})
        assert beyond.status_code == 416
        assert (await client.put(link, content=b"x")).status_code == 403

    quiet().talk(session)


def test_a_team_holds_only_so_many_places_and_gives_them_back(quiet: Any) -> None:
    app = quiet(keyed=True)
    ours, theirs = app.key(team="ours"), app.key(team="theirs")

    async def session(client: httpx.AsyncClient) -> None:
        go_on, begun = asyncio.Event(), asyncio.Semaphore(0)

        async def slow() -> AsyncIterator[bytes]:
            begun.release()
            await go_on.wait()
            yield b"x"

        async def link(headers: dict[str, str]) -> str:
            answer = await client.post("/v1/media/input", json={"url": "media://a"}, headers=headers)
            return str(answer.json()["url"])

        url = await link(ours)
        uploads = [asyncio.create_task(client.put(url, content=slow())) for _ in range(AT_ONCE)]
        for _ in uploads:
            await begun.acquire()
        refused = await client.put(url, content=b"x")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert (await client.get("/v1/test", headers=ours)).json()["message"] == "Too many requests at once"
        assert (await client.put(await link(theirs), content=b"x")).status_code == 200
        go_on.set()
        assert {answer.status_code for answer in await asyncio.gather(*uploads)} == {200}
        assert (await client.get("/v1/test", headers=ours)).status_code == 200

    app.talk(session)


def test_a_full_disk_takes_no_uploads(quiet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def session(client: httpx.AsyncClient) -> httpx.Response:
        link = (await client.post("/v1/media/input", json={"url": "media://a"})).json()["url"]
        return await client.put(link, content=b"x")

    free = shutil.disk_usage("/").free
    monkeypatch.setattr("voiceprint_nb.service.media._SPARE_BYTES", 2 * free)
    assert quiet().talk(session).status_code == 503


def test_links_name_the_public_address(quiet: Any) -> None:
    body = {"url": "media://a"}
    answer = quiet(policy={"public_url": "https://voices.example/api"}).talk(
        lambda client: client.post("/v1/media/input", json=body)
    )
    assert answer.json()["url"].startswith("https://voices.example/api/media/")


# --- for operators --------------------------------------------------------------------------------------


def test_health_tells_when_work_has_stopped(quiet: Any) -> None:
    app = quiet()
    assert app.talk(lambda client: client.get("/health")).json() == {"status": "ok"}
    app.desk.close()
    down = app.talk(lambda client: client.get("/health"))
    assert (down.status_code, down.json()) == (503, {"status": "down"})


def test_the_description_is_of_these_routes(quiet: Any) -> None:
    app = quiet(keyed=True, policy={"metrics": lambda: (b"", "text/plain")})
    described = app.talk(lambda client: client.get("/openapi.json")).json()["paths"]
    declared = {(method.upper(), path) for path, item in described.items() for method in item}
    routes = {
        (method, route.path.replace("{job_id}", "{jobId}"))
        for route in app.app.routes
        for method in route.methods
        if method != "HEAD" and route.path != "/media/{token}"
    }
    assert declared == routes


def test_without_figures_there_is_no_such_path(quiet: Any) -> None:
    assert quiet().talk(lambda client: client.get("/metrics")).status_code == 404
