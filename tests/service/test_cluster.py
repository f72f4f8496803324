"""A service whose engine work is done by a Dask cluster: workers that die, a cluster that is away."""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
from distributed import Client, KilledWorker, LocalCluster

import voiceprint_nb as vp
from tests.served import serving
from tests.service.parts import TEAM, Bureau, Orders, Receiver, job, raw, until
from voiceprint_nb.contract import VoiceprintRequest
from voiceprint_nb.engine.pool import EnginePool
from voiceprint_nb.engine.shared import fingerprint_of
from voiceprint_nb.errors import MissingExtra, RowError, UsageError
from voiceprint_nb.service import cluster as clusters
from voiceprint_nb.service.cluster import Cluster, scheduler_address
from voiceprint_nb.service.desk import Desk
from voiceprint_nb.service.media import MediaStore
from voiceprint_nb.service.options import Options
from voiceprint_nb.service.workbench import AGAIN_S, EngineAway

IN_PROCESS = {
    "n_workers": 1,
    "threads_per_worker": 1,
    "processes": False,
    "protocol": "tcp://",
    "dashboard_address": ":0",
}
UNLIMITED = ("--writes-per-minute", "0", "--reads-per-minute", "0")


class Timer:
    """Seconds that pass when the test says so."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def noise(n: int) -> list[tuple[np.ndarray, int]]:
    random = np.random.default_rng(n)
    return [(random.normal(scale=0.1, size=24_000).astype(np.float32), 16_000) for _ in range(n)]


# --- a real cluster -------------------------------------------------------------------------------------


def test_jobs_of_a_killed_worker_are_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICEPRINT_NB_DATA_DIR", str(tmp_path / "user"))
    frame = pd.DataFrame({"audio": [*noise(60), "no-such-file.wav"]})
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        compute = cluster.scheduler_address.replace("tcp://", "dask://")
        with serving(tmp_path / "data", "--compute", compute, "--workers", "4", *UNLIMITED) as served:
            call = {"service": served.base_url, "api_key": served.key, "progress": False}
            run = vp.submit(frame, **call)
            until(lambda: "succeeded" in set(run.partial()["vp_status"]))
            pids = client.run(os.getpid)
            os.kill(next(iter(pids.values())), signal.SIGKILL)
            out = run.result()
        assert client.run(os.getpid).keys() != pids.keys()
    assert out["vp_status"].tolist() == ["succeeded"] * 60 + ["invalid"]
    assert out["vp_job_id"].nunique() == 60
    here = vp.voiceprint_partition(frame)
    scores = vp.compare(pd.concat([out.iloc[:60], here.iloc[:60]])).to_numpy()
    assert np.diagonal(scores[:60, 60:]).min() > 0.99999


def test_jobs_wait_for_a_cluster_that_comes_and_goes(tmp_path: Path, clip: Callable[..., Path]) -> None:
    bureau, timer = Bureau(tmp_path), Timer()
    first = LocalCluster(**IN_PROCESS)
    port = int(first.scheduler_address.rpartition(":")[2])
    network = Cluster(first.scheduler_address, connect_s=2.0, answer_s=5.0, timer=timer)
    with closing(bureau), closing(network), EnginePool(lambda: network, threads=2, batch=2) as pool:
        desk = bureau.open(engine=pool, timer=timer)
        for name in ("a", "b", "c"):
            MediaStore(tmp_path / "media").path(TEAM, f"media://{name}").write_bytes(clip().read_bytes())

        def submitted(name: str) -> Callable[[], bool]:
            job_id = desk.submit(TEAM, VoiceprintRequest(f"media://{name}")).job_id

            def is_done() -> bool:
                timer.now_s += AGAIN_S
                desk.wake()
                found = desk.job(TEAM, job_id)
                assert found is not None
                assert found.status in ("created", "running", "succeeded")
                return found.status == "succeeded"

            return is_done

        until(submitted("a"))
        first.close()
        is_done = submitted("b")
        for _ in range(3):
            assert not is_done()
        with LocalCluster(scheduler_port=port, **IN_PROCESS):
            until(is_done)
            until(submitted("c"))


def test_a_clip_that_ends_workers_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def deadly(text: str, clips: list[np.ndarray]) -> tuple[str, np.ndarray]:
        if any(len(samples) == 16_000 for samples in clips):
            os._exit(1)
        return fingerprint_of(text), np.eye(len(clips), 256, dtype=np.float32)

    monkeypatch.setattr(clusters, "embed_clips", deadly)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        closing(Cluster(cluster.scheduler_address)) as network,
        EnginePool(lambda: network, threads=1, batch=4) as pool,
    ):
        sounds = [sound[:size] for (sound, _), size in zip(noise(3), (24_000, 16_000, 23_000), strict=True)]
        steps = [pool.submit(lambda sound=sound: sound) for sound in [*sounds, np.zeros(16_000, np.float32)]]
        errors = [type(step.exception()) for step in steps]
    assert errors == [type(None), KilledWorker, type(None), RowError]


def test_workers_of_another_version_do_not_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "embed_clips", lambda text, clips: ("other", np.zeros((len(clips), 256))))
    with LocalCluster(**IN_PROCESS) as cluster, closing(Cluster(cluster.scheduler_address)) as network:
        with pytest.raises(EngineAway) as refused:
            network.embed_windows([np.ones(16_000, np.float32)])
        assert "same package" in str(refused.value.__cause__)


# --- a desk whose engine is away ------------------------------------------------------------------------


class Comes(Orders):
    """An engine that is away until it is told to come; counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.error = EngineAway()
        self.n_asked = 0

    def submit(self, load: Callable[[], Any]) -> Future[Any]:
        self.n_asked += 1
        return super().submit(load)


