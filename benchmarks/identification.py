"""Who is it, on labelled speech: error rates with intervals, and names for the enrolled, none for strangers.

::

    python -m benchmarks.identification --speech FOLDER [--rounds 20]

FOLDER (or ``VOICEPRINT_NB_SPEECH``) as for `benchmarks.quality`. Verification: equal error rates with their
95 % intervals over speakers, clip against clip and against people of three clips, over all pairs and within
one corpus. Closed set: the share of test clips whose nearest enrolled person is the right one. Open set: the
speakers are dealt into two halves; one calibrates, half of the other is enrolled with its enroll clips, and
all test clips of that half are matched. So half of them are of strangers, and the calibration has heard none
of them. Both ways round, so many rounds with other draws. Small calibrations: twelve speakers are enrolled,
twelve are strangers, and few of the others calibrate; beside it what the threshold would do that such a
calibration can tell at best. Clusters: as in the open set, all clips of the other half, without labels.

Normalised scores: the speakers are dealt into three parts, one of which is the cohort. Carried over: the
threshold for 1 % false accepts, clip against clip, is taken from clean clips of the second part, and asked
about the third with white noise so many dB below the voice; then from one corpus, and asked about the clips
of others, each against those of its own corpus. Open set: as above, with the second and third part.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score

import voiceprint_nb as vp
from benchmarks.quality import read_corpus
from voiceprint_nb import audio
from voiceprint_nb.engine.embedder import Embedder, voiceprint_text
from voiceprint_nb.engine.pool import EnginePool

SEED = 11
RATES = (0.01, 0.05)
ENROLLED = 3
FEW_SPEAKERS = (6, 10, 20)
NOISE_DB = (20.0, 10.0, 5.0)  # below the voice


def noisy(path: Path, below_db: float) -> np.ndarray:
    """A clip with white noise so far below it; the same noise whenever it is asked for."""
    samples = audio.read_mono(path)
    noise = np.random.default_rng(len(samples)).standard_normal(len(samples), np.float32)
    return samples + noise * np.float32(np.sqrt(np.mean(samples**2)) * 10 ** (-below_db / 20))


def prints_of(folder: Path, below_db: float = np.inf) -> pd.DataFrame:
    """A row for each clip: its voiceprint, speaker, corpus, and whether it is for enrollment."""
    corpus = read_corpus(folder)
    with EnginePool(Embedder) as pool:
        jobs = [pool.submit(functools.partial(noisy, path, below_db)) for path in corpus.paths]
        vectors = [job.result() for job in jobs]
    name = Embedder().model.fingerprint
    return pd.DataFrame(
        {
            "voiceprint": [voiceprint_text(vector, name) for vector in vectors],
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


def open_set(
    out: pd.DataFrame,
    rate: float,
    calibrating: np.ndarray,
    tested: np.ndarray,
    cohort: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The matched test clips of these speakers, half of whom are enrolled, and whether each one's is."""
    enrolled = tested[: len(tested) // 2]
    calibration = vp.calibrate(out[out.speaker.isin(calibrating)], enrolled=ENROLLED, cohort=cohort)
    library = vp.Library.from_frame(out[out.enroll & out.speaker.isin(enrolled)])
    clips = out[~out.enroll & out.speaker.isin(tested)]
    told = vp.match(clips, library, calibration=calibration, false_name_rate=rate, cohort=cohort)
    return told.assign(is_known=told.speaker.isin(enrolled))


def show_told(name: str, told: pd.DataFrame) -> None:
    """Print what clips of strangers and of enrolled people are told, as a row."""
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
    print(f"| {name} | {' | '.join(f'{share:.2%}' for share in shares)} |", flush=True)


def show_open_set(out: pd.DataFrame, rounds: int) -> None:
    """Print a table of what clips are told."""
    print(
        "\n| false names asked for | strangers named | strangers unknown | right | wrong | unsure | missed |"
    )
    print("|---|---|---|---|---|---|---|")
    for rate in RATES:
        random, parts = np.random.default_rng(SEED), []
        for _ in range(rounds):
            halves = np.array_split(random.permutation(out.speaker.unique()), 2)
            parts += [open_set(out, rate, *halves), open_set(out, rate, *halves[::-1])]
        show_told(f"{rate:.0%}", pd.concat(parts))


def show_small_calibrations(out: pd.DataFrame, rounds: int) -> None:
    """Print what strangers are told by calibrations of few speakers."""
    print(
        "\n| speakers | false names asked for | supported | draws with names | strangers named | right "
        "| strangers, best threshold | in the worst draw |\n|---|---|---|---|---|---|---|---|"
    )
    for n_speakers in FEW_SPEAKERS:
        for rate in RATES:
            random, told = np.random.default_rng(SEED), []
            for _ in range(rounds):
                enrolled, strangers, others = np.split(random.permutation(out.speaker.unique()), [12, 24])
                told.append(small_calibration(out, rate, others[:n_speakers], enrolled, strangers))
            supported, names, named, right, unruly = np.array(told).T
            print(
                f"| {n_speakers} | {rate:.0%} | {np.median(supported):.1%} | {names.sum():.0f} of {rounds} "
                f"| {named.mean():.1%} | {right.mean():.1%} | {unruly.mean():.1%} | {unruly.max():.0%} |",
                flush=True,
            )


def small_calibration(
    out: pd.DataFrame, rate: float, calibrating: np.ndarray, enrolled: np.ndarray, strangers: np.ndarray
) -> tuple[float, ...]:
    """What a calibration of few speakers does.

    The supported rate, whether names are given, the shares of strangers that get one and of enrolled people
    that get the right one, and the share of strangers at the threshold that can be told at best.
    """
    calibration = vp.calibrate(out[out.speaker.isin(calibrating)], enrolled=ENROLLED)
    library = vp.Library.from_frame(out[out.enroll & out.speaker.isin(enrolled)])
    clips = out[~out.enroll & out.speaker.isin([*enrolled, *strangers])]
    told = vp.match(clips, library, calibration=calibration, false_name_rate=rate)
    is_known = told.speaker.isin(enrolled)
    best = calibration.threshold(max(rate / len(library), 1 / calibration.n_impostor)).with_confidence(0.9)
    decided = told.attrs["voiceprint_nb_match"]["vp_"]
    return (
        decided["supported_false_name_rate"],
        decided["gives_names"],
        told[~is_known].vp_decision.eq("match").mean(),
        told[is_known].vp_label.eq(told[is_known].speaker).fillna(False).mean(),
        (told[~is_known].vp_score >= best).mean(),
    )


def show_carried_over(conditions: dict[str, pd.DataFrame], rounds: int) -> None:
    """Print what a threshold for 1 % does to clips of another condition, with and without a cohort."""
    clean = conditions["clean"]
    corpora = clean.corpus.value_counts().index[:2]
    made: dict[tuple[str, str], dict[str, list[tuple[float, ...]]]] = {}
    for scores in ("cosines", "clean cohort", "cohort of all conditions"):
        random = np.random.default_rng(SEED)
        for _ in range(rounds):
            nobody, calibrating, tested = np.array_split(random.permutation(clean.speaker.unique()), 3)
            heard = pd.concat(conditions.values()) if scores == "cohort of all conditions" else clean
            cohort = None if scores == "cosines" else heard[heard.speaker.isin(nobody)]
            at = vp.calibrate(clean[clean.speaker.isin(calibrating)], cohort=cohort).threshold(0.01).value
            for name, out in conditions.items():
                asked = vp.calibrate(out[out.speaker.isin(tested)], cohort=cohort)
                made.setdefault(("clean", name), {}).setdefault(scores, []).append(_errors(asked, at))
            for corpus in corpora:
                others = clean[~clean.speaker.isin(nobody)]
                own = others.corpus.eq(corpus)
                at = vp.calibrate(others[own], cohort=cohort).threshold(0.01).value
                asked = vp.calibrate(others[~own], within="corpus", cohort=cohort)
                made.setdefault((corpus, "others"), {}).setdefault(scores, []).append(_errors(asked, at))
    print("\n| threshold from | asked about | scores | equal error rate | false accepts | false rejects |")
    print("|---|---|---|---|---|---|")
    for (source, asked_about), by_scores in made.items():
        for scores, errors in by_scores.items():
            shares = " | ".join(f"{share:.2%}" for share in np.mean(errors, axis=0))
            print(f"| {source} | {asked_about} | {scores} | {shares} |")


def _errors(asked: vp.Calibration, threshold: float) -> tuple[float, float, float]:
    accepted, rejected = asked.trials.impostor >= threshold, asked.trials.genuine < threshold
    return asked.eer.value, float(accepted.mean()), float(rejected.mean())


def show_normalised_open_set(conditions: dict[str, pd.DataFrame], rounds: int) -> None:
    """Print what clips are told with and without a cohort; clips to be named in their condition."""
    print("\n| scores, clips | strangers named | strangers unknown | right | wrong | unsure | missed |")
    print("|---|---|---|---|---|---|---|")
    clean = conditions["clean"]
    for name, out in conditions.items():
        mixed = pd.concat([clean[clean.enroll], out[~out.enroll]])  # enrolled in quiet
        for scores in ("cosines", "cohort"):
            random, parts = np.random.default_rng(SEED), []
            for _ in range(rounds):
                nobody, calibrating, tested = np.array_split(random.permutation(clean.speaker.unique()), 3)
                heard = pd.concat(conditions.values())
                cohort = heard[heard.speaker.isin(nobody)] if scores == "cohort" else None
                known = pd.concat([clean[clean.speaker.isin(calibrating)], mixed[mixed.speaker.isin(tested)]])
                parts.append(open_set(known, RATES[1], calibrating, tested, cohort))
            show_told(f"{scores}, {name}", pd.concat(parts))


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
        show_small_calibrations(out, arguments.rounds)
        show_clusters(out, arguments.rounds)
        conditions = {"clean": out} | {
            f"noise at -{below_db:.0f} dB": prints_of(Path(arguments.speech), below_db)
            for below_db in NOISE_DB
        }
        show_carried_over(conditions, arguments.rounds)
        show_normalised_open_set(conditions, arguments.rounds)


if __name__ == "__main__":
    main()
