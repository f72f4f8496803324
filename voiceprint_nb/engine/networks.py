"""A model's network in memory, ready to compute on the thread that calls it."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from voiceprint_nb.engine.model import Model

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_one_by_one = threading.Lock()  # first calls of OpenVINO 2026.4 in two threads wait for each other for ever


def usable_cpus() -> int:
    """CPUs that this process may run on, at least 1."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13 and later
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Runtime(Protocol):
    """A network that is loaded; several threads may call it at once."""

    def __call__(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings, ``(batch, dimensions) float32``, of ``(batch, ...) float32`` inputs."""
        ...


def open_network(model: Model) -> Runtime:
    """Read a model's network.

    Raises
    ------
    UsageError
        Its file is missing or damaged, or this machine has no such device or precision.
    MissingExtra
        The runtime for the precision is not installed.
    """
    return _OpenVino(model) if model.precision == "bfloat16" else _OnnxRuntime(model)


class _OnnxRuntime:
    """ONNX Runtime: allows concurrent runs of a session; on a processor each computes on one thread."""

    def __init__(self, model: Model) -> None:
        self._session = session_of(model.read(), model.device)
        if model.device == "cuda" and self._session.get_providers()[0] != _CUDA:
            raise UsageError("ONNX Runtime finds no usable GPU: look at nvidia-smi, or leave device= out.")
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name

    def __call__(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return embeddings_of(self._session.run([self._output], {self._input: inputs})[0])


def session_of(data: bytes, device: str = "cpu") -> Any:
    """ONNX Runtime's session of a network file's bytes; on a processor it computes on the thread that calls.

    Raises
    ------
    MissingExtra
        ``cuda`` with an ONNX Runtime that was built without it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # errors: its warnings would print into notebooks
    providers = providers_for(device, onnxruntime.get_available_providers())
    return onnxruntime.InferenceSession(data, options, providers=providers)


def embeddings_of(output: NDArray[np.float32]) -> NDArray[np.float32]:
    """A network's output, (batch, dimensions) or (batch, 1, dimensions), as (batch, dimensions) float32."""
    return output.reshape(len(output), -1)


def providers_for(device: str, available: list[str]) -> list[str]:
    """ONNX Runtime's names for where a session computes, first choice first.

    Raises
    ------
    MissingExtra
        ``cuda`` with an ONNX Runtime that was built without it.
    """
    if device == "cpu":
        return [_CPU]
    if _CUDA not in available:
        raise MissingExtra(
            "device='cuda' needs ONNX Runtime for GPUs: pip uninstall onnxruntime, then pip install "
            "onnxruntime-gpu."
        )
    return [_CUDA, _CPU]


class _OpenVino:
    """OpenVINO in bfloat16: each thread has its own request and computes alone."""

    def __init__(self, model: Model) -> None:
        try:
            import openvino
        except ImportError as error:
            raise MissingExtra(
                "precision='bfloat16' needs OpenVINO: pip install 'voiceprint_nb[openvino]'."
            ) from error
        core = openvino.Core()
        if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise UsageError("This processor does not compute in bfloat16: use precision='int8' instead.")
        self._compiled = core.compile_model(
            core.read_model(model.read()),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "bf16",
                "INFERENCE_NUM_THREADS": usable_cpus(),
                "NUM_STREAMS": usable_cpus(),  # as many requests at once, each on one thread
            },
        )
        self._own = threading.local()

    def __call__(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        request: Any = getattr(self._own, "request", None)
        if request is not None:
            return self._infer(request, inputs)
        with _one_by_one:
            self._own.request = self._compiled.create_infer_request()
            return self._infer(self._own.request, inputs)

    def _infer(self, request: Any, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return embeddings_of(request.infer([inputs])[0].copy())  # its memory is used again
