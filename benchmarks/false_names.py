"""How often `match` keeps the rate of false names that it was asked for, in draws of other speakers.

::

    python -m benchmarks.false_names [--draws 100] [--people 20] [--rate 0.01]

Voices are simulated: a direction for each speaker and noise around it, so that strangers can be drawn without
end. Each draw calibrates with so many speakers (5 clips each, against people of 3), takes the threshold that
`match` would, and asks what share of strangers' clips would get a name from libraries of so many others.
Told: in which share of draws that is at most the rate asked for, and the median and the highest of it.
"""

from __future__ import annotations

import argparse

import numpy as np

from voiceprint_nb.analysis.calibration import calibrate
from voiceprint_nb.analysis.trials import make_trials, unit
from voiceprint_nb.notebook.identifying import _CONFIDENCE

SPEAKERS = (30, 60, 100, 200)
DIMENSIONS = 64
NOISE = 1.2  # of a clip, as a share of what tells speakers apart: 4 % equal error rate
CLIPS, ENROLLED = 5, 3
N_STRANGERS, N_POOL, N_LIBRARIES = 3000, 1000, 50


def voices(random: np.random.Generator, n_speakers: int, n_clips: int) -> np.ndarray:
    """Unit vectors, (speakers, clips, dimensions) float32."""
    centres = random.standard_normal((n_speakers, 1, DIMENSIONS))
    noise = NOISE * random.standard_normal((n_speakers, n_clips, DIMENSIONS))
    return unit((centres + noise).astype(np.float32))


def strangers_scores(random: np.random.Generator, people: int) -> np.ndarray:
    """The highest score that each stranger reaches with each library, ascending."""
    strangers = voices(random, N_STRANGERS, 1)[:, 0]
    pool = unit(voices(random, N_POOL, ENROLLED).sum(axis=1))
    scores = strangers @ pool.T
    libraries = [random.choice(N_POOL, people, replace=False) for _ in range(N_LIBRARIES)]
    return np.sort(np.concatenate([scores[:, library].max(axis=1) for library in libraries]))


def accepted_from(random: np.random.Generator, n_speakers: int, people: int, rate: float) -> float:
    """The score from which `match` would give a name, by a calibration of speakers drawn anew."""
    embeddings = voices(random, n_speakers, CLIPS).reshape(-1, DIMENSIONS)
    speakers = np.repeat(np.arange(n_speakers), CLIPS)
    trials = make_trials(embeddings, speakers, enrolled=ENROLLED)
    made = calibrate(trials, model="simulated", n_clips=len(speakers), enrolled=ENROLLED)
    return made.threshold(rate / people).with_confidence(_CONFIDENCE)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--rate", type=float, default=0.01)
    options = parser.parse_args()
    random = np.random.default_rng(11)
    best = strangers_scores(random, options.people)
    print(
        f"{options.people} people enrolled, asked for {options.rate:.1%} false names, {options.draws} draws\n"
    )
    print("| speakers of the calibration | draws that keep the rate | strangers named: median | highest |")
    print("|---|---|---|---|")
    for n_speakers in SPEAKERS:
        accepted = [
            accepted_from(random, n_speakers, options.people, options.rate) for _ in range(options.draws)
        ]
        named = 1 - np.searchsorted(best, accepted) / len(best)
        kept = np.mean(named <= options.rate)
        print(f"| {n_speakers} | {kept:.0%} | {np.median(named):.2%} | {named.max():.2%} |", flush=True)


if __name__ == "__main__":
    main()
