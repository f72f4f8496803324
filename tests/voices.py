"""Embeddings of made-up speakers: a direction each, and noise around it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from voiceprint_nb.analysis.trials import unit
from voiceprint_nb.contract import encode_voiceprint


def voices(n_speakers: int, n_clips: int, *, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (speakers * clips, 32) float32, and whose they are."""
    random = np.random.default_rng(seed)
    centres = unit(random.normal(size=(n_speakers, 32)).astype(np.float32))
    speakers = np.repeat(np.arange(n_speakers), n_clips)
    clips = centres[speakers] + noise * random.normal(size=(len(speakers), 32)) / np.sqrt(32)
    return unit(clips.astype(np.float32)), speakers


def prints(embeddings: np.ndarray, model: str = "ab" * 16) -> list[str]:
    """Voiceprint texts of embeddings."""
    return [encode_voiceprint(model, vector.astype("<f4").tobytes()) for vector in embeddings]


def frame_of(n_speakers: int, n_clips: int, *, seed: int, noise: float = 0.9) -> pd.DataFrame:
    """A result with a column of names; each seed has other speakers."""
    embeddings, speakers = voices(n_speakers, n_clips, noise=noise, seed=seed)
    names = [f"s{seed}-{speaker}" for speaker in speakers]
    return pd.DataFrame({"voiceprint": prints(embeddings), "speaker": names})
