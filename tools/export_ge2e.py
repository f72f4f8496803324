"""Write the packaged speaker network from the weights that its authors published.

::

    python -m tools.export_ge2e voiceprint_nb/engine/models/ge2e-dvector-fp16w.onnx
    python -m tools.export_ge2e voiceprint_nb/engine/models/ge2e-dvector-int8.onnx --int8
    python -m tools.export_ge2e OUT.onnx --wheel Resemblyzer-0.1.4-py3-none-any.whl --reference OTHER.onnx

The wheel ``resemblyzer==0.1.4`` comes from PyPI through pip unless it is given. Its ``pretrained.pt`` is
checked against a pinned digest and read without PyTorch and without running any code from it: the
unpickler knows three names and refuses all others. The same weights give the same bytes on every run.
Needs ``onnx``, and ``onnxruntime`` for ``--reference``.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import pickle
import subprocess
import sys
import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

WHEEL = "resemblyzer==0.1.4"
WEIGHTS_NAME = "resemblyzer/pretrained.pt"
WEIGHTS_SHA256 = "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"
LAYERS, CELLS, MELS = 3, 256, 40
ONNX_GATE_ORDER = (0, 3, 1, 2)  # PyTorch stacks input, forget, cell, output; ONNX input, output, forget, cell
RUNTIME_DOMAIN = "com.microsoft"
METADATA = {
    "framework": "ge2e",
    "model_name": "ge2e-dvector (Resemblyzer 0.1.4 weights)",
    "sample_rate": "16000",
    "output_dim": "256",
    "feature": "mel40-linear-power",
    "window_ms": "25",
    "hop_ms": "10",
    "n_fft": "400",
    "window_type": "hann_periodic",
    "center": "zero_pad",
    "mel_scale": "slaney",
    "mel_norm": "slaney",
    "segment_frames": "160",
    "pooling": "mean_of_unit_partials_then_l2",
    "licence": "Apache-2.0",
    "source": "PyPI resemblyzer==0.1.4 resemblyzer/pretrained.pt",
}


class WeightsUnpickler(pickle.Unpickler):
    """Reads the legacy ``torch.save`` layout: tensors become placeholders, nothing else is built."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.storages: dict[str, NDArray[np.float32]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Resolve one of the three names that the weights use; refuse every other."""
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch", "FloatStorage"): np.float32,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"refused to load {module}.{name}")
        return known[module, name]

    def persistent_load(self, pid: Any) -> NDArray[np.float32]:
        """Make room for a storage; `read_weights` fills it from the bytes behind the pickles."""
        kind, dtype, key, _device, elements, _view = pid
        if kind != "storage" or dtype is not np.float32:
            raise pickle.UnpicklingError(f"unknown persistent object {kind!r}")
        return self.storages.setdefault(key, np.zeros(elements, np.float32))


def _rebuild_tensor(
    storage: NDArray[np.float32], offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_rest: object
) -> NDArray[np.float32]:
    reach = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1
    if offset < 0 or min(stride, default=0) < 0 or reach > storage.size:
        raise pickle.UnpicklingError("a tensor reaches outside its storage")
    steps = tuple(4 * step for step in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)


def read_weights(wheel: Path) -> dict[str, NDArray[np.float32]]:
    """Tensors of the network in a published wheel, by their PyTorch names.

    Raises
    ------
    SystemExit
        The wheel does not hold the expected weights.
    """
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(WEIGHTS_NAME)
    if hashlib.sha256(data).hexdigest() != WEIGHTS_SHA256:
        raise SystemExit(f"{wheel.name}: {WEIGHTS_NAME} is not the file whose digest is pinned here.")
    file = io.BytesIO(data)
    for _ in range(3):  # magic number, protocol version, byte order and type sizes (little endian)
        WeightsUnpickler(file).load()
    unpickler = WeightsUnpickler(file)
    checkpoint = unpickler.load()
    for key in WeightsUnpickler(file).load():
        elements = int.from_bytes(file.read(8), "little")
        unpickler.storages[key][:] = np.frombuffer(file.read(4 * elements), "<f4")
    state = checkpoint["model_state"]
    return {name: np.array(value) for name, value in state.items() if name.startswith(("lstm", "linear"))}


