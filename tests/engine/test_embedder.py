"""The packaged network: its identity, and what its embeddings may and may not depend on."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from numpy.typing import NDArray
from speech import speech_folder

from voiceprint_nb import audio
from voiceprint_nb.analysis.detection import equal_error_rate
from voiceprint_nb.analysis.similarity import cosine_matrix, vectors
from voiceprint_nb.engine.embedder import Embedder, vector_of, voiceprint_text
from voiceprint_nb.errors import RowError

Clip = NDArray[np.float32]


@pytest.fixture(scope="module")
def robust() -> Embedder:
    return Embedder()


def voice_like(seed: int, seconds: float = 2.5) -> Clip:
    """Harmonics of a wandering pitch through seeded resonances: not speech, but not constant either."""
    random = np.random.default_rng(seed)
    t = np.arange(int(seconds * 16_000)) / 16_000
    pitch_hz = random.uniform(90, 250) * (1 + 0.1 * np.sin(2 * np.pi * 3 * t))
    phase = 2 * np.pi * np.cumsum(pitch_hz) / 16_000
    clip = sum(random.uniform(0, 1) / (k + 1) * np.sin(k * phase) for k in range(1, 20))
    return (0.05 * np.asarray(clip)).astype(np.float32)


def test_embeddings_are_unit_vectors(robust: Embedder) -> None:
    vector = robust.embed(voice_like(1))
    assert vector.shape == (256,)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
    assert (vector >= 0).all()


def test_many_equals_one_by_one(robust: Embedder) -> None:
    clips = [voice_like(seed, seconds) for seed, seconds in enumerate([0.4, 1.6, 3.1, 9.0, 30.0, 2.0])]
    many = robust.embed_many(clips)  # 28 windows and more: several network runs
    assert many.shape == (6, 256)
    np.testing.assert_allclose(many, [robust.embed(clip) for clip in clips], atol=1e-5)
    np.testing.assert_allclose(many, robust.embed_many(clips[::-1])[::-1], atol=1e-5)


@pytest.mark.parametrize(("seconds", "n_windows"), [(0.5, 1), (1.6, 1), (1.98, 1), (2.0, 2), (30.0, 72)])
def test_parts_overlap_and_are_embedded_each(robust: Embedder, seconds: float, n_windows: int) -> None:
    parts = robust.embed_parts(voice_like(5, seconds))
    assert (parts.shape, parts.dtype) == ((n_windows, 256), np.float32)
    np.testing.assert_allclose(np.linalg.norm(parts, axis=1), 1, atol=1e-5)


def test_a_part_is_what_its_window_would_be(robust: Embedder) -> None:
    clip = voice_like(6, 4.0)
    third = clip[2 * 6400 : 2 * 6400 + 25_600]
    assert robust.embed_parts(clip)[2] @ robust.embed(third) > 0.99


def test_no_clips_give_no_rows(robust: Embedder) -> None:
    assert len(robust.embed_many([])) == 0


@pytest.mark.parametrize("gain_db", [-10, 10])
def test_robust_recipe_is_unmoved_by_gain(robust: Embedder, gain_db: int) -> None:
    clip = voice_like(3)
    louder = clip * np.float32(10 ** (gain_db / 20))
    assert robust.embed(clip) @ robust.embed(louder) > 0.9999


def test_bad_clips_never_reach_the_network(robust: Embedder) -> None:
    for clip, code in [(np.zeros(100), "silent"), (np.full(9, np.nan), "bad_samples"), ([], "empty_audio")]:
        with pytest.raises(RowError) as caught:
            robust.embed(np.asarray(clip, np.float32))
        assert caught.value.code == code


def test_voiceprint_text_round_trip(robust: Embedder) -> None:
    vector = robust.embed(voice_like(4))
    text = voiceprint_text(vector, robust.model.fingerprint)
    name, read = vector_of(text)
    assert name == robust.model.fingerprint
    np.testing.assert_array_equal(read, vector)
    np.testing.assert_array_equal(vectors([text, text]), [vector, vector])


@pytest.fixture(scope="module")
def fast() -> Embedder:
    return Embedder("fast")


def test_int8_hears_what_float32_hears(robust: Embedder, fast: Embedder) -> None:
    clips = [voice_like(seed, 1.0 + seed / 2) for seed in range(12)]
    cosines = np.sum(robust.embed_many(clips) * fast.embed_many(clips), axis=1)
    assert cosines.min() > 0.998
    assert cosines.max() < 1 - 1e-7  # and is another network


def test_an_int8_print_does_not_depend_on_its_neighbours(fast: Embedder) -> None:
    clips = [voice_like(seed, 3.0) for seed in range(4)]
    np.testing.assert_array_equal(fast.embed_many(clips), [fast.embed(clip) for clip in clips])


@pytest.mark.parametrize("model", ["robust", "fast"])
def test_real_speakers_come_apart(model: str) -> None:
    folder = speech_folder()
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["corpus"] in ("speechocean", "librispeech")]
    chosen = [row for row in rows if row["split"] == "enroll" and row["format"] != "mp3"]
    speakers = np.array([row["speaker"] for row in chosen])
    assert len(np.unique(speakers)) > 10
    cosines = cosine_matrix(
        Embedder(model).embed_many([audio.read_mono(folder / row["path"]) for row in chosen])
    )
    upper = np.triu(np.ones(cosines.shape, bool), k=1)
    same = speakers[:, None] == speakers[None, :]
    rate, threshold = equal_error_rate(cosines[upper & same], cosines[upper & ~same])
    assert rate < 0.07
    assert 0.65 < threshold < 0.85
