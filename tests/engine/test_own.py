"""Networks that somebody brings: what they hear, whether they are any, and that nothing is guessed."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.own_networks import bank_network, wave_network, write
from voiceprint_nb.engine import features
from voiceprint_nb.engine.embedder import Embedder, vector_of, voiceprint_text
from voiceprint_nb.engine.fbank import FilterBanks
from voiceprint_nb.engine.front_ends import Known, Waveform, named, text_of
from voiceprint_nb.engine.model import MODEL_NAME, Model
from voiceprint_nb.engine.pool import EnginePool
from voiceprint_nb.errors import RowError, UsageError

PACKAGED = Path(features.__file__).parent / "models" / MODEL_NAME
WESPEAKER = {"framework": "wespeaker", "sample_rate": "16000", "output_dim": "48", "normalize_samples": "0"}
THREE_D = {
    "framework": "3d-speaker",
    "sample_rate": "16000",
    "output_dim": "48",
    "normalize_samples": "1",
    "feature_normalize_type": "global-mean",
}
STATED = FilterBanks(window="hamming", scale="int16", subtract_mean=False)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return bank_network(tmp_path / "mine.onnx")


def clip(seconds: float = 2.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=0.1, size=int(seconds * 16_000)).astype(np.float32)


# --- what a network hears -------------------------------------------------------------------------------


def test_an_argument_a_sidecar_metadata_and_the_shape_tell_in_this_order(tmp_path: Path) -> None:
    path = bank_network(tmp_path / "mine.onnx", metadata=WESPEAKER)
    sidecar = tmp_path / "mine.json"
    sidecar.write_text('{"features": {"name": "fbank80", "window": "hamming", "subtract_mean": false}}')
    assert Model.from_onnx(path, STATED).features == STATED
    assert Model.from_onnx(path).features == FilterBanks(window="hamming", subtract_mean=False)
    sidecar.unlink()
    assert Model.from_onnx(path).features == FilterBanks(window="hamming", scale="int16")
    bank_network(path)
    with pytest.warns(UserWarning, match="its input's shape tells what 'mine.onnx' hears: FilterBanks"):
        assert Model.from_onnx(path).features == FilterBanks()


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        (WESPEAKER, FilterBanks(window="hamming", scale="int16")),
        ({"framework": "wespeaker"}, FilterBanks(window="hamming", scale="int16")),
        (WESPEAKER | {"normalize_samples": "1"}, FilterBanks(window="hamming")),
        (THREE_D, FilterBanks()),
        (THREE_D | {"normalize_samples": "0"}, FilterBanks(scale="int16")),
    ],
)
def test_metadata_of_sherpa_onnx_are_read(tmp_path: Path, metadata: dict[str, str], found: Known) -> None:
    assert Model.from_onnx(bank_network(tmp_path / "a.onnx", metadata=metadata)).features == found


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        (THREE_D | {"sample_rate": "8000"}, "for 8000 Hz"),
        (THREE_D | {"feature_normalize_type": "per_feature"}, "'per_feature', which is not known. State"),
        (THREE_D | {"output_dim": "512"}, "tell of 512 dimensions, and it gives 48"),
        ({"framework": "nemo"}, "NeMo"),
    ],
)
def test_metadata_that_do_not_fit_are_refused(tmp_path: Path, metadata: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Model.from_onnx(bank_network(tmp_path / "a.onnx", metadata=metadata))


def test_exports_of_the_packaged_network_are_known(tmp_path: Path) -> None:
    """They give the packaged model's prints, under a fingerprint of their own only if anything differs."""
    path = Path(shutil.copy(PACKAGED, tmp_path / "ge2e.onnx"))
    own, packaged = Model.from_onnx(path), Model.packaged()
    assert own.features is features.ROBUST
    assert own.fingerprint == packaged.fingerprint
    np.testing.assert_array_equal(Embedder(own).embed(clip(5)), Embedder(packaged).embed(clip(5)))
    assert Model.from_onnx(path, "compatible").fingerprint == Model.packaged("compatible").fingerprint


