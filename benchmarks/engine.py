"""From files to voiceprints on all cores: each packaged model against Resemblyzer, and how well each hears.

::

    python -m benchmarks.engine --speech FOLDER --peer VENV [--rounds 3]

FOLDER (or ``VOICEPRINT_NB_SPEECH``) holds labelled speech as `benchmarks.quality` takes it. VENV is a virtual
environment with ``resemblyzer==0.1.4`` and torch; it is made, and they are installed, where there is none
(some gigabytes). Every round measures everyone once, in turn, each in processes of its own on the same files;
loading the network and a first clip are not counted. Resemblyzer runs as its users run it, in one process,
with one thread and with one for each core, of which the faster counts; and in a process for each core with
one thread, which its users would have to write. Its own trimming of silence, which ours has not, is left out,
to its advantage.

Beside the ratio stand what the network computes (``FLOP``: two for each weight and frame of a window), its
share of the peak that NumPy's float32 matrix product reaches on one core of this machine in the same run, and
the equal error rate on the speech, within a corpus and over all pairs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.quality import Corpus, read_corpus, verification
from voiceprint_nb import audio
from voiceprint_nb.engine import features
from voiceprint_nb.engine.embedder import Embedder
from voiceprint_nb.engine.model import Model
from voiceprint_nb.engine.networks import usable_cpus
from voiceprint_nb.engine.pool import EnginePool

ROOT = Path(__file__).parent.parent
PEER = ("resemblyzer==0.1.4", "torch", "setuptools<81")  # webrtcvad looks for pkg_resources
PEER_CODE = """\
import json, sys, time, warnings
warnings.filterwarnings("ignore")
threads, paths = int(sys.argv[1]), json.loads(sys.stdin.readline())
import librosa, torch
from resemblyzer import VoiceEncoder, audio
torch.set_num_threads(threads)
encoder = VoiceEncoder("cpu", verbose=False)
def embed(path):
    samples, rate = librosa.load(path, sr=None)
    if rate != 16000:
        samples = librosa.resample(samples, orig_sr=rate, target_sr=16000)
    level = audio.audio_norm_target_dBFS
    return encoder.embed_utterance(audio.normalize_volume(samples, level, increase_only=True))
with torch.inference_mode():
    embed(paths[0])
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    for path in paths:
        embed(path)
print(time.perf_counter() - began, flush=True)
"""
MODELS = ("compatible", "robust", "robust:int8", "robust:bfloat16")
WEIGHTS = 4 * 256 * ((40 + 256) + 2 * (256 + 256))  # of three LSTM layers, used once a frame


def peer_python(folder: Path) -> Path:
    """The interpreter of the peer's environment, which is made if it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEER], check=True)
    return python


