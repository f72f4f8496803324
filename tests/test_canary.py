"""A key, signed links and voiceprints are told to nobody: not by objects, logs, errors, outputs or files.

Each is unlike anything else, is really sent and received, and is then looked for in everything that can be
heard: with all loggers at DEBUG, event loops that tell of each step, and every object of the package shown.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import faulty
import httpx
import nbformat
import pandas as pd
import pytest
import stamina
import uvicorn
from ears import (
    ECHO,
    KEY,
    PASSWORD,
    QUERY,
    SECRET,
    SIGNATURE,
    Ears,
    Gate,
    hear_error,
    hear_ledger,
    hear_locals,
    hear_result,
    hearing,
)
from faulty import Fault, Faulty, answers, fails, write_clip
from helpers import World
from nbclient import NotebookClient
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

import voiceprint_nb as vp
from tests.intake import counted_web
from tests.service.parts import certificate
from voiceprint_nb.batch.bridge import loop_thread
from voiceprint_nb.command import main
from voiceprint_nb.errors import ServiceError, UsageError, VoiceprintError
from voiceprint_nb.service.local import LocalService


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """No test reaches the user's own ledger, key, service or temporary files; retries happen at once."""
    for name in ("PYANNOTEAI_API_KEY", "VOICEPRINT_NB_SERVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VOICEPRINT_NB_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with stamina.set_testing(True, attempts=2, cap=True):
        yield tmp_path


@pytest.fixture
def ears(place: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Ears]:
    """Hears everything that happens in a test; in the end, nothing of it is a secret."""
    with hearing() as ears:
        yield ears
    for stream, text in zip(("stdout", "stderr"), capfd.readouterr(), strict=True):
        ears.hear(stream, text)
    hear_ledger(ears, place / "data")
    assert any(where == "log of asyncio" for where, _ in ears.told)
    assert ears.leaks() == set()


# --- a service on a real socket -------------------------------------------------------------------------


@contextlib.contextmanager
def listening(app: ASGIApp, **options: Any) -> Iterator[str]:
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", **options)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def module_gate() -> Iterator[Gate]:
    with LocalService(threads=1, webhook_secret=SECRET) as local:
        gate = Gate(local.transport().app)
        with listening(gate) as address:
            gate.url = f"http{address}"
            yield gate


@pytest.fixture
def gate(module_gate: Gate, ears: Ears, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """The service, with the key in the environment, where most people keep it."""
    monkeypatch.setenv("VOICEPRINT_NB_SERVICE", module_gate.url)
    monkeypatch.setenv("PYANNOTEAI_API_KEY", KEY)
    module_gate.forget()
    module_gate.ears = ears
    yield module_gate
    module_gate.ears = None


@pytest.fixture(scope="module")
def web() -> Iterator[counted_web.Web]:
    with counted_web.serving() as web:
        yield web


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [write_clip(folder / f"{seed}.wav", seed=seed) for seed in range(6)]


def test_a_run_that_succeeds(gate: Gate, ears: Ears, web: counted_web.Web, clips: list[Path]) -> None:
    link = f"{web.put(clips[2].read_bytes(), 'direct')}?{QUERY}"
    signed = f"{web.put(clips[3].read_bytes(), 'signed')}?{QUERY}"
    leads = web.put(b"", "leads", status=302, headers={"Location": signed, "Set-Cookie": f"sid={SIGNATURE}"})
    cells = [str(clips[0]), clips[1].read_bytes(), link, leads]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with vp.Receiver(public_url=f"http://127.0.0.1:{port}", secret=SECRET, port=port) as receiver:
        ears.secrets["path of webhooks"] = receiver.webhook_url.rpartition("/")[2]
        run = vp.submit(cells, receiver=receiver)
        ears.hear("run", f"{run!r} {run._session!r} {run._session.tally.snapshot()!r}")
        out = run.result()
    assert out.vp_status.eq("succeeded").all(), out.vp_error
    ears.knows(list(out["voiceprint"]))
    again = vp.voiceprints(cells)
    assert again.vp_source.eq("reused").all()
    one = vp.voiceprint(clips[4])
    ears.knows([one.text])
    ears.hear("run", f"{run!r} {run._session!r} {vars(run)!r}")
    ears.hear("voiceprint", f"{one!r} {one} {receiver!r} {receiver.problem}")
    ears.hear("plan and doctor", f"{vp.plan(cells)!r} {vp.doctor(online=True)} {vp.doctor()._repr_html_()}")
    ears.hear("runs and resume", f"{vp.runs().to_csv()} {vp.resume().attrs}")
    for result in (out, again):
        hear_result(ears, result)
    assert f"Bearer {KEY}" in gate.keys  # it was really sent,
    assert any(QUERY.encode() in body for body in gate.bodies)  # as were the links,
    assert len(gate.puts) == 3  # and the uploads' own


REFUSED = {
    "401": JSONResponse({"message": ECHO}, 401, {"WWW-Authenticate": f'Bearer error="{KEY}"'}),
    "402": JSONResponse({"message": ECHO}, 402),
    "403": JSONResponse({"message": ECHO, "errors": [{"field": KEY, "message": f"/a.wav?{QUERY}"}]}, 403),
    "404": JSONResponse({"message": ECHO}, 404),
    "500": JSONResponse({"message": ECHO}, 500),
    "a web page": HTMLResponse(f"<html>{ECHO}</html>", 502),
    "a redirect": Response("", 307, {"Location": f"https://elsewhere.example/?{QUERY}"}),
    "not JSON": Response(f"{{{ECHO}", 200, {"Set-Cookie": f"session={KEY}"}),
}


async def cut(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"99")]})
    await send({"type": "http.response.body", "body": ECHO[:20].encode()})