def _gates(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reorder the four stacked gates and add the axis of directions."""
    blocks = matrix.reshape(4, CELLS, *matrix.shape[1:])
    return np.concatenate([blocks[gate] for gate in ONNX_GATE_ORDER])[np.newaxis]


class _Graph:
    """Nodes and constants in the order in which they are added."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def op(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(onnx.helper.make_node(kind, inputs, output.split(","), **attributes))
        return output

    def constant(self, name: str, values: NDArray[Any]) -> str:
        self.constants.append(onnx.numpy_helper.from_array(values, name))
        return name

    def half(self, name: str, values: NDArray[np.float32]) -> list[str]:
        """A matrix that is stored in half precision; the one name of what it becomes."""
        stored = self.constant(f"{name}_half", values.astype(np.float16))
        return [self.op("Cast", [stored], name, to=onnx.TensorProto.FLOAT)]

    def int8(self, name: str, values: NDArray[np.float32]) -> list[str]:
        """A transposed matrix as 8-bit integers, with a scale for each of its rows; their three names."""
        scales = np.abs(values).max(axis=2) / np.float32(127)
        whole = np.rint(values / scales[..., np.newaxis]).astype(np.int8).transpose(0, 2, 1)
        parts = {"": whole, "_scale": scales, "_zero": np.zeros(scales.shape, np.int8)}
        return [self.constant(f"{name}{end}", part) for end, part in parts.items()]


def _add_layers(graph: _Graph, weights: dict[str, NDArray[np.float32]], *, int8: bool) -> str:
    """LSTM layers; returns the name of the last hidden state, (batch, 256).

    The first layer stays in floating point: its inputs are powers, whose range no 8 bits hold.
    """
    hidden = graph.op("Transpose", ["mels"], "x0", perm=[1, 0, 2])
    direction = {axis: graph.constant(f"axis{axis}", np.array([axis])) for axis in (0, 1)}
    for layer in range(LAYERS):
        is_int8 = int8 and layer > 0
        store = graph.int8 if is_int8 else graph.half
        inner, *inner_scale = store(f"W{layer}", _gates(weights[f"lstm.weight_ih_l{layer}"]))
        recurrent, *scale = store(f"R{layer}", _gates(weights[f"lstm.weight_hh_l{layer}"]))
        biases = [_gates(weights[f"lstm.bias_{part}_l{layer}"]) for part in ("ih", "hh")]
        bias = graph.constant(f"B{layer}", np.concatenate(biases, axis=1))
        last = layer == LAYERS - 1
        outputs = ",h" if last else f"y{layer}"  # all steps are the first output, the last state the second
        inputs = [hidden, inner, recurrent, bias]
        if is_int8:
            inputs += ["", "", "", "", *inner_scale, *scale]
            graph.op("DynamicQuantizeLSTM", inputs, outputs, domain=RUNTIME_DOMAIN, hidden_size=CELLS)
        else:
            graph.op("LSTM", inputs, outputs, hidden_size=CELLS)
        hidden = graph.op("Squeeze", [outputs.strip(","), direction[0 if last else 1]], f"x{layer + 1}")
    return hidden


def build_model(weights: dict[str, NDArray[np.float32]], *, int8: bool = False) -> bytes:
    """ONNX bytes: opset 17, IR 8; matrices stored as float16 and cast to float32 when a session loads.

    Parameters
    ----------
    weights : dict of str to float32 arrays
        From `read_weights`.
    int8 : bool
        Layers 2 and 3 in 8-bit integers, an operator that ONNX Runtime alone has.

    Returns
    -------
    bytes
        Input ``mels`` float32 (batch, time, 40), output ``embeds`` float32 (batch, 256): non-negative,
        unit length.
    """
    graph = _Graph()
    hidden = _add_layers(graph, weights, int8=int8)
    product = graph.op("MatMul", [hidden, *graph.half("L", weights["linear.weight"].T)], "product")
    raw = graph.op("Add", [product, graph.constant("LB", weights["linear.bias"])], "raw")
    graph.op("LpNormalization", [graph.op("Relu", [raw], "positive")], "embeds", axis=1, p=2)
    mels = onnx.helper.make_tensor_value_info("mels", onnx.TensorProto.FLOAT, ["batch", "time", MELS])
    embeds = onnx.helper.make_tensor_value_info("embeds", onnx.TensorProto.FLOAT, ["batch", CELLS])
    proto = onnx.helper.make_graph(graph.nodes, "ge2e", [mels], [embeds], graph.constants)
    opsets = [onnx.helper.make_opsetid("", 17)]
    opsets += [onnx.helper.make_opsetid(RUNTIME_DOMAIN, 1)] if int8 else []
    model = onnx.helper.make_model(proto, opset_imports=opsets, ir_version=8)
    onnx.helper.set_model_props(model, METADATA)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def parity(model: bytes, reference: Path, *, batch: int = 16) -> float:
    """Lowest cosine between the embeddings of two networks on seeded noise of speech-like levels."""
    import onnxruntime

    random = np.random.default_rng(20240)
    mels = (10.0 ** random.uniform(-6, 1, (batch, 160, MELS))).astype(np.float32)
    vectors = []
    for source in (model, reference):
        session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
        vectors.append(session.run(["embeds"], {"mels": mels})[0].astype(np.float64))
    return float(np.min(np.sum(vectors[0] * vectors[1], axis=1)))


def download(folder: Path) -> Path:
    """Fetch the wheel through pip, without its dependencies."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder), WHEEL]
    subprocess.run(command, check=True, timeout=600)
    return next(folder.glob("*.whl"))


def main() -> None:
    """Command line: read the weights, write the network, print its digest."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("out", type=Path, help="the ONNX file to write")
    parser.add_argument("--int8", action="store_true", help="layers 2 and 3 in 8-bit integers")
    parser.add_argument("--wheel", type=Path, help=f"a copy of {WHEEL}; downloaded when left out")
    parser.add_argument("--reference", type=Path, help="another export of the same weights to compare with")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = build_model(read_weights(options.wheel or download(Path(folder))), int8=options.int8)
    options.out.write_bytes(model)
    print(f"{options.out.name}: {len(model)} bytes, sha256 {hashlib.sha256(model).hexdigest()}")
    if options.reference:
        print(f"lowest cosine to {options.reference.name}: {parity(model, options.reference):.7f}")


if __name__ == "__main__":
    main()
