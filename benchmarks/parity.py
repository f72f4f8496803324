"""How close the packaged engine is to what the authors published: cosine per clip.

::

    python -m benchmarks.parity --speech FOLDER                  # network: original float32 weights, in NumPy
    python -m benchmarks.parity --speech FOLDER --original       # everything: Resemblyzer 0.1.4 itself

Without ``--original`` the windows are ours and the network is a plain float32 forward pass of the published
weights: what differs is the conversion (matrices stored as float16) and ONNX Runtime. With it, the authors'
own code makes features, windows and embedding, without its voice-activity trimming, which the recipe
``compatible`` leaves out. That needs packages that this project does not install; in an environment of its
own::

    pip install torch librosa webrtcvad-wheels && pip install --no-deps resemblyzer==0.1.4

The weights come from the wheel on PyPI, or from ``--wheel``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb import audio
from voiceprint_nb.engine import features
from voiceprint_nb.engine.embedder import Embedder

Clip = NDArray[np.float32]
Embed = Callable[[Clip], NDArray[np.float32]]


def _sigmoid(values: Clip) -> Clip:
    squashed: Clip = np.float32(0.5) + np.float32(0.5) * np.tanh(values / np.float32(2))
    return squashed


def published_network(wheel: Path | None) -> Embed:
    """Clip to embedding through the published float32 weights, in NumPy; PyTorch's LSTM equations."""
    from tools.export_ge2e import CELLS, LAYERS, download, read_weights

    with tempfile.TemporaryDirectory() as folder:
        weights = read_weights(wheel or download(Path(folder)))

    def embed(samples: Clip) -> NDArray[np.float32]:
        steps = features.windows(samples, features.COMPATIBLE).transpose(1, 0, 2)
        for layer in range(LAYERS):
            inner, recurrent = weights[f"lstm.weight_ih_l{layer}"], weights[f"lstm.weight_hh_l{layer}"]
            bias = weights[f"lstm.bias_ih_l{layer}"] + weights[f"lstm.bias_hh_l{layer}"]
            driven = steps @ inner.T + bias
            hidden = cell = np.zeros((steps.shape[1], CELLS), np.float32)
            outputs = []
            for drive in driven:
                gate_in, forget, update, gate_out = np.split(drive + hidden @ recurrent.T, 4, axis=1)
                cell = _sigmoid(forget) * cell + _sigmoid(gate_in) * np.tanh(update)
                hidden = _sigmoid(gate_out) * np.tanh(cell)
                outputs.append(hidden)
            steps = np.stack(outputs)
        raw = np.maximum(0, hidden @ weights["linear.weight"].T + weights["linear.bias"])
        return np.asarray(np.mean(raw / np.linalg.norm(raw, axis=1, keepdims=True), axis=0))

    return embed


def published_program() -> Embed:
    """Clip to embedding through the installed Resemblyzer: its level, features, windows and network."""
    try:
        from resemblyzer import VoiceEncoder, normalize_volume  # type: ignore[import-not-found]
    except ImportError as error:
        sys.exit(
            f"{error}. In an environment of its own: pip install torch librosa webrtcvad-wheels && "
            "pip install --no-deps resemblyzer==0.1.4"
        )
    encoder = VoiceEncoder("cpu", verbose=False)

    def embed(samples: Clip) -> NDArray[np.float32]:
        return np.asarray(encoder.embed_utterance(normalize_volume(samples, -30, increase_only=True)))

    return embed


def main() -> None:
    """Command line: cosine of the recipe ``compatible`` to the published embedding, over clips."""
    parser = argparse.ArgumentParser(description="Cosine per clip to the published implementation.")
    parser.add_argument("--speech", type=Path, default=os.environ.get("VOICEPRINT_NB_SPEECH"))
    parser.add_argument("--clips", type=int, default=40, help="clips taken evenly from the folder; 0: all")
    parser.add_argument("--wheel", type=Path, help="a copy of the published wheel")
    parser.add_argument("--original", action="store_true", help="run the installed Resemblyzer")
    options = parser.parse_args()
    if options.speech is None:
        sys.exit("Name a folder of audio files: --speech FOLDER, or set VOICEPRINT_NB_SPEECH.")
    kinds = {".flac", ".ogg", ".wav", ".mp3"}
    paths = sorted(path for path in Path(options.speech).rglob("*") if path.suffix in kinds)
    paths = paths[:: max(1, len(paths) // options.clips)] if options.clips else paths
    theirs = published_program() if options.original else published_network(options.wheel)
    ours = Embedder("compatible")
    cosines = []
    for path in paths:
        samples = audio.read_mono(path)
        one, other = ours.embed(samples).astype(np.float64), theirs(samples).astype(np.float64)
        cosines.append(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    print(f"{len(paths)} clips: lowest cosine {min(cosines):.7f}, median {np.median(cosines):.7f}")


if __name__ == "__main__":
    main()
