"""Embeddings of the samples stay what they were.

The references were written by running this file: ``python tests/engine/test_sample_references.py``. Only a
wanted change of network or features may do that again. The tolerance, 2e-4 in cosine, leaves room for other
processors' kernels and other versions of the lossy decoders, not for other features.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from voiceprint_nb import audio
from voiceprint_nb.engine.embedder import Embedder

ROOT = Path(__file__).parents[2]
REFERENCES = Path(__file__).with_name("sample_references.npz")
RECIPES = ("robust", "compatible")
TOLERANCE = 2e-4


def good_samples() -> list[Path]:
    manifest = pd.read_csv(ROOT / "data" / "samples" / "manifest.csv", keep_default_na=False)
    return [ROOT / path for path in manifest.audio[manifest.note == ""]]


def embeddings(recipe: str) -> np.ndarray:
    return Embedder(recipe).embed_many([audio.read_mono(path) for path in good_samples()])


@pytest.mark.parametrize("recipe", RECIPES)
def test_sample_embeddings_match_their_references(recipe):
    with np.load(REFERENCES) as references:
        assert references["files"].tolist() == [path.name for path in good_samples()]
        cosines = np.sum(embeddings(recipe) * references[recipe], axis=1)
    assert len(cosines) == 19
    assert np.abs(1 - cosines).max() < TOLERANCE


def test_the_tolerance_tells_the_recipes_apart():
    with np.load(REFERENCES) as references:
        cosines = np.sum(references["robust"] * references["compatible"], axis=1)
    assert (1 - cosines > TOLERANCE).sum() > len(cosines) / 2


if __name__ == "__main__":
    names = np.array([path.name for path in good_samples()])
    np.savez_compressed(REFERENCES, files=names, **{recipe: embeddings(recipe) for recipe in RECIPES})
