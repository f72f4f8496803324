"""What the measures of a clip's quality say of real speech that was damaged on purpose, and what it costs.

::

    python -m benchmarks.clip_quality --speech FOLDER [--every 1]

FOLDER (or ``VOICEPRINT_NB_SPEECH``) holds ``manifest.csv`` as for ``benchmarks.quality``. Every clip of the
test split is damaged in each way. Its loss is how far its cosine with the mean of its speaker's enrolled
clips falls below that of the undamaged clip. The true ratio of speech to noise is that of the mean power of
the undamaged clip's speech-like frames to the added noise; the clips' own noise comes on top. Other voices
are of the same corpus, at the same level. The limits of the sentences were chosen on the same speech.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from benchmarks.quality import Corpus, read_corpus
from voiceprint_nb import audio
from voiceprint_nb.analysis.trials import unit
from voiceprint_nb.audio import Samples
from voiceprint_nb.engine.embedder import Embedder
from voiceprint_nb.intake.clips import FRAME_S, speech_frames
from voiceprint_nb.intake.quality import Quality, measure, sentences

SEED = 11
RATE_HZ = audio.WORK_RATE_HZ
FRAME = round(FRAME_S * RATE_HZ)
N_BABBLE = 6

NOISES_DB = (0, 5, 10, 15, 20)
GAINS_DB = (6, 12, 18, 24)
SPEECH_S = (0.5, 1.0, 2.0)
LEVELS_DBFS = (-50, -60, -70)
OVERLAPS_DB = (0, 5, 10)
CLEAN, SAME = "undamaged", "same voice after"
MEASURED = {"noise": "snr_db", "clipping": "clipped", "cut": "speech_s", "level": "level_dbfs"}


@dataclass(frozen=True)
class Damaged:
    """A damaged clip, and the true size of its damage."""

    kind: str
    name: str
    samples: Samples
    truth: float = float("nan")


@dataclass(frozen=True)
class Row:
    """What was measured of one damaged clip."""

    kind: str
    name: str
    truth: float
    quality: Quality
    loss: float
    told: frozenset[str]


def active(samples: Samples) -> NDArray[np.bool_]:
    """Which frames are speech-like."""
    return speech_frames(powers(samples), FRAME_S)


def powers(samples: Samples) -> NDArray[np.float64]:
    """Mean squares of whole frames."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    return np.mean(np.square(frames, dtype=np.float64), axis=1)


def level(samples: Samples) -> float:
    """RMS of the speech-like frames."""
    return float(np.sqrt(powers(samples)[active(samples)].mean()))