@pytest.mark.parametrize("fault", [*REFUSED.items(), ("cut", cut)], ids=lambda fault: fault[0])
def test_a_service_that_refuses_or_fails(
    gate: Gate, ears: Ears, clips: list[Path], fault: tuple[str, ASGIApp]
) -> None:
    gate.faults = [("GET", "/v1/test", fault[1])]
    run = vp.submit([str(clips[0]), f"https://clips.example/a.wav?{QUERY}"], progress=False)
    with pytest.raises(ServiceError) as caught:
        run.result()
    hear_error(ears, caught.value)
    hear_result(ears, caught.value.partial)
    ears.hear("run", f"{run!r} {run._session.tally.snapshot()!r}")
    with pytest.raises(ServiceError) as caught:
        vp.voiceprint(clips[0])
    hear_error(ears, caught.value)
    hear_locals(ears, caught.value)
    assert f"Bearer {KEY}" in gate.keys


@pytest.mark.parametrize("kind", ["nobody", "certificate"])
def test_a_service_that_cannot_be_reached(
    kind: str, ears: Ears, clips: list[Path], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYANNOTEAI_API_KEY", KEY)
    with contextlib.ExitStack() as stack:
        if kind == "certificate":
            files = dict(zip(("ssl_keyfile", "ssl_certfile"), tls_files(place), strict=True))
            url = f"https{stack.enter_context(listening(REFUSED['401'], **files))}"
        else:
            with socket.create_server(("127.0.0.1", 0)) as free:
                url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ServiceError, match=kind if kind == "certificate" else "reached") as caught:
            vp.voiceprints([str(clips[0])], service=url)
    hear_error(ears, caught.value)
    hear_locals(ears, caught.value)


def tls_files(folder: Path) -> tuple[Path, Path]:
    certificate(folder)
    return folder / "key.pem", folder / "certificate.pem"


# --- each step of a row, with faults --------------------------------------------------------------------


@pytest.fixture(scope="module")
def inner() -> Iterator[httpx.ASGITransport]:
    with LocalService(threads=1) as local:
        yield local.transport()


def job_failed(body: Any) -> Any:
    return body | {"status": "failed", "output": {"error": ECHO, "warning": ECHO}}


def warned(body: Any) -> Any:
    return body | ({"output": body["output"] | {"warning": ECHO}} if "output" in body else {})


