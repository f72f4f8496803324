"""The whole path of many rows against the engine alone, on the same clips: throughput and memory as ratios.

::

    python -m benchmarks.whole_path [--rows 1000] [--rounds 3]

The rows are the good samples repeated, each with its own faint noise so that all contents differ. Every round
measures, each in a process of its own: what importing pandas and loading the network takes ("loaded"), the
engine on samples that are already decoded ("engine"), the engine fed from the files ("decode + engine"), and
``voiceprint_nb.voiceprints`` from frame to frame with a fresh ledger ("whole path"). A first clip, not
counted, loads the network and the libraries.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).parent.parent
SEED = 11
NOISE_PEAK = 1e-3


def decoded_samples() -> list[tuple[np.ndarray, int]]:
    """The good samples, one channel each, with their rates in Hz."""
    from voiceprint_nb import audio

    manifest = pd.read_csv(ROOT / "data" / "samples" / "manifest.csv", keep_default_na=False)
    return [audio.read_stored(ROOT / path) for path in manifest.audio[manifest.note == ""]]


def make_rows(folder: Path, n_rows: int) -> None:
    """Write the clips, in the samples' own rates, as FLAC."""
    from voiceprint_nb import audio

    random = np.random.default_rng(SEED)
    decoded = decoded_samples()
    for number in range(n_rows):
        samples, rate_hz = decoded[number % len(decoded)]
        noise = random.uniform(-NOISE_PEAK, NOISE_PEAK, len(samples)).astype(np.float32)
        (folder / f"{number:05d}.flac").write_bytes(audio.encode_flac(samples + noise, rate_hz))


def loaded(_paths: list[Path]) -> float:
    """Import pandas and load the network: the floor of memory."""
    from voiceprint_nb.engine.embedder import Embedder

    Embedder().embed(np.full(16_000, 0.1, np.float32) * np.sin(np.arange(16_000, dtype=np.float32)))
    return 0.0


def engine(paths: list[Path]) -> float:
    """Seconds of the engine's threads for samples in memory."""
    from voiceprint_nb import audio

    clips = [audio.read_mono(path) for path in paths]
    return _through_pool([lambda clip=clip: clip for clip in clips])  # type: ignore[misc]


def decode_engine(paths: list[Path]) -> float:
    """Seconds of the engine's threads when they decode the files themselves."""
    from voiceprint_nb import audio

    return _through_pool([lambda path=path: audio.read_mono(path) for path in paths])  # type: ignore[misc]


def whole_path(paths: list[Path]) -> float:
    """Seconds of ``voiceprints`` on a frame of these paths, with a ledger on disk."""
    import voiceprint_nb as vp

    vp.voiceprints([ROOT / "data" / "samples" / "ada-1.wav"], service="local", progress=False, ledger=False)
    frame = pd.DataFrame({"audio": [str(path) for path in paths]})
    with tempfile.TemporaryDirectory() as folder:
        started_s = time.perf_counter()
        out = vp.voiceprints(frame, service="local", progress=False, data_dir=folder)
        elapsed_s = time.perf_counter() - started_s
    if (out.vp_status != "succeeded").any():
        raise SystemExit(f"not all rows succeeded: {out.vp_error.dropna().iloc[0]}")
    return elapsed_s


def _through_pool(loads: list[Callable[[], np.ndarray]]) -> float:
    from voiceprint_nb.engine.pool import EnginePool

    with EnginePool() as pool:
        pool.submit(loads[0]).result()
        started_s = time.perf_counter()
        futures = [pool.submit(load) for load in loads]
        for future in futures:
            future.result()
        return time.perf_counter() - started_s


KINDS = {"loaded": loaded, "engine": engine, "decode + engine": decode_engine, "whole path": whole_path}


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        kind, folder = arguments.child
        elapsed_s = KINDS[kind](sorted(Path(folder).glob("*.flac")))
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"elapsed_s": elapsed_s, "peak_mib": peak_mib}))
        return
    results: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        make_rows(Path(folder), arguments.rows)
        for _ in range(arguments.rounds):
            for kind in KINDS:
                command = [sys.executable, "-m", "benchmarks.whole_path", "--child", kind, folder]
                done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
                results[kind].append(json.loads(done.stdout.splitlines()[-1]))
    _print(results, arguments.rows)


def _print(results: dict[str, list[dict[str, float]]], n_rows: int) -> None:
    floor_mib = statistics.median(run["peak_mib"] for run in results["loaded"])
    rounds = range(len(results["loaded"]))
    print(f"{n_rows} rows, median of {len(rounds)} rounds (min to max)")
    for kind, runs in results.items():
        peak = statistics.median(run["peak_mib"] for run in runs)
        more = f"{peak / floor_mib:4.2f} x loaded, {peak - floor_mib:+5.0f} MiB"
        line = f"  {kind:16s} peak {peak:6.0f} MiB ({more})"
        if kind != "loaded":
            line += f"  {n_rows / statistics.median(run['elapsed_s'] for run in runs):7.1f} rows/s"
        print(line)
    for peer in ("engine", "decode + engine"):
        ratios = [results[peer][k]["elapsed_s"] / results["whole path"][k]["elapsed_s"] for k in rounds]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"  throughput of the whole path / {peer}: {statistics.median(ratios):.2f} ({spread})")


if __name__ == "__main__":
    main()
