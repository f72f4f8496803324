"""Cosines and neighbours that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from voiceprint_nb.analysis.similarity import cosine_matrix, nearest, vectors
from voiceprint_nb.contract import encode_voiceprint
from voiceprint_nb.errors import UsageError

MODEL, OTHER = "ab" * 16, "cd" * 16


def text(values: list[float], model: str = MODEL) -> str:
    return encode_voiceprint(model, np.array(values, "<f4").tobytes())


def test_vectors_decode_in_order() -> None:
    rows = vectors([text([1, 0]), text([0.6, 0.8])])
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, np.array([[1, 0], [0.6, 0.8]], np.float32))


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ([], "at least one"),
        ([text([1, 0]), text([1, 0], OTHER)], "Voiceprint 2 was made by another model"),
        ([text([1, 0]), text([1, 0, 0])], "Voiceprint 2 was made by another model"),
        ([text([1, 0]), "aG9zdGVkIHByaW50IG9mIGFub3RoZXIga2luZA=="], "Voiceprint 2: .*opaque"),
        ([text([1, 0])[:-4]], "Voiceprint 1: .*damaged"),
        ([text([1, 0]), None], "Voiceprint 2 is missing"),
        ([float("nan")], "Voiceprint 1 is missing"),
    ],
)
def test_vectors_refuse_what_cannot_be_compared(texts: list[object], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        vectors(texts)
    assert not any(isinstance(one, str) and one in str(caught.value) for one in texts)  # prints stay private


def test_cosines_of_known_angles() -> None:
    matrix = cosine_matrix(np.array([[1, 0], [0, 5], [2, 2], [-3, 0]], np.float32))
    half = np.sqrt(0.5)
    expected = [[1, 0, half, -1], [0, 1, half, 0], [half, half, 1, -half], [-1, 0, -half, 1]]
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix, expected, atol=1e-6)


@pytest.mark.parametrize("rows", [np.zeros((2, 3)), np.array([[1.0, np.nan]]), np.ones(4)])
def test_cosines_need_directions(rows: np.ndarray) -> None:
    with pytest.raises(UsageError):
        cosine_matrix(rows.astype(np.float32))


def test_nearest_skips_the_row_itself() -> None:
    indices, scores = nearest(np.array([[1, 0.2, 0.7], [0.2, 1, 0.1], [0.7, 0.1, 1]], np.float32))
    assert indices.tolist() == [2, 0, 0]
    np.testing.assert_allclose(scores, [0.7, 0.2, 0.7])
    for shape in ((1, 1), (2, 3), (4,)):
        with pytest.raises(UsageError):
            nearest(np.ones(shape, np.float32))


def test_prints_without_direction_are_told_by_their_number() -> None:
    for odd in (0.0, np.nan, np.inf):
        with pytest.raises(UsageError, match="Voiceprint 3 has no direction"):
            vectors([text([1, 0]), text([0, 1]), text([odd, 0])])