def test_waveforms_are_known_by_the_shape(tmp_path: Path) -> None:
    for channel in (False, True):
        path = wave_network(tmp_path / "wave.onnx", channel=channel)
        with pytest.warns(UserWarning, match="features='waveform"):
            model = Model.from_onnx(path)
        assert model.features == Waveform(channel_axis=channel)
        assert Embedder(model).embed(clip()).shape == (32,)


@pytest.mark.parametrize("bands", [40, 64])
def test_an_ambiguous_shape_is_refused_and_can_be_stated(tmp_path: Path, bands: int) -> None:
    path = bank_network(tmp_path / "a.onnx", bands=bands)
    with pytest.raises(
        UsageError, match=rf"\(batch, time, {bands}\), tells what it hears. State what .*fbank80"
    ):
        Model.from_onnx(path)
    assert Embedder(Model.from_onnx(path, f"fbank{bands}")).embed(clip()).shape == (48,)


def test_stated_features_that_do_not_fit_are_refused(network: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is \(batch, time, 80\), and 'fbank64' gives \(batch, time, 64\)"):
        Model.from_onnx(network, "fbank64")
    with pytest.raises(UsageError, match=r"and 'waveform' gives \(batch, time\)"):
        Model.from_onnx(network, Waveform())
    with pytest.raises(UsageError, match="clips of one length only"):
        Model.from_onnx(bank_network(tmp_path / "b.onnx", shape=(1, 200, 80)), "fbank80")
    with pytest.raises(UsageError, match="There are no features 'mfcc': use one of 'fbank80'"):
        Model.from_onnx(network, "mfcc")
    with pytest.raises(UsageError, match="features= takes a text, FilterBanks or Waveform, not int"):
        Model.from_onnx(network, 80)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "front_end",
    [
        FilterBanks(),
        STATED,
        FilterBanks(64, floor=1e-10),
        Waveform(),
        Waveform("int16", True),
        features.ROBUST,
    ],
)
def test_a_front_ends_text_names_it(front_end: Known) -> None:
    assert named(text_of(front_end)) == front_end


@pytest.mark.parametrize("text", ["fbank80,windows=hamming", "robust,window=hamming", "fbank80,window"])
def test_unknown_options_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"no option|Unknown window"):
        named(text)


# --- sidecars -------------------------------------------------------------------------------------------


def test_a_sidecar_may_pin_the_digest(network: Path) -> None:
    sidecar = network.with_suffix(".json")
    sidecar.write_text(
        json.dumps({"features": "3d-speaker", "sha256": Model.from_onnx(network, STATED).sha256})
    )
    assert Model.from_onnx(network).features == FilterBanks()
    bank_network(network, seed=2)
    with pytest.raises(UsageError, match="not the file whose sha256"):
        Model.from_onnx(network)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "needs 'features'"),
        ('{"model": "mine"}', "needs 'features'"),
        ('{"features": "fbank80", "sample_rate": 8000}', "nothing else"),
        ('{"features": 80}', "neither a text nor an object"),
        ('{"features": {"bands": 80}}', "There are no features None"),
        ('{"features": {"name": "fbank80", "window": ["hamming"]}}', "Unknown window"),
    ],
)
def test_a_sidecar_that_tells_of_nothing_is_refused(network: Path, text: str, told: str) -> None:
    network.with_suffix(".json").write_text(text)
    with pytest.raises(UsageError, match=f"'mine.onnx' cannot be used. .*'mine.json'.*{told}"):
        Model.from_onnx(network)
    assert Model.from_onnx(network, "fbank80").features == FilterBanks()


# --- whether it is a speaker network --------------------------------------------------------------------


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    with pytest.raises(UsageError, match=r"'broken\.onnx' cannot be used\. It cannot be read: No such file"):
        Model.from_onnx(broken, "fbank80")
    broken.write_bytes(b"not a network")
    with pytest.raises(UsageError, match="ONNX Runtime does not read it: "):
        Model.from_onnx(broken, "fbank80")
    with pytest.raises(UsageError, match=r"ends in '\.onnx': 'weights\.pt' does not"):
        Model.from_onnx(tmp_path / "weights.pt")


