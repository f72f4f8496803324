"""Matching at scale: the five nearest of 10,000 people for 100,000 clips, against a plain matrix product.

::

    python -m benchmarks.matching [--clips 100000] [--people 10000] [--rounds 3]

The peer is the product of the same arrays in the same blocks, of which nothing is kept. It is timed before
each of the others, and ratios are medians over rounds in one process. The peak is the growth of resident
memory while matching, beyond what is given: arrays, or for `vp.match` a frame of voiceprints and a library.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

import voiceprint_nb as vp
from voiceprint_nb.analysis import matching
from voiceprint_nb.analysis.matching import People, nearest_people
from voiceprint_nb.analysis.trials import unit
from voiceprint_nb.contract import encode_voiceprint

DIMENSIONS, TOP, SEED = 256, 5, 3


def vectors(n: int, random: np.random.Generator) -> np.ndarray:
    """Unit vectors, (n, 256) float32."""
    return unit(random.standard_normal((n, DIMENSIONS), np.float32))


def product(clips: np.ndarray, references: np.ndarray) -> None:
    """The bare product, block by block."""
    step = max(1, matching._BLOCK_VALUES // len(references))
    for begin in range(0, len(clips), step):
        clips[begin : begin + step] @ references.T


def seconds(work: Callable[[], object]) -> float:
    """Time of a call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def resident_bytes(name: str) -> int:
    """A figure of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def works(clips: np.ndarray, prints: np.ndarray, others: np.ndarray) -> dict[str, Callable[[], object]]:
    """What is timed."""
    people = People([str(n) for n in range(len(prints))], prints, np.arange(len(prints)))
    library = vp.Library.from_frame(pd.DataFrame({"voiceprint": texts(prints), "speaker": people.names}))
    out, cohort = pd.DataFrame({"voiceprint": texts(clips)}), texts(others)
    return {
        f"the nearest {TOP}": lambda: nearest_people(clips, people, top=TOP),
        f"the nearest {TOP} and probabilities": lambda: nearest_people(
            clips, people, top=TOP, line=(50.0, -40.0)
        ),
        "vp.match": lambda: vp.match(out, library, threshold=0.8),
        f"vp.match, cohort of {len(others)}": lambda: vp.match(out, library, threshold=5.0, cohort=cohort),
    }


def texts(embeddings: np.ndarray) -> list[str]:
    """Voiceprints as they stand in a frame."""
    return [encode_voiceprint("ab" * 16, vector.tobytes()) for vector in embeddings]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--cohort", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    random = np.random.default_rng(SEED)
    clips, prints = vectors(arguments.clips, random), vectors(arguments.people, random)
    product(clips[:5000], prints)
    for name, work in works(clips, prints, vectors(arguments.cohort, random)).items():
        took = []
        before = resident_bytes("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        for _ in range(arguments.rounds):
            took.append((seconds(lambda: product(clips, prints)), seconds(work)))
        grown = (resident_bytes("VmHWM") - before) / 1e6
        bare_s, work_s = (statistics.median(column) for column in zip(*took, strict=True))
        ratio = statistics.median(own / bare for bare, own in took)
        print(
            f"{len(clips)} clips x {len(prints)} people, {name}: {work_s:.1f} s, {ratio:.2f} of the bare "
            f"product ({bare_s:.1f} s), peak +{grown:.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
