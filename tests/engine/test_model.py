"""Models: what names them, what tells them apart, and that only the pinned networks are read."""

from __future__ import annotations

import dataclasses
import importlib.resources
import pickle
import subprocess
import sys

import numpy as np
import pytest

from voiceprint_nb.engine import model as models
from voiceprint_nb.engine.embedder import Embedder
from voiceprint_nb.engine.model import Model
from voiceprint_nb.engine.networks import providers_for
from voiceprint_nb.errors import MissingExtra, UsageError

TEXTS = ("robust", "compatible", "robust:int8", "robust:bfloat16", "compatible:int8", "robust:cuda")


@pytest.mark.parametrize("text", TEXTS)
def test_a_models_text_names_it(text: str) -> None:
    assert Model.named(text).text == text
    assert pickle.loads(pickle.dumps(Model.named(text))) == Model.named(text)  # noqa: S301 - made here


def test_fast_is_robust_in_8_bits() -> None:
    assert Model.named("fast") == Model.packaged("robust", precision="int8")


def test_prints_of_another_device_compare_and_those_of_another_precision_do_not() -> None:
    made = [Model.named(text).fingerprint for text in TEXTS]
    assert made[0] == made[-1]
    assert len(set(made)) == len(TEXTS) - 1


def test_fingerprints_stay_what_they_were() -> None:
    """Prints of earlier versions compare with those of this one."""
    assert Model.packaged().fingerprint == "2868620db2d82ed95cf64e55037592a0"
    assert Model.packaged("compatible").fingerprint == "c511c21bd9e290bf877c1624a82d4523"


def test_a_fingerprint_needs_no_runtime() -> None:
    code = (
        "import sys; from voiceprint_nb.engine.model import Model; print(Model.packaged().fingerprint); "
        "sys.exit('onnxruntime' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == Model.packaged().fingerprint


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("magic", "There is no local model 'magic'"),
        ("robust:int4", "Unknown precision='int4'"),
        ("robust:int8:cuda", "leave it out on device='cuda'"),
        ("robust:cuda:int8", "leave it out on device='cuda'"),
        ("fast:float32", "name 'robust'"),
    ],
)
def test_unknown_models_are_refused(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Model.named(text)


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(UsageError, match="Unknown device='tpu'"):
        Model.packaged(device="tpu")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["robust", "fast"])
def test_packaged_networks_are_the_pinned_ones_and_small(text: str) -> None:
    assert 1_000_000 < len(Model.named(text).read()) < 3_000_000


def test_a_damaged_network_is_refused() -> None:
    damaged = dataclasses.replace(Model.packaged(), sha256="0" * 64)
    with pytest.raises(UsageError, match="reinstall"):
        Embedder(damaged)


def test_a_missing_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MODEL_NAME", "gone.onnx")
    with pytest.raises(UsageError, match="cannot be read: reinstall"):
        Model.packaged().read()
    assert not (importlib.resources.files("voiceprint_nb.engine") / "models" / "gone.onnx").is_file()


def test_a_gpu_is_used_where_the_runtime_has_it() -> None:
    both = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert providers_for("cpu", both) == ["CPUExecutionProvider"]
    assert providers_for("cuda", both) == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    with pytest.raises(MissingExtra, match="onnxruntime-gpu"):
        providers_for("cuda", ["CPUExecutionProvider"])


def test_cuda_gives_the_prints_of_the_processor() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA")
    clips = [np.random.default_rng(seed).normal(0, 0.1, 48_000).astype(np.float32) for seed in range(8)]
    there, here = (Embedder(text).embed_many(clips) for text in ("robust:cuda", "robust"))
    assert np.sum(there * here, axis=1).min() > 0.999


def test_cuda_without_the_runtime_says_what_to_install() -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(MissingExtra, match="onnxruntime-gpu"):
        Embedder("robust:cuda")


def test_bfloat16_is_close_to_float32_where_openvino_is_installed() -> None:
    pytest.importorskip("openvino")
    random = np.random.default_rng(3)
    clips = [random.normal(scale=0.1, size=16_000 * seconds).astype(np.float32) for seconds in (1, 3, 9)]
    try:
        found = Embedder("robust:bfloat16").embed_many(clips)
    except UsageError as refused:
        assert "does not compute in bfloat16" in str(refused)
        return
    assert np.sum(found * Embedder().embed_many(clips), axis=1).min() > 0.999
