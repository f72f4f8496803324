"""`Run`, blocking calls and interrupts, with the real local service."""

from __future__ import annotations

import asyncio
import gc
import signal
import sqlite3
import subprocess
import sys
import time
import weakref

import pandas as pd
import pytest

import voiceprint_nb as vp
from voiceprint_nb.batch.bridge import loop_thread
from voiceprint_nb.batch.store import FILE_NAME
from voiceprint_nb.notebook.runs import Call

LOCAL = {"service": "local", "progress": False}
DEADLINE_S = 60.0


def until(holds):
    ends_s = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < ends_s, "did not happen in time"


def tasks():
    return {task.get_name() for task in asyncio.all_tasks(loop_thread().loop)}


def test_submit_returns_at_once_and_partial_grows(noises, tmp_path):
    clips = noises(60)
    vp.voiceprint(clips[0], service="local", data_dir=tmp_path)  # the network is loaded
    run = vp.submit(clips, data_dir=tmp_path, **LOCAL)
    assert not run.done
    first = run.partial()
    assert len(first) == 60
    assert first.attrs["voiceprint_nb"]["ended_at"] is None
    assert set(first.vp_status) <= {"pending", "succeeded"}
    until(lambda: run.partial()["voiceprint"].notna().any())
    with pytest.raises(TimeoutError):
        run.result(timeout_s=0)
    out = run.result(timeout_s=DEADLINE_S)
    assert run.done
    assert set(out.vp_status) == {"succeeded"}
    pd.testing.assert_frame_equal(run.partial(), out)
    assert out.attrs["voiceprint_nb"]["ended_at"] is not None
    assert vp.forget(run.run_id, data_dir=tmp_path) == 60
    pd.testing.assert_frame_equal(run.partial(), out)
    assert repr(run).startswith(f"<Run {run.run_id}: voiceprints: 60 of 60 rows (")


def test_cancel_keeps_finished_rows_and_resume_completes(manifest, tmp_path):
    frame = pd.concat([manifest[:20]] * 3)
    run = vp.submit(frame, data_dir=tmp_path, **LOCAL)
    until(lambda: run.partial()["voiceprint"].notna().any())
    run.cancel()
    stopped = run.result(timeout_s=DEADLINE_S)
    assert run.done
    assert "voiceprint_nb" not in tasks()
    out = vp.resume(run.run_id, data_dir=tmp_path, progress=False)
    assert set(out.vp_status) == {"succeeded"}
    had = stopped["voiceprint"].notna().to_numpy()
    assert out["voiceprint"][had].equals(stopped["voiceprint"][had])
    assert (out.vp_source[had] == "reused").all()
    pd.testing.assert_frame_equal(out[list(frame)], frame)


def test_cancel_at_once(noises, tmp_path):
    run = vp.submit(noises(40), data_dir=tmp_path, **LOCAL)
    run.cancel()
    out = run.result(timeout_s=DEADLINE_S)
    assert set(out.vp_status) <= {"canceled", "pending"}
    assert out.vp_error.str.contains(r"resume\(\)").all()


def test_await_beside_other_work(noises, tmp_path):
    async def main():
        run = vp.submit(noises(20), data_dir=tmp_path, **LOCAL)
        beside = asyncio.create_task(asyncio.sleep(0))
        out = await asyncio.wait_for(run, DEADLINE_S)
        await beside
        blocking = vp.voiceprints(noises(20), data_dir=tmp_path, **LOCAL)  # inside a running loop
        return out, blocking

    out, blocking = asyncio.run(main())
    assert set(out.vp_status) == {"succeeded"}
    assert blocking["voiceprint"].equals(out["voiceprint"])


def test_giving_up_an_await_stops_the_run_like_a_task(noises, tmp_path):
    async def main():
        run = vp.submit(noises(400), data_dir=tmp_path, **LOCAL)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await run
        return run

    run = asyncio.run(main())
    assert "canceled" in set(run.result(timeout_s=DEADLINE_S).vp_status)


@pytest.mark.parametrize("how", ["block", "await"])
def test_a_service_that_is_down_raises_with_what_is_finished(how, manifest, tmp_path):
    place = {"service": "http://127.0.0.1:9", "data_dir": tmp_path, "progress": False}
    bad_first = manifest[20:].copy()  # rows that need no service
    bad_first.loc[99] = manifest.loc[0]

    async def awaiting():
        return await vp.submit(bad_first, **place)

    with pytest.raises(vp.ServiceError) as caught:
        vp.voiceprints(bad_first, **place) if how == "block" else asyncio.run(awaiting())
    partial = caught.value.partial
    assert partial.audio.tolist() == bad_first.audio.tolist()
    assert partial.vp_status.iloc[-1] != "succeeded"
    assert vp.runs(data_dir=tmp_path).state.tolist() == ["unfinished"]


def test_show_writes_a_line_outside_notebooks(noises, tmp_path, capsys):
    run = vp.submit(noises(3), service="local", data_dir=tmp_path)
    run.result()
    run.show()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Service: local, in this process. The audio stays on this machine."
    assert lines[1] == lines[2]
    assert lines[1].startswith("voiceprints: 3 of 3 rows (3 succeeded)")
    assert len(lines) == 3