def test_an_answer_that_is_no_embedding_is_refused(tmp_path: Path) -> None:
    same = helper.make_node("Identity", ["x"], ["y"])
    frames = write(tmp_path / "frames.onnx", [same], ("b", "t", 80), ("b", "t", 80), {})
    with pytest.raises(UsageError, match=r"one embedding a clip is needed, \(batch, dimensions\)"):
        Model.from_onnx(frames, "fbank80")
    nothing = helper.make_node("Mul", ["pooled", "zero"], ["y"])
    pool = helper.make_node("ReduceMean", ["x"], ["pooled"], axes=[1], keepdims=0)
    zero = {"zero": np.zeros(1, np.float32)}
    constant = write(tmp_path / "constant.onnx", [pool, nothing], ("b", "t", 80), ("b", 80), zero)
    with pytest.raises(UsageError, match="different noises with the same numbers"):
        Model.from_onnx(constant, "fbank80")
    root = helper.make_node("Log", ["x"], ["logs"])
    minus = helper.make_node("ReduceSum", ["logs", "axis"], ["y"], keepdims=0)
    axis = {"axis": np.array([1])}
    nan = write(tmp_path / "nan.onnx", [root, minus], ("b", "t", 80), ("b", 80), axis)
    with pytest.raises(UsageError, match="NaN or infinite"):
        Model.from_onnx(nan, "fbank80")
    longer = helper.make_node("Flatten", ["x"], ["y"])
    flat = write(tmp_path / "flat.onnx", [longer], ("b", "t", 80), ("b", "n"), {})
    with pytest.raises(UsageError, match="numbers for two clips"):
        Model.from_onnx(flat, "fbank80")


def test_other_numbers_and_more_inputs_are_refused(tmp_path: Path) -> None:
    pool = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)
    half = write(tmp_path / "half.onnx", [pool], ("b", "t", 80), ("b", 80), {}, kind=TensorProto.FLOAT16)
    with pytest.raises(UsageError, match=r"must be float32, not tensor\(float16\)"):
        Model.from_onnx(half, "fbank80")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 80]) for name in ("x", "z", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "z"], ["y"])], "two", values[:2], values[2:])
    two = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "two.onnx").write_bytes(two.SerializeToString())
    with pytest.raises(UsageError, match="It has 2 inputs and 1 outputs, and needs one of each"):
        Model.from_onnx(tmp_path / "two.onnx")


def test_what_fails_on_noise_is_refused(tmp_path: Path) -> None:
    shape = helper.make_node("Reshape", ["x", "size"], ["y"])
    rigid = write(tmp_path / "a.onnx", [shape], ("b", "t", 80), (1, 8000), {"size": np.array([1, 8000])})
    with pytest.raises(UsageError, match=r"It fails on an input of \(1, 148, 80\): .*Reshape"):
        Model.from_onnx(rigid, "fbank80")


def test_an_axis_of_one_in_the_output_is_left_out(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceLogSumExp", ["x"], ["y"], axes=[1], keepdims=1),
    ]
    path = write(tmp_path / "a.onnx", nodes, ("b", "t", 80), ("b", 1, 80), {})
    assert Embedder(Model.from_onnx(path, "fbank80")).embed(clip()).shape == (80,)


# --- names, digests, fingerprints -----------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_models_text_names_it_entirely(network: Path, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(network.parent)
    model = Model.from_onnx("mine.onnx", STATED, name="ours", device=device)  # type: ignore[arg-type]
    head = f"{network}:fbank80,window=hamming,scale=int16,subtract_mean=false:sha256={model.sha256}"
    assert model.text == (head if device == "cpu" else f"{head}:cuda")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = Model.named(model.text)
    assert again == model
    assert again.fingerprint == pickle.loads(pickle.dumps(model)).fingerprint  # noqa: S301 - made here
    assert (model.name, again.name) == ("ours", "mine")
    assert "hamming" in repr(model)


def test_a_file_that_has_changed_is_noticed(network: Path) -> None:
    model = Model.from_onnx(network, "fbank80")
    bank_network(network, seed=3)
    with pytest.raises(UsageError, match="not the one that was used before"):
        Model.named(model.text)
    with pytest.raises(UsageError, match="has changed since its model was made"):
        Embedder(model)
    assert Model.named(f"{network}:fbank80").fingerprint != model.fingerprint


