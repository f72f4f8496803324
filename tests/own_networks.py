"""Small speaker networks as somebody may bring them: fixed random weights, written with onnx."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Size = str | int


def bank_network(
    path: Path,
    *,
    bands: int = 80,
    dimensions: int = 48,
    shape: Sequence[Size] | None = None,
    out: Sequence[Size] = ("batch", "dimensions"),
    metadata: dict[str, str] | None = None,
    seed: int = 0,
) -> Path:
    """Mean and deviation of each band over time, then a random layer: (batch, time, bands) in."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("ReduceMean", ["x"], ["mean_kept"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["x", "mean_kept"], ["centred"]),
        helper.make_node("ReduceL2", ["centred"], ["deviation"], axes=[1], keepdims=0),
        helper.make_node("Concat", ["mean", "deviation"], ["pooled"], axis=1),
        helper.make_node("MatMul", ["pooled", "weights"], ["y"]),
    ]
    weights = np.random.default_rng(seed).normal(size=(2 * bands, dimensions)).astype(np.float32)
    return write(path, nodes, shape or ("batch", "time", bands), out, {"weights": weights}, metadata=metadata)


def wave_network(path: Path, *, dimensions: int = 32, channel: bool = False, seed: int = 1) -> Path:
    """Random filters over samples, their power over time: (batch, samples) or (batch, 1, samples) in."""
    nodes = [] if channel else [helper.make_node("Unsqueeze", ["x", "axis"], ["channel"])]
    nodes += [
        helper.make_node("Conv", ["x" if channel else "channel", "weights"], ["filtered"], strides=[80]),
        helper.make_node("ReduceL2", ["filtered"], ["y"], axes=[2], keepdims=0),
    ]
    random = np.random.default_rng(seed)
    constants: dict[str, Any] = {"weights": random.normal(size=(dimensions, 1, 200)).astype(np.float32)}
    constants |= {} if channel else {"axis": np.array([1])}
    shape = ("batch", 1, "samples") if channel else ("batch", "samples")
    return write(path, nodes, shape, ("batch", dimensions), constants)


def write(
    path: Path,
    nodes: list[Any],
    shape: Sequence[Size],
    out: Sequence[Size],
    constants: dict[str, Any],
    *,
    metadata: dict[str, str] | None = None,
    kind: int = TensorProto.FLOAT,
) -> Path:
    """Write a network of one input ``x`` and one output ``y``."""
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("x", kind, list(shape))],
        [helper.make_tensor_value_info("y", kind, list(out))],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(network, metadata or {})
    onnx.save(network, path)
    return path