def test_a_calls_facts_survive_the_ledger(tmp_path):
    call = Call(("a", 1), "p_", "best", (tmp_path,), "local", "m")
    kept = call.to_json()
    assert "column" not in kept
    assert Call.from_json(kept, column=("a", 1)) == call


SCRIPT = """
import sys, numpy as np, voiceprint_nb as vp
rng = np.random.default_rng(3)
clips = [(rng.normal(scale=0.1, size=32_000), 16_000) for _ in range(400)]
run = None
{call}
"""


@pytest.mark.parametrize(
    "call",
    [
        "vp.voiceprints(clips, service='local', data_dir=sys.argv[1])",
        "vp.submit(clips, service='local', data_dir=sys.argv[1]).result()",
    ],
)
def test_interrupt_of_a_script(call, tmp_path):
    command = [sys.executable, "-c", SCRIPT.format(call=call), str(tmp_path)]
    script = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        until(lambda: n_finished(tmp_path) > 0 or script.poll() is not None)
        script.send_signal(signal.SIGINT)
        began_s = time.monotonic()
        out, err = script.communicate(timeout=DEADLINE_S)
    finally:
        script.kill()
    assert time.monotonic() - began_s < 3
    assert script.returncode in (-signal.SIGINT, 130)
    assert out == ""
    (stopped,) = [line for line in err.splitlines() if line.startswith("Stopped.")]
    n_rows = int(stopped.split()[1])
    assert 0 < n_rows <= n_finished(tmp_path) < 400
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert "never awaited" not in err
    assert "was destroyed" not in err
    kept = vp.resume(data_dir=tmp_path, progress=False)
    assert (kept.vp_source == "reused").sum() >= n_rows


def test_a_script_that_ends_stops_its_run_in_order(tmp_path, run_python):
    call = "vp.submit(clips, service='local', data_dir=sys.argv[1], progress=False)"
    done = run_python("-c", SCRIPT.format(call=call), str(tmp_path))
    assert done.returncode == 0
    assert done.stderr == "Service: local, in this process. The audio stays on this machine.\n"
    assert vp.runs(data_dir=tmp_path).state.tolist() == ["unfinished"]


def test_a_run_that_nobody_holds_goes_on(noises, tmp_path):
    vp.submit(noises(30), data_dir=tmp_path, **LOCAL)
    gc.collect()
    until(lambda: vp.runs(data_dir=tmp_path).state.tolist() == ["finished"])
    assert vp.runs(data_dir=tmp_path).counts.tolist() == ["30 succeeded"]


def n_finished(data_dir):
    path = data_dir / FILE_NAME
    if not path.exists() or not path.stat().st_size:
        return 0
    db = sqlite3.connect(path, timeout=10)
    try:
        return db.execute("SELECT count(*) FROM jobs WHERE state = 'succeeded'").fetchone()[0]
    except sqlite3.OperationalError:  # the tables are being made
        return 0
    finally:
        db.close()


def test_a_run_that_was_stopped_is_forgotten(noises, tmp_path):
    run = vp.submit(noises(30), data_dir=tmp_path, **LOCAL)
    run.cancel()
    run.result(timeout_s=DEADLINE_S)
    gone = weakref.ref(run)
    del run
    gc.collect()
    assert gone() is None


def test_what_prevents_a_retry_by_click_is_told(noises, tmp_path, monkeypatch):
    run = vp.submit(noises(2), data_dir=tmp_path, **LOCAL)
    run.result(timeout_s=DEADLINE_S)

    def locked():
        raise vp.UsageError("The ledger cannot be used.")

    monkeypatch.setattr(run._session, "again", locked)
    run._retry_soon()
    until(lambda: run._session.tally.snapshot().stopped_by == "The ledger cannot be used.")


def test_retry_buys_no_more_than_the_call_may(noises, tmp_path):
    run = vp.submit(noises(4), data_dir=tmp_path, max_new=1, **LOCAL)
    assert run.result(timeout_s=DEADLINE_S).vp_error_code.eq("max_new").sum() == 3
    run.retry()
    out = run.result(timeout_s=DEADLINE_S)
    assert out.vp_error_code.eq("max_new").sum() == 3
    assert "more voiceprints than 1" in out.vp_error.dropna().iloc[0]
    assert out.vp_status.eq("succeeded").sum() == 1


@pytest.mark.parametrize("kept", [True, False])
def test_retry_works_on_what_was_stopped_or_failed(noises, tmp_path, kept):
    late = tmp_path / "late.wav"
    clips = [*noises(60), late]
    run = vp.submit(clips, data_dir=tmp_path, ledger=kept, **LOCAL)
    with pytest.raises(vp.UsageError, match="goes on"):
        run.retry()
    until(lambda: run.partial()["voiceprint"].notna().any())
    run.cancel()
    stopped = run.result(timeout_s=DEADLINE_S)
    had = stopped["voiceprint"].notna()
    assert had.any()
    assert not had.all()
    run.retry()
    out = run.result(timeout_s=DEADLINE_S)
    assert out["voiceprint"][had].equals(stopped["voiceprint"][had])
    assert out.vp_status.tolist()[-1] == "invalid"
    ended = {"succeeded"} if kept else {"succeeded", "pending"}  # open jobs of a forgotten ledger stay so
    assert set(out.vp_status[:-1]) <= ended
    assert run.run_id == out.attrs["voiceprint_nb"]["run_id"]