class Damages:
    """All ways to damage the clips of a corpus."""

    def __init__(self, corpus: Corpus, clips: list[Samples]) -> None:
        self._corpus, self._clips = corpus, clips

    def of(self, number: int) -> Iterator[Damaged]:
        """Every damaged form of one clip, the undamaged one first; drawn anew by its number."""
        random = np.random.default_rng([SEED, number])
        clip = self._clips[number]
        yield Damaged("none", CLEAN, clip)
        yield from self._noisy(clip, number, random)
        peak = np.abs(clip).max()
        for gain_db in GAINS_DB:
            loud = clip * np.float32(10 ** (gain_db / 20) / peak)
            share = float(np.mean(np.abs(loud) >= 1))
            yield Damaged("clipping", f"gain {gain_db} dB", np.clip(loud, -1, 1), share)
        yield from _cuts(clip)
        for level_dbfs in LEVELS_DBFS:
            quiet = np.round(clip * 10 ** (level_dbfs / 20) / level(clip) * 2**15) / 2**15
            if not audio.is_silent(quiet.astype(np.float32)):
                yield Damaged("level", f"{level_dbfs} dBFS, 16 bit", quiet.astype(np.float32), level_dbfs)
        yield from self._mixed(clip, number, random)

    def _noisy(self, clip: Samples, number: int, random: np.random.Generator) -> Iterator[Damaged]:
        white = random.standard_normal(len(clip))
        others = np.flatnonzero(self._corpus.speakers != self._corpus.speakers[number])
        voices = [self._clips[other] for other in random.choice(others, N_BABBLE, replace=False)]
        babble = sum(np.resize(voice / level(voice), len(clip)) for voice in voices)
        for name, noise in (("white", white), ("babble", babble)):
            scaled = noise / np.sqrt(np.mean(np.square(noise))) * level(clip)
            for snr_db in NOISES_DB:
                noisy = (clip + scaled * 10 ** (-snr_db / 20)).astype(np.float32)
                yield Damaged("noise", f"{name} {snr_db} dB", noisy, snr_db)

    def _mixed(self, clip: Samples, number: int, random: np.random.Generator) -> Iterator[Damaged]:
        corpus = self._corpus
        near = corpus.corpora == corpus.corpora[number]
        same = corpus.speakers == corpus.speakers[number]
        own = random.choice(np.flatnonzero(same & (np.arange(len(same)) != number)))
        yield Damaged("none", SAME, np.concatenate([clip, self._levelled(own, clip)]))
        if not (near & ~same).any():
            return
        other = self._levelled(random.choice(np.flatnonzero(near & ~same)), clip)
        yield Damaged("voices", "other after", np.concatenate([clip, other]))
        yield Damaged("voices", "a third of other after", np.concatenate([clip, other[: len(other) // 3]]))
        for ratio_db in OVERLAPS_DB:
            mixed = clip + np.resize(other, len(clip)) * np.float32(10 ** (-ratio_db / 20))
            yield Damaged("voices", f"other at once, {ratio_db} dB below", mixed)

    def _levelled(self, number: int, clip: Samples) -> Samples:
        other = self._clips[number]
        return other * np.float32(level(clip) / level(other))


def _cuts(clip: Samples) -> Iterator[Damaged]:
    """From the middle of the speech, so many seconds of it, with the pauses between."""
    so_far_s = np.cumsum(active(clip)) * FRAME_S
    for wanted_s in SPEECH_S:
        if so_far_s[-1] >= wanted_s + FRAME_S:
            ends_s = (so_far_s[-1] - wanted_s) / 2 + np.array([0, wanted_s])
            start, end = np.searchsorted(so_far_s, ends_s) + 1
            yield Damaged("cut", f"{wanted_s} s of speech", clip[start * FRAME : end * FRAME], wanted_s)


def rows_of(number: int, damages: Damages, centre: Samples, embedder: Embedder) -> list[Row]:
    """Measure every form of one clip."""
    rows, whole = [], 0.0
    for damaged in damages.of(number):
        quality = measure(damaged.samples, RATE_HZ, embed=embedder.embed_parts)
        score = float(embedder.embed(damaged.samples) @ centre)
        whole = whole or score
        told = frozenset(sentences(quality))
        rows.append(Row(damaged.kind, damaged.name, damaged.truth, quality, whole - score, told))
    return rows


def values(rows: list[Row], measure_name: str) -> NDArray[np.float64]:
    """One measure of all rows; NaN where it is missing."""
    return np.array([getattr(row.quality, measure_name) for row in rows], float)


def print_damages(rows: list[Row]) -> None:
    """One line for each damage."""
    print(
        "| damage | clips | truth, measured, median error | mean loss | with a sentence | on a second voice |"
    )
    print("|---|---|---|---|---|---|")
    by_name = defaultdict(list)
    for row in rows:
        by_name[row.name].append(row)
    for name, group in by_name.items():
        kind = group[0].kind
        found = values(group, MEASURED.get(kind, "voice_spread"))
        truths = np.array([row.truth for row in group])
        told = f"spread {np.nanmedian(found):.3f}"
        if kind in MEASURED:
            error = np.nanmedian(np.abs(found - truths))
            told = f"{np.median(truths):.3g}, {np.nanmedian(found):.3g}, {error:.2g}"
        loss = np.mean([row.loss for row in group])
        warned = np.mean([bool(row.told) for row in group])
        two = np.mean(["voice_spread" in row.told for row in group])
        print(f"| {kind}: {name} | {len(group)} | {told} | {loss:.3f} | {warned:.0%} | {two:.0%} |")


def print_correlations(rows: list[Row]) -> None:
    """Spearman's correlation of each measure with the loss, over its own damages and over all."""
    print("\n| measure | rank correlation with the loss: its damages | all damages |\n|---|---|---|")
    for kind, name in (MEASURED | {"voices": "voice_spread"}).items():
        own = [row for row in rows if row.kind == kind or row.name == CLEAN]
        told = []
        for group in (own, rows):
            found, losses = values(group, name), np.array([row.loss for row in group])
            told.append(f"{spearmanr(found, losses, nan_policy='omit').statistic:+.2f}")
        print(f"| {name} | {' | '.join(told)} |")


def print_voices(rows: list[Row]) -> None:
    """How well the spread finds a second voice: areas under the curve; a missing spread counts as none."""
    print("\n| second voice | AUC against single clips | against two clips of one voice |\n|---|---|---|")
    spreads = defaultdict(list)
    for row in rows:
        spreads[row.name].append(row.quality.voice_spread or 0.0)
    for name in dict.fromkeys(row.name for row in rows if row.kind == "voices"):
        areas = []
        for without in (CLEAN, SAME):
            truth = [1] * len(spreads[name]) + [0] * len(spreads[without])
            areas.append(f"{roc_auc_score(truth, spreads[name] + spreads[without]):.3f}")
        print(f"| {name} | {' | '.join(areas)} |")


def print_sentences(rows: list[Row], clean: list[Quality]) -> None:
    """Who is warned, and what that is worth."""
    damaged = [row for row in rows if row.kind != "none"]
    warned = [row.loss for row in damaged if row.told]
    unwarned = [row.loss for row in damaged if not row.told]
    n_clean = sum(bool(sentences(quality)) for quality in clean)
    print(f"\nundamaged clips with a sentence: {n_clean} of {len(clean)} ({n_clean / len(clean):.1%})")
    reasons = Counter(name for quality in clean for name in sentences(quality))
    print(f"by measure: {dict(reasons)}")
    share = len(warned) / len(damaged)
    print(f"damaged clips with a sentence: {len(warned)} of {len(damaged)} ({share:.1%})")
    print(f"mean loss with a sentence {np.mean(warned):.3f}, without {np.mean(unwarned):.3f}")


def in_threads(work: Callable[[int], object], numbers: NDArray[np.intp]) -> list:
    """Results in order; the network and NumPy leave the interpreter to the other threads."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, numbers))


def main() -> None:
    """Command line: print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--speech", type=Path, default=os.environ.get("VOICEPRINT_NB_SPEECH"))
    parser.add_argument("--every", type=int, default=1, help="damage only every so many clips")
    arguments = parser.parse_args()
    if arguments.speech is None:
        sys.exit("Name a speech folder: --speech FOLDER, or set VOICEPRINT_NB_SPEECH.")
    corpus = read_corpus(Path(arguments.speech))
    embedder = Embedder()
    everything = np.arange(len(corpus.paths))
    stored = in_threads(lambda n: audio.read_stored(corpus.paths[n]), everything)
    clips = [audio.resample(samples, rate_hz, RATE_HZ) for samples, rate_hz in stored]
    clean = in_threads(lambda n: measure(*stored[n], embed=embedder.embed_parts), everything)
    vectors = np.stack(in_threads(lambda n: embedder.embed(clips[n]), everything))
    centres = {
        name: unit(vectors[corpus.enrolled & (corpus.speakers == name)].mean(axis=0, keepdims=True))[0]
        for name in np.unique(corpus.speakers)
    }
    work = partial(rows_of, damages=Damages(corpus, clips), embedder=embedder)
    tested = np.flatnonzero(~corpus.enrolled)[:: arguments.every]
    found = in_threads(lambda n: work(n, centre=centres[corpus.speakers[n]]), tested)
    rows = [row for clip_rows in found for row in clip_rows]
    print(f"{len(tested)} clips of {len(centres)} speakers, {len(rows)} forms\n")
    print_damages(rows)
    print_correlations(rows)
    print_voices(rows)
    print_sentences(rows, clean)


if __name__ == "__main__":
    main()
