"""The exporter: loads nothing but weights, and writes the network that it was given."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tools.export_ge2e import CELLS, LAYERS, MELS, WEIGHTS_NAME, WeightsUnpickler, build_model, read_weights

MODEL = Path(__file__).parents[2] / "voiceprint_nb" / "engine" / "models" / "ge2e-dvector-fp16w.onnx"


class Malicious:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_pickle_that_would_run_code_is_refused(capsys):
    with pytest.raises(pickle.UnpicklingError, match=r"refused to load builtins\.print"):
        WeightsUnpickler(io.BytesIO(pickle.dumps(Malicious()))).load()
    assert "executed" not in capsys.readouterr().out


def test_a_wheel_with_other_weights_is_refused(tmp_path):
    wheel = tmp_path / "other.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(WEIGHTS_NAME, b"other weights")
    with pytest.raises(SystemExit, match="digest"):
        read_weights(wheel)


def random_weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    shapes = {"linear.weight": (CELLS, CELLS), "linear.bias": (CELLS,)}
    for layer in range(LAYERS):
        shapes[f"lstm.weight_ih_l{layer}"] = (4 * CELLS, MELS if layer == 0 else CELLS)
        shapes[f"lstm.weight_hh_l{layer}"] = (4 * CELLS, CELLS)
        shapes[f"lstm.bias_ih_l{layer}"] = shapes[f"lstm.bias_hh_l{layer}"] = (4 * CELLS,)
    weights = {name: random.uniform(-0.06, 0.06, shape) for name, shape in shapes.items()}
    return {name: values.astype(np.float16).astype(np.float32) for name, values in weights.items()}


def forward(weights: dict[str, np.ndarray], mels: np.ndarray) -> np.ndarray:
    """The network as PyTorch documents its LSTM, in NumPy float64."""
    sequence = mels.astype(np.float64)
    for layer in range(LAYERS):
        hidden, cell, outputs = np.zeros(CELLS), np.zeros(CELLS), []
        for frame in sequence:
            gates = weights[f"lstm.weight_ih_l{layer}"] @ frame + weights[f"lstm.bias_ih_l{layer}"]
            gates = gates + weights[f"lstm.weight_hh_l{layer}"] @ hidden + weights[f"lstm.bias_hh_l{layer}"]
            into, forget, new, out = np.split(gates, 4)
            cell = cell / (1 + np.exp(-forget)) + np.tanh(new) / (1 + np.exp(-into))
            hidden = np.tanh(cell) / (1 + np.exp(-out))
            outputs.append(hidden)
        sequence = np.array(outputs)
    raw = np.maximum(weights["linear.weight"] @ sequence[-1] + weights["linear.bias"], 0)
    return raw / np.linalg.norm(raw)


def test_the_exported_graph_computes_the_network():
    weights = random_weights()
    mels = np.random.default_rng(6).uniform(0, 2, (160, MELS)).astype(np.float32)
    session = onnxruntime.InferenceSession(build_model(weights), providers=["CPUExecutionProvider"])
    (embeds,) = session.run(["embeds"], {"mels": mels[np.newaxis]})
    assert np.abs(embeds[0] - forward(weights, mels)).max() < 1e-5


def test_the_export_is_the_same_every_time():
    assert build_model(random_weights()) == build_model(random_weights())


def test_the_packaged_network_says_where_it_comes_from():
    properties = {entry.key: entry.value for entry in onnx.load(MODEL).metadata_props}
    assert properties["licence"] == "Apache-2.0"
    assert "resemblyzer==0.1.4" in properties["source"]
