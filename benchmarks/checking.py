"""What a check of many WAV files costs a row, against bare ``soundfile.info`` on the same files.

::

    python -m benchmarks.checking [--rows 10000] [--rounds 5]

The rows are the good samples repeated, each with its own faint noise, as WAV of 16 bits. A check tells more
than the header: it looks for missing ends and for sound. Every round measures, in alternation, the seconds of
the processor and of the clock of ``soundfile.info``, file by file, and of ``voiceprint_nb.check`` from frame
to frame. A first check, not counted, loads the libraries.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

import voiceprint_nb as vp
from benchmarks.whole_path import NOISE_PEAK, SEED, decoded_samples

Costs = tuple[float, float]


def make_rows(folder: Path, n_rows: int) -> list[str]:
    """Write the clips, in the samples' own rates; their paths."""
    random = np.random.default_rng(SEED)
    decoded = decoded_samples()
    paths = [str(folder / f"{number:06d}.wav") for number in range(n_rows)]
    for number, path in enumerate(paths):
        samples, rate_hz = decoded[number % len(decoded)]
        noise = random.uniform(-NOISE_PEAK, NOISE_PEAK, len(samples)).astype(np.float32)
        soundfile.write(path, samples + noise, rate_hz, subtype="PCM_16")
    return paths


def measured(work: Callable[[], None]) -> Costs:
    """Seconds of the processor and of the clock."""
    started_s, began_s = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - started_s, time.perf_counter() - began_s


def info(paths: list[str]) -> None:
    """The bare headers."""
    for path in paths:
        soundfile.info(path)


def check(frame: pd.DataFrame) -> None:
    """The check, all rows of which must pass."""
    if (vp.check(frame, progress=False).vp_status != "ok").any():
        raise SystemExit("not all rows are ok")


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rounds: list[tuple[Costs, Costs]] = []
    with tempfile.TemporaryDirectory() as folder:
        paths = make_rows(Path(folder), arguments.rows)
        frame = pd.DataFrame({"audio": paths})
        check(frame.head(100))
        for _ in range(arguments.rounds):
            rounds.append((measured(lambda: info(paths)), measured(lambda: check(frame))))
    print(f"{arguments.rows} WAV files, median of {arguments.rounds} rounds (min to max)")
    for place, kind in enumerate(("processor", "clock")):
        ratios = [ours[place] / theirs[place] for theirs, ours in rounds]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"  {kind}: check / soundfile.info: {statistics.median(ratios):.2f} ({spread})")


if __name__ == "__main__":
    main()