def test_a_fingerprint_is_of_file_and_features(network: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    copy = Path(shutil.copy(network, tmp_path / "other" / "moved.onnx"))
    one = Model.from_onnx(network, "fbank80")
    assert Model.from_onnx(copy, "fbank80", name="moved").fingerprint == one.fingerprint
    assert Model.from_onnx(network, "wespeaker").fingerprint != one.fingerprint
    assert dataclasses.replace(one, precision="bfloat16").fingerprint != one.fingerprint


def test_a_file_is_tried_once_while_it_stays_the_same(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Model.from_onnx(network, "fbank80")
    monkeypatch.setattr(Path, "read_bytes", lambda _path: pytest.fail("read again"))
    assert Model.named(f"{network}:fbank80").features == FilterBanks()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (":mfcc", "There are no features 'mfcc'"),
        (":fbank80:wespeaker", "named with both 'fbank80' and 'wespeaker'"),
        (":fbank80:int8", "precision='int8' is not for a network of your own"),
        (":fbank80:bfloat16:cuda", "leave it out on device='cuda'"),
        (":", "There are no features ''"),
    ],
)
def test_texts_that_name_no_model_are_refused(network: Path, words: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Model.named(f"{network}{words}")


def test_a_path_may_hold_colons(tmp_path: Path) -> None:
    (tmp_path / "a.onnx:b").mkdir()
    path = bank_network(tmp_path / "a.onnx:b" / "c:d.onnx")
    model = Model.from_onnx(path, "fbank80")
    assert Model.named(model.text).path == path


# --- prints ---------------------------------------------------------------------------------------------


def test_prints_have_the_networks_dimensions_and_unit_length(network: Path) -> None:
    model = Model.from_onnx(network, "fbank80")
    vectors = Embedder(model).embed_many([clip(1), clip(3, seed=1), clip(0.2, seed=2)])
    assert vectors.shape == (3, 48)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    made_by, back = vector_of(voiceprint_text(vectors[1], model.fingerprint))
    assert made_by == model.fingerprint
    np.testing.assert_array_equal(back, vectors[1])


def test_a_clip_without_an_answer_fails_alone(tmp_path: Path) -> None:
    """The network divides by how far the loudest sample is from 0.5: one clip has no direction."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["loudest"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["loudest", "half"], ["off"]),
        helper.make_node("Slice", ["x", "from", "to", "axis"], ["start"]),
        helper.make_node("Div", ["start", "off"], ["y"]),
    ]
    constants = {"half": np.float32([0.5]), "from": np.array([0]), "to": np.array([9]), "axis": np.array([1])}
    path = write(tmp_path / "a.onnx", nodes, ("b", "samples"), ("b", 9), constants)
    model = Model.from_onnx(path, "waveform")
    fine, bad = clip(), np.clip(clip(seed=4) * 20, -0.5, 0.5)
    with EnginePool(lambda: Embedder(model), threads=1) as pool:
        answers = [pool.submit(lambda samples=samples: samples) for samples in (fine, bad, fine)]
        assert np.isfinite(answers[0].result()).all()
        with pytest.raises(RowError, match="The network has no answer to this clip") as refused:
            answers[1].result()
        assert refused.value.code == "job_failed"
        assert np.isfinite(answers[2].result()).all()


def test_bfloat16_is_close_to_float32_where_openvino_is_installed(network: Path) -> None:
    pytest.importorskip("openvino")
    model = Model.from_onnx(network, "fbank80", precision="bfloat16")
    assert Model.named(model.text) == model
    try:
        found = Embedder(model).embed_many([clip(1), clip(3)])
    except UsageError as refused:
        assert "does not compute in bfloat16" in str(refused)
        return
    exact = Embedder(Model.from_onnx(network, "fbank80")).embed_many([clip(1), clip(3)])
    assert np.sum(found * exact, axis=1).min() > 0.99


def test_a_folder_under_home_may_be_written_short(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "HOME", str(network.parent))
    assert Model.named("~/mine.onnx:fbank80").path == network
