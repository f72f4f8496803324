"""The README's recipes for clusters run as they stand there; Ray and Spark only where they are installed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from voices import prints, voices

import voiceprint_nb as vp
from voiceprint_nb.engine.model import Model

ROOT = Path(__file__).resolve().parents[2]
SECTION = (ROOT / "README.md").read_text(encoding="utf-8").split("## On a cluster")[1].split("\n## ")[0]
RECIPES = dict(zip(("dask", "ray", "spark"), re.findall(r"```py\n(.*?)```", SECTION, re.DOTALL), strict=True))


@pytest.fixture
def names(tmp_path: Path) -> dict[str, object]:
    """What the recipes name: a manifest, the folder of its paths, enrolled people, a place for results."""
    manifest = tmp_path / "manifest.parquet"
    pd.read_csv(ROOT / "data" / "samples" / "manifest.csv").to_parquet(manifest)
    people = vp.Library()
    model = Model.packaged().fingerprint
    people.add("nobody", prints(np.eye(1, 256, dtype=np.float32), model))
    embeddings, speakers = voices(40, 3, noise=0.5)
    known = prints(np.pad(embeddings, [(0, 0), (0, 224)]), model)
    return {
        "vp": vp,
        "manifest": str(manifest),
        "folder": str(ROOT),
        "people": people,
        "calibration": vp.calibrate(pd.DataFrame({"voiceprint": known, "speaker": speakers})),
        "results": str(tmp_path / "results"),
    }


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find the package that is tested."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)


def run(recipe: str, names: dict[str, object]) -> None:
    exec(compile(RECIPES[recipe], "README.md", "exec"), names)  # noqa: S102 - the README's own recipe


def refuse_others(names: dict[str, object]) -> None:
    """The results are those of the whole table, in any order."""
    found = pd.read_parquet(str(names["results"])).sort_values("audio", ignore_index=True)
    whole = vp.voiceprint_partition(pd.read_parquet(str(names["manifest"])), "audio", base=str(ROOT))
    expected = whole.sort_values("audio", ignore_index=True)
    assert len(found) == len(expected)
    for name in ("audio", "voiceprint", "vp_status", "vp_error_code"):
        assert found[name].astype("string").equals(expected[name].astype("string")), name
    assert np.array_equal(found["vp_duration_s"], expected["vp_duration_s"], equal_nan=True)


@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.set_index:DeprecationWarning")  # Dask's
def test_dask(names: dict[str, object]) -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster:
        run("dask", names | {"cluster": cluster})
    refuse_others(names)
    decisions = pd.read_parquet(str(names["results"]))["vp_decision"]
    assert set(decisions.dropna()) == {"unknown"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # its own settings
def test_ray(names: dict[str, object], elsewhere: None) -> None:
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        run("ray", names)
    finally:
        ray.shutdown()
    refuse_others(names)


@pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning")
def test_spark(names: dict[str, object], elsewhere: None) -> None:
    sql = pytest.importorskip("pyspark.sql")
    spark = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        run("spark", names | {"spark": spark})
    finally:
        spark.stop()
    refuse_others(names)
