"""Matching at scale: the five nearest of 10,000 people for 100,000 clips, against a plain matrix product.

::

    python -m benchmarks.matching [--clips 100000] [--people 10000] [--rounds 3]

The peer is the product of the same arrays in the same blocks, of which nothing is kept. Times are medians of
rounds in one process, and the peak is the growth of its resident memory while matching, beyond the arrays.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from voiceprint_nb.analysis import matching
from voiceprint_nb.analysis.matching import People, nearest_people
from voiceprint_nb.analysis.trials import unit

DIMENSIONS, TOP, SEED = 256, 5, 3


def vectors(n: int, random: np.random.Generator) -> np.ndarray:
    """Unit vectors, (n, 256) float32."""
    return unit(random.standard_normal((n, DIMENSIONS), np.float32))


def product(clips: np.ndarray, references: np.ndarray) -> None:
    """The bare product, block by block."""
    step = max(1, matching._BLOCK_VALUES // len(references))
    for begin in range(0, len(clips), step):
        clips[begin : begin + step] @ references.T


def seconds(work: object, rounds: int) -> float:
    """Median time of a call."""
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()  # type: ignore[operator]
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def resident_bytes(name: str) -> int:
    """A figure of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    random = np.random.default_rng(SEED)
    clips, prints = vectors(arguments.clips, random), vectors(arguments.people, random)
    people = People([str(n) for n in range(len(prints))], prints, np.arange(len(prints)))
    product(clips[:5000], prints)
    bare_s = seconds(lambda: product(clips, prints), arguments.rounds)
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    for name, line in (("scores", None), ("scores and probabilities", (50.0, -40.0))):
        took_s = seconds(
            lambda line=line: nearest_people(clips, people, top=TOP, line=line), arguments.rounds
        )
        grown = (resident_bytes("VmHWM") - before) / 1e6
        print(
            f"{len(clips)} clips x {len(prints)} people, the nearest {TOP}, {name}: {took_s:.1f} s, "
            f"{took_s / bare_s:.2f} of the bare product ({bare_s:.1f} s), peak +{grown:.0f} MB"
        )


if __name__ == "__main__":
    main()
