"""Networks of one's own in the toolkit: frames, the ledger, parts of clusters, the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from onnx import helper

import voiceprint_nb as vp
from tests.own_networks import bank_network, wave_network, write
from voiceprint_nb.command import main
from voiceprint_nb.errors import UsageError

Noises = Callable[..., list[tuple[np.ndarray, int]]]
REPOSITORY = Path(__file__).resolve().parents[2]
LOCAL = {"service": "local", "ledger": False, "progress": False}


@pytest.fixture
def model(tmp_path: Path) -> vp.Model:
    return vp.Model.from_onnx(bank_network(tmp_path / "mine.onnx"), "wespeaker")


def test_a_model_its_path_and_its_text_make_the_same_prints(
    model: vp.Model, manifest: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model.path is not None
    monkeypatch.chdir(model.path.parent)
    found = vp.voiceprints(manifest, "audio", model=model, **LOCAL)
    assert found.attrs["voiceprint_nb"]["model"] == model.fingerprint
    assert found.vp_status.value_counts()["succeeded"] == 20
    for named in ("mine.onnx:wespeaker", model.text):
        again = vp.voiceprints(manifest, "audio", model=named, **LOCAL)
        pd.testing.assert_frame_equal(again.drop(columns="vp_job_id"), found.drop(columns="vp_job_id"))
    one = vp.voiceprint(manifest.audio[0], model=model, service="local", ledger=False)
    assert one.embedding.shape == (48,)
    with pytest.warns(UserWarning, match="its input's shape tells"):
        other = vp.voiceprints(manifest.head(1), "audio", model="mine.onnx", **LOCAL)
    with pytest.raises(UsageError, match=r"different models|another model"):
        vp.compare(pd.concat([found.head(1), other]))


def test_prints_of_other_dimensions_are_analysed(model: vp.Model, noises: Noises) -> None:
    frame = pd.DataFrame({"audio": noises(8), "who": list("aabbccdd")})
    out = vp.voiceprints(frame, "audio", model=model, **LOCAL)
    np.testing.assert_allclose(np.diag(vp.compare(out)), 1, atol=1e-5)
    library = vp.Library.from_frame(out.iloc[::2], "who")
    assert library.model == model.fingerprint
    assert len(vp.match(out, library, threshold=-1.0).vp_label) == 8
    assert vp.cluster(out, threshold=0.5).vp_cluster.notna().all()
    theirs = vp.voiceprints(frame, "audio", **LOCAL)
    with pytest.raises(UsageError, match="another model"):
        vp.match(theirs, library, threshold=0.5)


def test_a_run_is_resumed_with_its_own_network_only(model: vp.Model, manifest: pd.DataFrame) -> None:
    assert model.path is not None
    options = {"service": "local", "progress": False}
    out = vp.voiceprints(manifest, "audio", model=str(model.path) + ":wespeaker", **options)
    back = vp.resume(out.attrs["voiceprint_nb"]["run_id"], progress=False)
    pd.testing.assert_series_equal(back["voiceprint"], out["voiceprint"])
    assert set(back.vp_source.dropna()) == {"reused"}
    bank_network(model.path, seed=9)
    with pytest.raises(UsageError, match=r"'mine\.onnx' is not the one that was used before"):
        vp.resume(out.attrs["voiceprint_nb"]["run_id"], progress=False)
    model.path.unlink()
    with pytest.raises(UsageError, match="It cannot be read: No such file"):
        vp.resume(out.attrs["voiceprint_nb"]["run_id"], progress=False)


def test_a_part_takes_a_model(model: vp.Model, manifest: pd.DataFrame) -> None:
    whole = vp.voiceprints(manifest, "audio", model=model, **LOCAL)
    for given in (model, model.text):
        part = vp.voiceprint_partition(manifest, "audio", model=given)
        pd.testing.assert_series_equal(part["voiceprint"], whole["voiceprint"])


def test_a_clip_that_the_network_fails_on_costs_one_row(tmp_path: Path, noises: Noises) -> None:
    """The network looks up its clip's length in a table that ends at 3 s: one clip is longer."""
    nodes = [
        helper.make_node("Shape", ["x"], ["samples"], start=1),
        helper.make_node("Gather", ["table", "samples"], ["found"]),
        helper.make_node("Slice", ["x", "from", "to", "axis"], ["start"]),
        helper.make_node("Add", ["start", "found"], ["y"]),
    ]
    constants = {"table": np.zeros(48_001, np.float32), "from": np.array([0]), "to": np.array([48])}
    constants["axis"] = np.array([1])
    path = write(tmp_path / "short.onnx", nodes, ("b", "samples"), ("b", 48), constants)
    sounds = [*noises(3), (np.resize(noises(1)[0][0], 64_000), 16_000)]
    out = vp.voiceprint_partition(pd.DataFrame({"audio": sounds}), model=f"{path}:waveform")
    assert out.vp_status.tolist() == ["succeeded"] * 3 + ["failed"]
    assert out.vp_error_code.iloc[3] == "job_failed"
    local = vp.voiceprints(pd.DataFrame({"audio": sounds}), model=f"{path}:waveform", **LOCAL)
    assert local.vp_status.tolist() == out.vp_status.tolist()


