"""How well prints tell speakers apart: equal error rate and identification on labelled speech.

::

    python -m benchmarks.quality --speech FOLDER

FOLDER (or ``VOICEPRINT_NB_SPEECH``) holds ``manifest.csv`` with the columns path, speaker, split (enroll or
test) and corpus. Rows of the table: each model, on the clips as they are and after random gains of up to
10 dB either way. Pairs across corpora are easy (another channel), so pairs within one corpus are counted on
their own. Gains are applied to float samples: nothing clips.
"""

from __future__ import annotations

import argparse
import csv
import functools
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb import audio
from voiceprint_nb.analysis.detection import equal_error_rate
from voiceprint_nb.analysis.similarity import cosine_matrix
from voiceprint_nb.engine.embedder import Embedder
from voiceprint_nb.engine.pool import EnginePool

GAIN_DB = 10.0
SEED = 7
MODELS = ("robust", "compatible", "fast")


@dataclass(frozen=True)
class Corpus:
    """Labelled clips: one entry per clip in every field."""

    paths: list[Path]
    speakers: NDArray[np.str_]
    corpora: NDArray[np.str_]
    enrolled: NDArray[np.bool_]


def read_corpus(folder: Path) -> Corpus:
    """Read ``manifest.csv`` of a speech folder."""
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return Corpus(
        paths=[folder / row["path"] for row in rows],
        speakers=np.array([row["speaker"] for row in rows]),
        corpora=np.array([row["corpus"] for row in rows]),
        enrolled=np.array([row["split"] == "enroll" for row in rows]),
    )


def embed(corpus: Corpus, model: str, gains_db: NDArray[np.float64]) -> NDArray[np.float32]:
    """Embeddings of all clips, (clips, 256) float32, each clip at its gain."""

    def load(path: Path, gain_db: float) -> NDArray[np.float32]:
        return audio.read_mono(path) * np.float32(10 ** (gain_db / 20))

    with EnginePool(functools.partial(Embedder, model)) as pool:
        jobs = zip(corpus.paths, gains_db, strict=True)
        futures = [pool.submit(functools.partial(load, path, gain)) for path, gain in jobs]
        return np.stack([future.result() for future in futures])


def verification(corpus: Corpus, vectors: NDArray[np.float32]) -> dict[str, tuple[float, float]]:
    """Equal error rate and its threshold, over all pairs and over pairs within one corpus."""
    cosines = cosine_matrix(vectors)
    upper = np.triu(np.ones(cosines.shape, bool), k=1)
    same = corpus.speakers[:, None] == corpus.speakers[None, :]
    near = corpus.corpora[:, None] == corpus.corpora[None, :]
    genuine = cosines[upper & same]
    return {
        "in corpus": equal_error_rate(genuine, cosines[upper & ~same & near]),
        "all pairs": equal_error_rate(genuine, cosines[upper & ~same]),
    }


def identification(corpus: Corpus, vectors: NDArray[np.float32]) -> tuple[int, int]:
    """Test clips whose nearest speaker (mean of the enrolled clips) is the right one, and all test clips."""
    names = np.unique(corpus.speakers)
    centres = np.stack([vectors[corpus.enrolled & (corpus.speakers == name)].mean(axis=0) for name in names])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    guesses = names[np.argmax(vectors[~corpus.enrolled] @ centres.T, axis=1)]
    return int(np.sum(guesses == corpus.speakers[~corpus.enrolled])), len(guesses)


def main() -> None:
    """Command line: print one table."""
    parser = argparse.ArgumentParser(description="Equal error rate and identification on labelled speech.")
    parser.add_argument("--speech", type=Path, default=os.environ.get("VOICEPRINT_NB_SPEECH"))
    folder = parser.parse_args().speech
    if folder is None:
        sys.exit("Name a speech folder: --speech FOLDER, or set VOICEPRINT_NB_SPEECH.")
    corpus = read_corpus(Path(folder))
    clean = np.zeros(len(corpus.paths))
    random = np.random.default_rng(SEED).uniform(-GAIN_DB, GAIN_DB, len(corpus.paths))
    print(f"{len(corpus.paths)} clips, {len(np.unique(corpus.speakers))} speakers\n")
    print("| model | level | EER in corpus (threshold) | EER all pairs (threshold) | identified | seconds |")
    print("|---|---|---|---|---|---|")
    for model in MODELS:
        for level, gains_db in (("clean", clean), ("+-10 dB", random)):
            began = time.perf_counter()
            vectors = embed(corpus, model, gains_db)
            seconds = time.perf_counter() - began
            rates = [f"{rate:.2%} ({limit:.3f})" for rate, limit in verification(corpus, vectors).values()]
            right, asked = identification(corpus, vectors)
            share = f"{right}/{asked} ({right / asked:.1%})"
            print(f"| {model} | {level} | {' | '.join(rates)} | {share} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
