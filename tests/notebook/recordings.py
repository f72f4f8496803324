"""Long recordings for the picker, made of the samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from voiceprint_nb import audio
from voiceprint_nb.notebook.picked import Item
from voiceprint_nb.notebook.picking import Picks

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
RATE_HZ = 16_000


def voice(name: str, duration_s: float) -> np.ndarray:
    clips = [audio.read_mono(path) for path in sorted(SAMPLES.glob(f"{name}-[1-4].*"))]
    return np.resize(np.concatenate(clips), round(duration_s * RATE_HZ))


def write_meeting(path: Path) -> Path:
    """Two voices, 40 s of silence between them: to 20 s, then from 60 s to 100 s."""
    silence = np.zeros(40 * RATE_HZ, np.float32)
    samples = np.concatenate([voice("ada", 20), silence, voice("carl", 40)])
    soundfile.write(path, samples, RATE_HZ, subtype="PCM_16")
    return path


def read(cell: object) -> Item:
    """A clip that was checked and, if it can be, read."""
    picks = Picks([cell])
    (item,) = picks.items
    (item.outcome,) = picks.check([item])
    if item.is_cuttable:
        item.outline = item.recording.outline(item.outcome.facts)
    return item