def peer_s(python: Path, paths: list[str], *, processes: int, threads: int) -> float:
    """Seconds until the last of so many processes, which share the files, has done its part."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    running = [
        subprocess.Popen(
            [python, "-c", PEER_CODE, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(processes)
    ]
    return _raced_s(running, [json.dumps(paths[number::processes]) for number in range(processes)])


def ours_s(model: str, paths: list[str]) -> float:
    """Seconds of a process of our own."""
    command = [sys.executable, "-m", "benchmarks.engine", "--child", model]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return _raced_s([child], [json.dumps(paths)])


def _raced_s(running: list[subprocess.Popen[str]], tasks: list[str]) -> float:
    """Give each process its task, start all at once when all are ready, and take the slowest."""
    for process, task in zip(running, tasks, strict=True):
        print(task, file=process.stdin, flush=True)
    for process in running:
        if process.stdout is None or process.stdout.readline().strip() != "ready":
            raise SystemExit(f"{process.args} did not get ready.")
    for process in running:
        print("go", file=process.stdin, flush=True)
    times_s = [float(process.communicate()[0]) for process in running]
    return max(times_s)


def child(model: str) -> None:
    """Embed the files that the first line names, when the second one comes."""
    paths = [Path(path) for path in json.loads(sys.stdin.readline())]
    with EnginePool(partial(Embedder, model)) as pool:
        pool.submit(partial(audio.read_mono, paths[0])).result()
        print("ready", flush=True)
        sys.stdin.readline()
        began_s = time.perf_counter()
        futures = [pool.submit(partial(audio.read_mono, path)) for path in paths]
        for future in futures:
            future.result()
        print(time.perf_counter() - began_s, flush=True)


def windows_of(corpus: Corpus, model: Model) -> tuple[int, float]:
    """Network windows of all clips, and seconds of audio."""
    clips = [audio.read_mono(path) for path in corpus.paths]
    n_windows = sum(len(model.features.inputs(clip)) for clip in clips)
    return n_windows, sum(map(len, clips)) / features.SAMPLE_RATE_HZ


def peak_gflops() -> float:
    """What one core reaches in the matrix product, in GFLOP/s: the best of a few."""
    code = (
        "import numpy as np, time\n"
        "a = np.ones((1024, 1024), np.float32); best = 0\n"
        "for _ in range(20):\n"
        "    began = time.perf_counter(); a @ a\n"
        "    best = max(best, 2 * 1024**3 / (time.perf_counter() - began))\n"
        "print(best / 1e9)"
    )
    one = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    fast = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS")} | one
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=fast)
    return float(done.stdout)


def error_rates(corpus: Corpus, model: str) -> dict[str, float]:
    """Equal error rates of a model."""
    with EnginePool(partial(Embedder, model)) as pool:
        futures = [pool.submit(partial(audio.read_mono, path)) for path in corpus.paths]
        vectors = np.stack([future.result() for future in futures])
    return {pairs: rate for pairs, (rate, _) in verification(corpus, vectors).items()}


def main() -> None:
    """Command line: measure, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--speech", type=Path, default=os.environ.get("VOICEPRINT_NB_SPEECH"))
    parser.add_argument("--peer", type=Path, default=Path(tempfile.gettempdir(), "voiceprint_nb-resemblyzer"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child)
        return
    if options.speech is None:
        sys.exit("Name a speech folder: --speech FOLDER, or set VOICEPRINT_NB_SPEECH.")
    corpus, python, cpus = read_corpus(Path(options.speech)), peer_python(options.peer), usable_cpus()
    paths = [str(path) for path in corpus.paths]
    models = [name for name in MODELS if "bfloat16" not in name or importlib.util.find_spec("openvino")]
    times_s: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for processes, threads in ((1, 1), (1, cpus), (cpus, 1)):
            name = _peer_name(processes, threads)
            times_s.setdefault(name, []).append(peer_s(python, paths, processes=processes, threads=threads))
        for model in models:
            times_s.setdefault(model, []).append(ours_s(model, paths))
    _print(corpus, times_s, models, cpus)


def _print(corpus: Corpus, times_s: dict[str, list[float]], models: list[str], cpus: int) -> None:
    peak, rounds = peak_gflops(), len(next(iter(times_s.values())))
    _, audio_s = windows_of(corpus, Model.packaged())
    usual = min((_peer_name(1, 1), _peer_name(1, cpus)), key=lambda name: statistics.median(times_s[name]))
    spread = _peer_name(cpus, 1)
    print(f"{len(corpus.paths)} files, {audio_s:.0f} s of audio, {cpus} cores, median of {rounds} rounds")
    print(f"Matrix product of float32 on one core: {peak:.0f} GFLOP/s\n")
    print(
        f"| | audio s / s | ratio to {usual} | to {spread} | MFLOP / audio s | share of peak "
        "| EER in corpus | all |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, spent_s in times_s.items():
        cells = [name, f"{audio_s / statistics.median(spent_s):.0f}"]
        for peer in (usual, spread):
            cells.append(_spread([other / own for other, own in zip(times_s[peer], spent_s, strict=True)]))
        if name in models:
            n_windows, _ = windows_of(corpus, Model.named(name))
            flops = 2 * WEIGHTS * features.WINDOW_FRAMES * n_windows / audio_s
            reached = flops * audio_s / statistics.median(spent_s) / (peak * 1e9 * cpus)
            rates = error_rates(corpus, name).values()
            cells += [f"{flops / 1e6:.0f}", f"{reached:.0%}", *(f"{rate:.2%}" for rate in rates)]
        print(f"| {' | '.join(cells)} |", flush=True)


def _peer_name(processes: int, threads: int) -> str:
    return f"Resemblyzer 0.1.4, {processes} x {threads}"


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    main()