PATHS = {"ticket": "/v1/media/input", "upload": "/media/", "submit": "/v1/voiceprint", "job": "/v1/jobs/"}
METHODS = {"ticket": "POST", "upload": "PUT", "submit": "POST", "job": "GET"}
ALL_STEPS = tuple(PATHS)
FAULTS: dict[str, tuple[Fault, tuple[str, ...]]] = {
    **{
        str(status): (answers(status, {"message": ECHO}, Location=f"https://x.example/?{QUERY}"), ALL_STEPS)
        for status in (307, 400, 401, 402, 403, 404, 413, 500)
    },
    "429": (answers(429, {"message": ECHO}, Retry_After="1"), ("submit",)),
    "web page": (answers(502, text=f"<html>{ECHO}</html>"), ALL_STEPS),
    "not JSON": (answers(200, text=ECHO), ("ticket", "submit", "job")),
    "other JSON": (answers(200, {"url": [ECHO], "jobId": None, "status": ECHO}), ("ticket", "submit", "job")),
    "no address": (answers(201, {"url": f"https://[/?{QUERY}"}), ("ticket",)),
    "other scheme": (answers(201, {"url": f"gopher://x/{QUERY}"}), ("ticket",)),
    "refused connection": (fails(httpx.ConnectError), ALL_STEPS),
    "certificate": (fails(httpx.ConnectError, ssl.SSLCertVerificationError(ECHO)), ALL_STEPS),
    "cut": (fails(httpx.ReadError), ALL_STEPS),
    "nonsense": (fails(httpx.RemoteProtocolError), ALL_STEPS),
    "timeout": (fails(httpx.ReadTimeout), ALL_STEPS),
    "job failed": (faulty.changes(job_failed), ("job",)),
    "warning": (faulty.changes(warned), ("job",)),
    "warning at once": (faulty.changes(lambda body: body | {"warning": ECHO}), ("submit",)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_at_each_step(
    name: str, ears: Ears, inner: httpx.ASGITransport, clips: list[Path], place: Path
) -> None:
    fault, steps = FAULTS[name]
    for step in steps:
        wire = Faulty(inner)
        wire.always(METHODS[step], PATHS[step], fault)
        soon = {"deadline_s": lambda duration_s, n_open: 0.3}
        world = World(wire, place / "data" / step, options=soon, timeout_s=5.0, api_key=KEY)
        ran = world.run([str(clips[0]), clips[1].read_bytes()])
        for sent in wire.requests:
            if sent.method == "PUT":
                token = str(httpx.URL(sent.url).raw_path).rpartition("/")[2]
                ears.secrets[f"upload {token}"] = token
        if any(ran.prints):
            ears.knows([text for text in ran.prints if text])
        ears.hear(f"outcomes of {step}", repr(ran.outcomes))
        ears.hear(f"warnings of {step}", [outcome.warning for outcome in ran.outcomes])
        ears.hear(f"snapshot of {step}", repr(ran.tally.snapshot()))
        if ran.error is not None:
            assert isinstance(ran.error, VoiceprintError)
            hear_error(ears, ran.error)
        assert any(sent.headers.get("authorization") == f"Bearer {KEY}" for sent in wire.requests)
        hear_ledger(ears, place / "data" / step)


# --- rows with links ------------------------------------------------------------------------------------


def link_rows(web: counted_web.Web, clip: bytes) -> dict[str, str]:
    """A signed link for each way in which links fail."""
    page = b"<!doctype html><html>sign in</html>"
    to = partial(web.put, b"", status=302)
    loop = f"http://127.0.0.1:{web.port}/loop?{QUERY}"
    urls = {
        "url_refused": web.put(ECHO.encode(), "403", status=403, headers={"Content-Type": "text/plain"}),
        "url_not_found": web.put(ECHO.encode(), "404", status=404),
        "url_unreachable": web.put(ECHO.encode(), "500", status=500),
        "url_web_page": web.put(page, "page", headers={"Content-Type": "text/html"}),
        "url_redirects": to("loop", headers={"Location": loop}),
        "url_unreachable 2": to("nowhere", headers={"Location": f"http://[{QUERY}"}),
        "url_unreachable 3": to("scheme", headers={"Location": f"gopher://x.example/?{QUERY}"}),
        "url_refused 2": to("leads", headers={"Location": f"http://127.0.0.1:{web.port}/403?{QUERY}"}),
        "not_audio": web.put(ECHO.encode() * 40, "text"),
        "truncated": web.put(clip[: len(clip) // 2], "half"),
        "url_unreachable 4": "http://no-such-host.invalid/a.wav",
        "url_unreachable 5": "http://127.0.0.1:1/a.wav",
        "url_unreachable 6": f"https://127.0.0.1:{web.port}/403",
        "file_not_found": "storage.example/clip.wav",
        "file_not_found 2": "https:/storage.example/clip.wav",
    }
    return {code: f"{url}?{QUERY}" for code, url in urls.items()}


def test_links_that_fail(
    gate: Gate, ears: Ears, web: counted_web.Web, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = link_rows(web, clips[5].read_bytes())
    for verb in (
        vp.check,
        vp.voiceprints,
        partial(vp.voiceprints, service="local"),
        partial(vp.check, fit="head"),
    ):
        out = verb(list(rows.values()))
        assert out.vp_error_code.tolist() == [code.partition(" ")[0] for code in rows]
        hear_result(ears, out)
    for url in rows.values():
        with pytest.raises(vp.RowError) as caught:
            vp.voiceprint(url, service="local", ledger=False)
        hear_error(ears, caught.value)


def test_a_link_that_is_too_slow(ears: Ears, place: Path) -> None:
    from voiceprint_nb.fetching import download

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.wav?{QUERY}"
        for limits in ({"timeout_s": 0.05}, {"timeout_s": 9.0, "quiet_s": 0.05}):
            with pytest.raises(vp.RowError) as caught:
                work = download(url, place / "copy", max_bytes=99, **limits)
                loop_thread().start(work).wait()
            assert caught.value.code == "url_timeout"
            hear_error(ears, caught.value)


def test_objects_of_clouds(
    gate: Gate, ears: Ears, web: counted_web.Web, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails_at(address: str) -> str:
        raise OSError(ECHO)

    refused = web.put(ECHO.encode(), "403", status=403)
    good = web.put(clips[5].read_bytes(), "good")
    signs: list[tuple[Callable[[str], str], str | None]] = [
        (fails_at, "url_refused"),
        (lambda _: f"gopher://x.example/?{QUERY}", "url_unreachable"),
        (lambda _: f"http://far.example/?{QUERY}", "url_unreachable"),
        (lambda _: f"{refused}?{QUERY}", "url_refused"),
        (lambda _: f"{good}?{QUERY}", None),
    ]
    for sign, code in signs:
        for verb in (vp.voiceprints, partial(vp.voiceprints, service="local", ledger=False)):
            out = verb(["s3://voices/clip.wav"], sign=sign)
            assert out.vp_error_code.dropna().tolist() == ([code] if code else [])
            hear_result(ears, out)
            if code is None:
                ears.knows(list(out["voiceprint"]))
    assert any(QUERY.encode() in body for body in gate.bodies)
    for refusal in ("401", "402"):
        gate.faults = [("POST", "/v1/voiceprint", REFUSED[refusal])]
        with pytest.raises(ServiceError) as caught:
            vp.voiceprints(["s3://voices/clip.wav"], sign=lambda _: f"{good}?{QUERY}", ledger=False)
        hear_error(ears, caught.value)
        hear_locals(ears, caught.value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", PASSWORD)
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{web.port}")
    ears.secrets["obstore's link"] = "X-Amz-Credential=AKIDEXAMPLE%2F"
    out = vp.voiceprints(["s3://voices/clip.wav", "s3://voices//clip.wav", "s3://voices"])
    assert out.vp_error_code.tolist() == ["url_not_found", "unsupported_cell", "unsupported_cell"]
    hear_result(ears, out)


# --- webhooks -------------------------------------------------------------------------------------------


def test_webhooks_that_do_not_arrive(gate: Gate, ears: Ears, clips: list[Path], web: counted_web.Web) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for public_url in (f"http://127.0.0.1:{web.port}", "http://no-such-host.invalid", "https://127.0.0.1:1"):
        receiver = vp.Receiver(public_url=public_url, secret=SECRET, port=port)
        ears.secrets[f"path at {public_url}"] = receiver.webhook_url.rpartition("/")[2]
        with pytest.raises(UsageError) as caught:
            receiver.start()
        hear_error(ears, caught.value)
        ears.hear("receiver", f"{receiver!r} {receiver.problem}")
    with vp.Receiver(public_url=f"http://127.0.0.1:{port}", secret=f"{SECRET}-other", port=port) as receiver:
        ears.secrets["path"] = receiver.webhook_url.rpartition("/")[2]
        out = vp.voiceprints([str(clips[0])], receiver=receiver, ledger=False)
        ears.hear("receiver", f"{receiver!r} {receiver.problem}")
        assert "does not match" in (receiver.problem or "")
    ears.knows(list(out["voiceprint"]))
    hear_result(ears, out)


# --- outputs --------------------------------------------------------------------------------------------


def test_a_notebook(gate: Gate, ears: Ears, clips: list[Path], web: counted_web.Web, place: Path) -> None:
    link = f"{web.put(clips[2].read_bytes(), 'direct')}?{QUERY}"
    pd.DataFrame({"speaker": ["a", "b", "c"], "audio": [clips[0], clips[1], link]}).to_csv(place / "rows.csv")
    sources = [
        "import logging, sys, pandas as pd, voiceprint_nb as vp\n"
        "logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)\n"
        "df = pd.read_csv('rows.csv')",
        "out = vp.voiceprints(df, 'audio'); out.filter(like='vp_')",
        "run = vp.submit(df.iloc[:2], 'audio', ledger=False); run",
        "await run; run",
        "vp.show(out)",
        "vp.plan(df, 'audio')",
        "vp.doctor(online=True)",
        "vp.voiceprint(df.audio[0])",
        "vp.compare(out, label='speaker')",
        "vp.voiceprints(df, 'audio', api_key='', service='pyannoteai')",
        "%xmode Verbose",
        "vp.voiceprints(df, 'audio', ledger=False, progress=False, model='refused')",
        "open('prints', 'w').write(' '.join(out['voiceprint']))",
        "vp.check(df, 'audio').filter(like='vp_')",
    ]
    refusal = JSONResponse({"message": ECHO}, 401)
    gate.faults = [("POST", "/v1/voiceprint", if_model(refusal, gate.inner))]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    for cell in (cells[9], cells[11]):
        cell.metadata["tags"] = ["raises-exception"]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(place)}}).execute()
    ears.knows((place / "prints").read_text().split())
    for cell in notebook.cells:
        ears.hear(f"output of {cell.source}", nbformat.from_dict({"outputs": cell.outputs}))
    errors = [output.ename for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert errors == ["UsageError", "KeyRefused"]
    assert f"Bearer {KEY}" in gate.keys


def if_model(refusal: ASGIApp, inner: ASGIApp) -> ASGIApp:
    """Refuses requests for a model."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()

        async def again() -> Any:
            return message

        return await (refusal if b'"model"' in message.get("body", b"") else inner)(scope, again, send)

    return app


def test_the_terminal(gate: Gate, ears: Ears, clips: list[Path], web: counted_web.Web, place: Path) -> None:
    links = [web.put(clips[2].read_bytes(), "direct"), *link_rows(web, clips[5].read_bytes()).values()]
    table = place / "rows.csv"
    pd.DataFrame({"audio": [clips[0], *(f"{link.partition('?')[0]}?{QUERY}" for link in links)]}).to_csv(
        table
    )
    for command in ("check", "plan", "run", "resume", "runs", "doctor"):
        assert main([command, *([str(table)] if command in ("check", "plan", "run") else [])]) in (0, 1)
    assert main(["run", str(table), "--out", str(place / "out.parquet")]) == 1
    ears.knows(list(pd.read_parquet(place / "out.parquet")["voiceprint"].dropna()))
    gate.faults = [("GET", "/v1/test", REFUSED["401"])]
    table.write_text(f"audio\n{clips[3]}\n")
    assert main(["run", str(table)]) == 3