def test_workers_of_dask_make_the_prints_of_this_process(
    tmp_path: Path, manifest: pd.DataFrame, model: vp.Model
) -> None:
    wave = vp.Model.from_onnx(wave_network(tmp_path / "wave.onnx"), vp.Waveform())
    lazy = dd.from_pandas(manifest, npartitions=4)
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0")
    with cluster, Client(cluster) as client:
        assert os.getpid() not in client.run(os.getpid).values()
        for given in (model, model.text, wave):
            whole = vp.voiceprints(manifest, "audio", model=given, **LOCAL)
            found = vp.voiceprints(lazy, "audio", model=given, service="local").compute()
            pd.testing.assert_series_equal(found["voiceprint"], whole["voiceprint"])
        other = vp.Model.from_onnx(bank_network(tmp_path / "other.onnx", seed=2), "fbank80")
        bank_network(tmp_path / "other.onnx", seed=3)
        with pytest.raises(UsageError, match="has changed since its model was made"):
            vp.voiceprints(lazy, "audio", model=other, service="local").compute()


def test_a_model_that_is_none_is_refused_before_dask_computes(manifest: pd.DataFrame, tmp_path: Path) -> None:
    lazy = dd.from_pandas(manifest, npartitions=2)
    with pytest.raises(UsageError, match=r"There is no local model 'precision-2'"):
        vp.voiceprints(lazy, "audio", model="precision-2", service="local")
    with pytest.raises(UsageError, match=r"'none\.onnx' cannot be used"):
        vp.voiceprints(lazy, "audio", model=str(tmp_path / "none.onnx"), service="local")
    with pytest.raises(UsageError, match=r"'none\.onnx' cannot be used"):
        vp.voiceprints(manifest, "audio", model=str(tmp_path / "none.onnx"), **LOCAL)


def test_the_example_of_the_readme_runs(
    model: vp.Model, manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    section = (REPOSITORY / "README.md").read_text().partition("## Bring your own model")[2]
    names: dict[str, object] = {"vp": vp, "df": manifest.head(2)}
    exec(section.partition("```py\n")[2].partition("```")[0], names)  # noqa: S102 - the README's own example
    assert names["model"] == model
    assert names["out"]["voiceprint"].notna().all()  # type: ignore[index]


def test_the_command_takes_a_network(
    model: vp.Model, manifest: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.json").write_text(json.dumps({"features": "wespeaker"}))
    manifest.head(2).to_csv("two.csv", index=False)
    run = [
        "run",
        "two.csv",
        "--column",
        "audio",
        "--service",
        "local",
        "--model",
        "mine.onnx",
        "--out",
        "out.csv",
    ]
    assert main(run) == 0
    expected = vp.voiceprints(manifest.head(2), "audio", model=model, **LOCAL)
    assert pd.read_csv("out.csv")["voiceprint"].tolist() == expected["voiceprint"].tolist()
