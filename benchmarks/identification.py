"""Who is it, on labelled speech: error rates with intervals, and names for the enrolled, none for strangers.

::

    python -m benchmarks.identification --speech FOLDER [--rounds 20]

FOLDER (or ``VOICEPRINT_NB_SPEECH``) as for `benchmarks.quality`. Verification: equal error rates with their
95 % intervals over speakers, clip against clip and against people of three clips, over all pairs and within
one corpus. Closed set: the share of test clips whose nearest enrolled person is the right one. Open set: the
speakers are dealt into two halves; one calibrates, half of the other is enrolled with its enroll clips, and
all test clips of that half are matched. So half of them are of strangers, and the calibration has heard none
of them. Both ways round, so many rounds with other draws. Clusters: likewise, all clips of the other half,
without labels.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score

import voiceprint_nb as vp
from benchmarks.quality import embed, read_corpus
from voiceprint_nb.contract import encode_voiceprint
from voiceprint_nb.engine.embedder import fingerprint

SEED = 11
RATES = (0.01, 0.05)
ENROLLED = 3


def prints_of(folder: Path) -> pd.DataFrame:
    """A row for each clip: its voiceprint, speaker, corpus, and whether it is for enrollment."""
    corpus = read_corpus(folder)
    vectors = embed(corpus, "robust", np.zeros(len(corpus.paths)))
    texts = [encode_voiceprint(fingerprint("robust"), vector.astype("<f4").tobytes()) for vector in vectors]
    return pd.DataFrame(
        {
            "voiceprint": texts,
            "speaker": corpus.speakers,
            "corpus": corpus.corpora,
            "enroll": corpus.enrolled,
        }
    )


def show_verification(out: pd.DataFrame) -> None:
    """Print a table of equal error rates."""
    print("| claims | pairs | equal error rate | at | 1 % false accepts at | minDCF | Cllr |")
    print("|---|---|---|---|---|---|---|")
    for enrolled in (1, ENROLLED):
        for within in (None, "corpus"):
            made = vp.calibrate(out, enrolled=enrolled, within=within)
            against = "a clip" if enrolled == 1 else f"a person of {enrolled} clips"
            print(
                f"| {against} | {within or 'all'} | {made.eer:.2%} | {made.eer_threshold:.3f} "
                f"| {made.threshold(0.01):.3f} | {made.min_dcf:.2f} | {made.cllr or np.nan:.2f} |"
            )


def show_closed_set(out: pd.DataFrame) -> None:
    """Print the share of right names when everybody is enrolled."""
    library = vp.Library.from_frame(out[out.enroll])
    told = vp.match(out[~out.enroll], library, threshold=-1.0)
    right = (told.vp_label == told.speaker).sum()
    print(f"\nclosed set: {right} of {len(told)} clips have the right name among {len(library)} people")


def open_set(out: pd.DataFrame, rate: float, random: np.random.Generator) -> pd.DataFrame:
    """One draw, both ways round: the matched test clips, with whether their speaker is enrolled."""
    halves = np.array_split(random.permutation(out.speaker.unique()), 2)
    parts = []
    for calibrating, tested in (halves, halves[::-1]):
        enrolled = tested[: len(tested) // 2]
        calibration = vp.calibrate(out[out.speaker.isin(calibrating)], enrolled=ENROLLED)
        library = vp.Library.from_frame(out[out.enroll & out.speaker.isin(enrolled)])
        clips = out[~out.enroll & out.speaker.isin(tested)]
        told = vp.match(clips, library, calibration=calibration, false_name_rate=rate)
        parts.append(told.assign(is_known=told.speaker.isin(enrolled)))
    return pd.concat(parts)


def show_open_set(out: pd.DataFrame, rounds: int) -> None:
    """Print what clips of strangers and of enrolled people are told."""
    print(
        "\n| false names asked for | strangers named | strangers unknown | right | wrong | unsure | missed |"
    )
    print("|---|---|---|---|---|---|---|")
    for rate in RATES:
        random = np.random.default_rng(SEED)
        told = pd.concat([open_set(out, rate, random) for _ in range(rounds)])
        strangers, known = told[~told.is_known], told[told.is_known]
        named = known.vp_decision.eq("match")
        right = named & known.vp_label.eq(known.speaker).fillna(False)
        shares = (
            strangers.vp_decision.eq("match").mean(),
            strangers.vp_decision.eq("unknown").mean(),
            right.mean(),
            (named & ~right).mean(),
            known.vp_decision.eq("unsure").mean(),
            known.vp_decision.eq("unknown").mean(),
        )
        print(f"| {rate:.0%} | {' | '.join(f'{share:.2%}' for share in shares)} |", flush=True)


def show_clusters(out: pd.DataFrame, rounds: int) -> None:
    """Print how well voices are counted among speakers whom the calibration has not heard."""
    random, indices, errors, n_speakers = np.random.default_rng(SEED), [], [], 0
    for _ in range(rounds):
        halves = np.array_split(random.permutation(out.speaker.unique()), 2)
        for calibrating, tested in (halves, halves[::-1]):
            calibration = vp.calibrate(out[out.speaker.isin(calibrating)])
            told = vp.cluster(out[out.speaker.isin(tested)], calibration=calibration)
            indices.append(adjusted_rand_score(told.speaker, told.vp_cluster))
            errors.append(int(told.vp_cluster.max()) - len(tested))
            n_speakers = len(tested)
    print(
        f"\nclusters: {n_speakers} speakers, adjusted Rand index {np.mean(indices):.2f} "
        f"({min(indices):.2f} to {max(indices):.2f}), voices too many: median {np.median(errors):.0f} "
        f"({min(errors)} to {max(errors)})"
    )


def main() -> None:
    """Command line: print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--speech", type=Path, default=os.environ.get("VOICEPRINT_NB_SPEECH"))
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.speech is None:
        sys.exit("Name a speech folder: --speech FOLDER, or set VOICEPRINT_NB_SPEECH.")
    out = prints_of(Path(arguments.speech))
    print(f"{len(out)} clips, {out.speaker.nunique()} speakers\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that halves of the speakers are few
        show_verification(out)
        show_closed_set(out)
        show_open_set(out, arguments.rounds)
        show_clusters(out, arguments.rounds)


if __name__ == "__main__":
    main()
