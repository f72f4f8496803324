"""A service that serves a network of one's own: on a socket, and with a cluster that computes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from distributed import LocalCluster

import voiceprint_nb as vp
from tests.own_networks import bank_network
from tests.served import serving
from voiceprint_nb.engine.embedder import Embedder
from voiceprint_nb.engine.model import Model
from voiceprint_nb.errors import UsageError
from voiceprint_nb.service.cluster import Cluster
from voiceprint_nb.service.server import serve
from voiceprint_nb.service.workbench import EngineAway

IN_PROCESS = {
    "n_workers": 1,
    "threads_per_worker": 1,
    "processes": False,
    "protocol": "tcp://",
    "dashboard_address": ":0",
}


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model.from_onnx(bank_network(tmp_path / "mine.onnx"), "fbank80")


def sounds(n: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(scale=0.1, size=24_000).astype(np.float32) for _ in range(n)]


def test_a_served_network_makes_the_prints_of_the_toolkit(tmp_path: Path, model: Model) -> None:
    frame = pd.DataFrame({"audio": [(samples, 16_000) for samples in sounds(3)]})
    options = {"ledger": False, "progress": False}
    with serving(tmp_path / "data", "--model", f"{model.path}:fbank80") as served:
        found = vp.voiceprints(frame, service=served.base_url, api_key=served.key, **options)
    expected = vp.voiceprints(frame, service="local", model=model, **options)
    assert found["voiceprint"].tolist() == expected["voiceprint"].tolist()
    assert found["voiceprint"].notna().all()


def test_a_network_that_is_none_is_not_served(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"bad")
    with pytest.raises(UsageError, match=r"'bad\.onnx' cannot be used"):
        serve(data_dir=tmp_path / "data", port=0, model=str(tmp_path / "bad.onnx"))


def test_workers_compute_the_same_network_or_none(model: Model) -> None:
    with LocalCluster(**IN_PROCESS) as cluster:
        with closing(Cluster(cluster.scheduler_address, model=model)) as network:
            clips = [network.windows(samples) for samples in sounds(3)]
            found = network.embed_windows(clips)
            np.testing.assert_array_equal(found, Embedder(model).embed_many(sounds(3)))
            assert model.path is not None
            bank_network(model.path, seed=9)
            with pytest.raises(EngineAway):
                network.embed_windows(clips)
        with (
            closing(Cluster(cluster.scheduler_address, model=model)) as network,
            pytest.raises(EngineAway) as refused,
        ):
            network.embed_windows(clips)
        assert "not the one that was used before" in str(refused.value.__cause__)
