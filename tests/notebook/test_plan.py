"""``vp.plan``: the numbers, the words, and that nothing happens."""

from __future__ import annotations

import dataclasses
import html
import re
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest

import voiceprint_nb as vp
from tests.intake import counted_web
from tests.served import Served, new_key, serving

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
HOSTED = {"service": "pyannoteai", "api_key": "key-0f3a", "progress": False}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("plan") / "data"
    with serving(
        folder, "--allow-host", "127.0.0.1", "--writes-per-minute", "0", "--reads-per-minute", "0"
    ) as served:
        yield served


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever connects, fails."""

    def refuse(*_: object) -> None:
        raise AssertionError("somebody connects")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def answered(served: Served) -> dict[str, int]:
    """How many requests the service has answered, by operation."""
    key = new_key(served.data_dir, "--permission", "metrics:read")
    text = httpx.get(f"{served.base_url}/metrics", headers={"Authorization": f"Bearer {key}"}).text
    found = re.findall(r'requests_total\{operation="([^"]+)",status="\d+"\} (\d+)', text)
    counts: dict[str, int] = {}
    for operation, n in found:
        counts[operation] = counts.get(operation, 0) + int(n)
    return {name: n for name, n in counts.items() if "metrics" not in name}


def stored_bytes(served: Served) -> int:
    return sum(file.stat().st_size for file in (served.data_dir / "media" / "objects").iterdir())


def dump(path: Path) -> list[str]:
    db = sqlite3.connect(path)
    try:
        return list(db.iterdump())
    finally:
        db.close()


def test_a_run_does_what_was_planned(served: Served, manifest: pd.DataFrame, tmp_path: Path) -> None:
    call = {"service": served.base_url, "api_key": served.key, "data_dir": tmp_path, "progress": False}
    plan = vp.plan(manifest, "audio", price_per_print=0.5, **call)
    assert answered(served) == {}
    assert not (tmp_path / "ledger.sqlite3").exists()
    assert (plan.n_rows, plan.to_buy, plan.duplicates, plan.invalid) == (24, 19, 1, 4)
    assert plan.reasons == {"too_long": 1, "empty_file": 1, "not_audio": 1, "silent": 1}
    assert plan.cost == 9.5
    assert plan.billed_s == 380.0

    out = vp.voiceprints(manifest, "audio", **call)
    (submitted,) = (n for name, n in answered(served).items() if "/v1/voiceprint" in name)
    assert submitted == plan.to_buy
    assert stored_bytes(served) == plan.upload_bytes
    told = out.attrs["voiceprint_nb"]["uploads"]
    assert (told["n_clips"], told["n_bytes"]) == (plan.n_uploads, plan.upload_bytes)
    fate = plan.rows.vp_plan
    assert fate.eq("invalid").tolist() == out.vp_status.eq("invalid").tolist()
    assert fate.eq("duplicate").tolist() == out.vp_source.eq("reused").fillna(False).tolist()
    assert plan.audio_s == pytest.approx(out.vp_duration_s[fate.eq("new")].sum())

    before, asked = dump(tmp_path / "ledger.sqlite3"), answered(served)
    again = vp.plan(manifest, "audio", price_per_hour=0.5, **call)
    assert (again.to_buy, again.reused, again.upload_bytes, again.cost) == (0, 20, 0, 0.0)
    assert answered(served) == asked
    assert dump(tmp_path / "ledger.sqlite3") == before


def test_links_that_are_passed_on_are_no_uploads(served: Served, tmp_path: Path) -> None:
    call = {"service": served.base_url, "api_key": served.key, "data_dir": tmp_path, "progress": False}
    with counted_web.serving() as web:
        link = web.put((SAMPLES / "ada-1.wav").read_bytes(), "ada-1.wav")
        plan = vp.plan([link, str(SAMPLES / "ben-1.wav")], **call)
        assert (plan.to_buy, plan.n_uploads) == (2, 1)
        assert plan.upload_bytes == (SAMPLES / "ben-1.wav").stat().st_size
        out = vp.voiceprints([link, str(SAMPLES / "ben-1.wav")], **call)
    assert out.vp_status.eq("succeeded").all()
    assert out.attrs["voiceprint_nb"]["uploads"]["n_bytes"] == plan.upload_bytes


@pytest.mark.usefixtures("offline")
def test_the_hosted_service_is_planned_for_offline(manifest: pd.DataFrame, own_place: Path) -> None:
    plan = vp.plan(manifest, **HOSTED, price_per_hour=0.18)
    assert plan.to_buy == 19
    assert plan.minutes == pytest.approx(0.19)
    assert plan.cost == pytest.approx(380 * 0.18 / 3600)
    assert plan.destination.startswith("Service: api.pyannote.ai")
    assert not (own_place / "user-data").exists()
    lines = str(plan).splitlines()
    assert lines[0] == "Plan: 24 rows: 19 prints to buy, 1 duplicate, 4 invalid"
    assert lines[2] == "Audio: 81 s, billed as 380 s where time is billed (at least 20 s a print)"
    assert lines[3] == "Upload: 19 clips, 1.2 MiB"
    assert lines[4] == "Time: under a minute at the hosted limits (100 submissions a minute)"
    assert lines[5] == "Cost: 0.019 (380 s at 0.18 an hour)"
    assert repr(plan) == str(plan)
    assert "key-0f3a" not in str(plan) + plan._repr_html_()


def test_the_local_service_costs_nothing(manifest: pd.DataFrame, tmp_path: Path) -> None:
    call = {"service": "local", "data_dir": tmp_path, "progress": False}
    plan = vp.plan(manifest, "audio", price_per_print=0.5, **call)
    assert (plan.to_buy, plan.upload_bytes, plan.billed_s, plan.cost) == (19, 0, 0.0, 0.0)
    assert plan.minutes is None
    assert "19 prints to make on this machine" in str(plan)
    assert "Cost: nothing" in str(plan)
    vp.voiceprints(manifest[:4], "audio", **call)
    assert vp.plan(manifest, "audio", **call).reused == 5  # the duplicate is of one of them
    assert vp.plan(manifest, "audio", ledger=False, **call).reused == 0


def test_without_a_price_or_a_known_limit_nothing_is_guessed(manifest: pd.DataFrame) -> None:
    plan = vp.plan(manifest[:3], service="http://127.0.0.1:9", progress=False)
    assert (plan.cost, plan.minutes) == (None, None)
    assert "Cost: unknown without price_per_print= or price_per_hour=" in str(plan)
    assert "Time: no limit of this service is known" in str(plan)


@pytest.mark.parametrize(
    ("prices", "said"),
    [
        ({"price_per_print": 1.0, "price_per_hour": 1.0}, "not both"),
        ({"price_per_print": -1.0}, "price_per_print= must be a number"),
        ({"price_per_hour": float("nan")}, "price_per_hour= must be a number"),
        ({"price_per_hour": "0.18"}, "price_per_hour= must be a number"),
    ],
)
def test_prices_that_are_none(prices: dict[str, float], said: str) -> None:
    with pytest.raises(vp.UsageError, match=said):
        vp.plan(["a.wav"], service="local", **prices)


def test_wrong_calls_are_refused_as_by_a_run(own_place: Path) -> None:
    with pytest.raises(vp.UsageError, match="Unknown model"):
        vp.plan(["a.wav"], model="precision-0", **HOSTED)
    with pytest.raises(vp.UsageError, match="no column 'sound'"):
        vp.plan(pd.DataFrame({"audio": []}), "sound", **HOSTED)
    with pytest.raises(vp.UsageError, match="already has 'vp_plan'"):
        vp.plan(pd.DataFrame({"audio": ["a"], "vp_plan": ["mine"]}), **HOSTED)
    (own_place / "user-data").mkdir()
    (own_place / "user-data" / "ledger.sqlite3").write_text("no database, but a long enough text " * 40)
    with pytest.raises(vp.UsageError, match="not readable"):
        vp.plan(["a.wav"], **HOSTED)


def test_the_rows_keep_what_was_there(manifest: pd.DataFrame) -> None:
    frame = manifest.iloc[[0, 19, 21]].set_index(pd.Index(["x", "x", "y"], name="who"))
    copy = frame.copy()
    rows = vp.plan(frame, **HOSTED).rows
    assert frame.equals(copy)
    assert rows.index.equals(frame.index)
    assert rows.vp_plan.tolist() == ["new", "duplicate", "invalid"]
    assert rows.vp_status.tolist() == ["ok", "ok", "invalid"]
    assert rows.vp_error_code.iloc[-1] == "empty_file"
    checked = vp.check(frame, progress=False)
    assert rows.drop(columns="vp_plan").equals(checked)
    renamed = vp.plan(rows, prefix="mine_", **HOSTED).rows
    assert renamed.mine_plan.tolist() == rows.vp_plan.tolist()
    assert vp.plan(rows, overwrite=True, **HOSTED).rows.equals(rows)


def test_the_table_is_escaped_and_takes_the_colours_of_the_page(manifest: pd.DataFrame) -> None:
    plan = vp.plan(manifest[:1], **HOSTED)
    table = dataclasses.replace(plan, destination="Service: <script>x</script>")._repr_html_()
    assert "<script" not in table
    assert html.escape("<script>") in table
    assert "color" not in table
    assert table.count("<tr>") == len(str(plan).splitlines())


@pytest.mark.parametrize(
    ("minutes", "told"), [(0.3, "under a minute"), (12.4, "about 12 min"), (600.0, "about 10.0 h")]
)
def test_times_are_told_in_their_unit(minutes: float, told: str) -> None:
    plan = vp.plan([], **HOSTED)
    assert f"Time: {told} at" in str(dataclasses.replace(plan, minutes=minutes))


def test_sizes_and_what_is_unclear_are_told() -> None:
    plan = dataclasses.replace(vp.plan([], **HOSTED), n_uploads=1, upload_bytes=3 * 2**29, unclear=2)
    assert "Upload: 1 clip, 1.5 GiB" in str(plan)
    assert "Unclear: 2 submitted by a run that was cut off" in str(plan)


def test_audio_in_memory_and_the_accessor() -> None:
    cell = (np.random.default_rng(0).normal(scale=0.1, size=32_000).astype(np.float32), 16_000)
    frame = pd.DataFrame({"audio": [cell, cell, None]})
    plan = frame.voiceprint.plan("audio", **HOSTED)
    assert (plan.to_buy, plan.duplicates, plan.invalid, plan.audio_s) == (1, 1, 1, 2.0)
    assert plan.upload_bytes > 32_000 * 2
