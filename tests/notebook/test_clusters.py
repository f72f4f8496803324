"""Workers in processes of their own: the same rows, from Parquet, each once, also when a worker is killed."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import soundfile
from distributed import Client, LocalCluster

import voiceprint_nb as vp


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0")
    with cluster, Client(cluster) as connected:
        yield connected


@pytest.fixture
def stored(manifest: pd.DataFrame, tmp_path: Path) -> dd.DataFrame:
    """Twelve parts of the samples and of noise, read from Parquet, with paths relative to a folder."""
    rng = np.random.default_rng(0)
    for number in range(24):
        soundfile.write(tmp_path / f"noise-{number}.wav", rng.normal(scale=0.1, size=32_000), 16_000)
    names = [shutil.copy(path, tmp_path).rpartition("/")[2] for path in manifest.audio[:18]]
    names += [f"noise-{number}.wav" for number in range(24)] + ["none.wav", "", None]
    frame = pd.DataFrame({"audio": names, "row": range(len(names))})
    frame.to_parquet(tmp_path / "manifest.parquet", row_group_size=4)
    return dd.read_parquet(tmp_path / "manifest.parquet", split_row_groups=True)


def test_a_killed_worker_costs_no_row(client: Client, stored: dd.DataFrame, tmp_path: Path) -> None:
    before = set(client.run(os.getpid).values())
    killed = tmp_path / "killed"

    def killing(part: pd.DataFrame) -> pd.DataFrame:
        """The worker that has done the sixth part is killed, once."""
        if part["row"].iloc[0] == 20 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return part

    out = vp.voiceprints(stored, "audio", base=tmp_path, service="local")
    found = out.map_partitions(killing, meta=out._meta).compute()
    assert killed.exists()
    assert found["row"].tolist() == list(range(45))
    expected = vp.voiceprint_partition(stored.compute(), "audio", base=tmp_path)
    pd.testing.assert_frame_equal(found.drop(columns="vp_source"), expected.drop(columns="vp_source"))
    assert found["vp_status"].value_counts()["succeeded"] == 42
    client.wait_for_workers(2)
    assert len(before - set(client.run(os.getpid).values())) == 1


def test_a_worker_loads_the_network_once(client: Client, stored: dd.DataFrame, tmp_path: Path) -> None:
    def loads() -> tuple[int, int]:
        from voiceprint_nb.engine import shared

        facts = shared._embedder.cache_info()
        return facts.misses, facts.hits

    vp.voiceprints(stored, "audio", base=tmp_path, service="local").compute()
    misses, hits = zip(*client.run(loads).values(), strict=True)
    assert misses == (1, 1)
    assert sum(hits) >= 8


def test_no_service_starts_on_workers(client: Client, stored: dd.DataFrame, tmp_path: Path) -> None:
    def service_modules() -> list[str]:
        import sys

        return [name for name in sys.modules if name.startswith(("voiceprint_nb.service.local", "starlette"))]

    vp.voiceprints(stored, "audio", base=tmp_path, service="local").compute()
    assert list(client.run(service_modules).values()) == [[], []]
