"""`vp.doctor`: what it sees, here and in a kernel, and what it never tells."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import voiceprint_nb as vp
from tests.served import serving
from voiceprint_nb.batch.store import FILE_NAME, Ledger
from voiceprint_nb.command import main

KEY = "k3y-that-nobody-sees"


def told(topic, **options):
    report = vp.doctor(**options)
    (found,) = [finding for finding in report.findings if finding.topic == topic]
    return found


def test_a_sound_place_is_well():
    report = vp.doctor()
    assert report.is_well
    assert repr(report).endswith("Nothing is wrong.")
    for topic in ("Python", "packages", "place", "ffmpeg", "service", "key", "ledger", "itables"):
        assert f" {topic} " in repr(report)
        assert f">{topic}</th>" in report._repr_html_()
    assert "The audio stays on this machine." in repr(report)


def test_the_key_is_never_told(monkeypatch):
    monkeypatch.setenv("PYANNOTEAI_API_KEY", KEY)
    for options in ({}, {"service": "local"}, {"api_key": KEY}, {"api_key": f"hf_{KEY}"}):
        report = vp.doctor(**options)
        assert KEY not in repr(report) + report._repr_html_() + str(report.findings)
    assert told("key").text == "There is one, from PYANNOTEAI_API_KEY; it is never shown."
    assert "from api_key=" in told("key", api_key="other").text
    assert "not used" in told("key", service="local").text
    assert "api.pyannote.ai" in told("service").text
    refused = told("service", api_key=f"hf_{KEY}")
    assert (refused.level, "Hugging Face" in refused.text) == ("wrong", True)


def test_nothing_is_made(tmp_path):
    folder = tmp_path / "not-there"
    assert "none yet" in told("ledger", data_dir=folder).text
    assert not folder.exists()


def test_the_ledger(tmp_path):
    Ledger(tmp_path).close()
    found = told("ledger", data_dir=tmp_path)
    assert (found.level, "readable by you only" in found.text) == ("ok", True)
    file = tmp_path / FILE_NAME
    with sqlite3.connect(file) as database:
        before = list(database.iterdump())
    file.chmod(0o644)
    found = told("ledger", data_dir=tmp_path)
    assert (found.level, "chmod 600" in found.text) == ("wrong", True)
    with sqlite3.connect(file) as database:
        assert list(database.iterdump()) == before
    assert file.stat().st_mode & 0o777 == 0o644
    file.unlink()
    file.mkdir()
    assert told("ledger", data_dir=tmp_path).level == "wrong"
    (tmp_path / "file").touch()
    assert told("ledger", data_dir=tmp_path / "file" / "below").level == "wrong"


def test_ffmpeg_and_extras(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = told("ffmpeg")
    assert (found.level, "M4A" in found.text) == ("note", True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert told("obstore").text.endswith("pip install 'voiceprint_nb[cloud]'.")
    assert told("keyring").text.endswith("pip install keyring.")
    assert vp.doctor().is_well


def test_proxies_and_certificates_are_named_without_their_values(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://user:s3cret@proxy")
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/s3cret.pem")
    report = vp.doctor()
    assert "s3cret" not in repr(report)
    assert "HTTPS_PROXY" in told("proxy").text
    assert told("certificates").level == "wrong"


def test_nested_loops_of_others(run_python):
    code = (
        "import nest_asyncio, voiceprint_nb as vp\n"
        "before = [f.topic for f in vp.doctor().findings]\n"
        "nest_asyncio.apply()\n"
        "(found,) = [f for f in vp.doctor().findings if f.topic == 'asyncio']\n"
        "print('asyncio' in before, found.level, found.text)\n"
    )
    done = run_python("-c", code)
    assert done.stdout.startswith("False note Another package"), done.stderr
    assert asyncio.run.__module__ == "asyncio.runners"


def test_in_a_kernel(kernel):
    cell = kernel.run(
        "import os, asyncio\n"
        "os.environ['JPY_SESSION_NAME'] = 'a.ipynb'\n"
        "for f in vp.doctor(service='local').findings: print(f.level, f.topic, f.text)\n"
        "__vsc_ipynb_file__ = 'a.ipynb'\n"
        "print([f.text for f in vp.doctor(service='local').findings if f.topic == 'kernel'])\n"
        "asyncio._nest_patched = True\n"
        "print([f.level for f in vp.doctor(service='local').findings if f.topic == 'asyncio'])\n"
        "del asyncio._nest_patched, __vsc_ipynb_file__, os.environ['JPY_SESSION_NAME']\n"
        "vp.doctor(service='local')"
    )
    said = cell.text()
    assert "started by a Jupyter server (JupyterLab or Notebook)." in said
    assert "the environment of the server counts" in said
    assert "started by VS Code." in said
    assert "['wrong']" in said or "['note']" in said
    (shown,) = [m["content"]["data"] for m in cell.outputs if m["msg_type"] == "execute_result"]
    assert "<caption" in shown["text/html"]
    assert shown["text/plain"].endswith("wrong.")


def test_a_served_service_is_asked(tmp_path):
    with serving(tmp_path / "service") as served:
        found = told("online", service=served.base_url, api_key=served.key, online=True)
        assert (found.level, "takes the key. 1 of " in found.text) == ("ok", True)
        refused = told("online", service=served.base_url, api_key="wrong", online=True)
        assert refused.level == "wrong"
        assert "wrong" not in refused.text
        assert told("key", service=served.base_url).level == "note"


def test_nobody_there():
    found = told("online", service="http://127.0.0.1:9", online=True)
    assert found.level == "wrong"
    assert told("online", service="local", online=True).level == "ok"


def test_in_a_terminal(capsys, monkeypatch, tmp_path):
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.endswith("Nothing is wrong.\n")
    monkeypatch.setenv("VOICEPRINT_NB_DATA_DIR", str(Path(tmp_path / "file" / "below")))
    (tmp_path / "file").touch()
    assert main(["doctor", "--service", "local"]) == 1
    assert capsys.readouterr().out.endswith("Look at: ledger.\n")