@pytest.fixture
def bureau(tmp_path: Path) -> Iterator[Bureau]:
    made = Bureau(tmp_path)
    made.engine = Comes()
    yield made
    made.close()


def is_put_aside(bureau: Bureau, desk: Desk, n_asked: int) -> bool:
    """Whether the engine was asked so often, and the clerk knows when it will ask again."""
    return bureau.engine.n_asked == n_asked and desk._bench._again_s < math.inf


def test_a_job_waits_longer_than_its_deadline(bureau: Bureau) -> None:
    timer = Timer()
    desk = bureau.open(timer=timer, deadline_s=60.0)
    job_id = desk.submit(TEAM, job()).job_id
    until(lambda: is_put_aside(bureau, desk, 1))
    timer.now_s += 3600
    desk.wake()
    until(lambda: is_put_aside(bureau, desk, 2))
    assert desk.job(TEAM, job_id).status == "running"
    bureau.engine.error = None
    timer.now_s += AGAIN_S
    desk.wake()
    until(lambda: desk.job(TEAM, job_id).status == "succeeded")


def test_what_was_fetched_is_not_fetched_again(bureau: Bureau) -> None:
    timer = Timer()
    desk = bureau.open(timer=timer)
    with Receiver(raw(b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nRIFF")) as web:
        job_id = desk.submit(TEAM, VoiceprintRequest(f"{web.url}/a.wav")).job_id
        until(lambda: is_put_aside(bureau, desk, 1))
        bureau.engine.error = None
        timer.now_s += AGAIN_S
        desk.wake()
        until(lambda: desk.job(TEAM, job_id).status == "succeeded")
        assert web.got.qsize() == 1


def test_the_next_service_goes_on_with_jobs_that_waited(bureau: Bureau) -> None:
    for _ in range(7):  # more often than a job may break the process off
        desk = bureau.open()
        bureau.engine.n_asked = 0
        job_id = desk.submit(TEAM, job()).job_id
        until(lambda: bureau.engine.n_asked)
        assert desk.close()
    assert bureau.rows("SELECT DISTINCT status FROM jobs") == [("created",)]
    bureau.engine.error = None
    desk = bureau.open()
    assert desk.wait_idle(20.0)
    assert desk.job(TEAM, job_id).status == "succeeded"
    assert bureau.rows("SELECT DISTINCT status FROM jobs") == [("succeeded",)]


# --- the option -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["head:8786", "tcp://head:8786", "dask://head", "dask://u:p@head:8786"])
def test_addresses_of_other_kinds_are_refused(address: str) -> None:
    with pytest.raises(UsageError, match="dask://host:8786"):
        Options(compute=address).refuse_misfits(has_keys=True)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtra, match=r"voiceprint_nb\[dask\]"):
        scheduler_address("dask://[::1]:8786")
