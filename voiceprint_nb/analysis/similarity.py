"""Similarity of voiceprints: cosines and neighbours. NumPy only.

Local prints hold a unit vector and the fingerprint of the model that made it; only prints of one model are
compared. Prints of the hosted service are opaque and refused.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb.contract import decode_voiceprint
from voiceprint_nb.errors import UsageError


def vectors(texts: Iterable[object]) -> NDArray[np.float32]:
    """Embeddings of voiceprint texts of one model.

    Parameters
    ----------
    texts : iterable of str
        A list or a column, without missing values.

    Returns
    -------
    (n, dimensions) float32
        In the order of `texts`.

    Raises
    ------
    UsageError
        A text is missing, opaque (made by the hosted service) or damaged, has no direction (all zero, or not
        finite), or the texts come from different models; the message tells where.
    """
    rows: list[NDArray[np.float32]] = []
    models: set[tuple[str, int]] = set()
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise UsageError(f"Voiceprint {number} is missing: keep rows whose vp_status is 'succeeded'.")
        try:
            record = decode_voiceprint(text)
        except UsageError as error:
            raise UsageError(f"Voiceprint {number}: {error}") from None  # the chain would show nothing more
        rows.append(np.frombuffer(record.vector, "<f4"))
        models.add((record.fingerprint, len(rows[-1])))
        if len(models) > 1:
            raise UsageError(
                f"Voiceprint {number} was made by another model or feature recipe than those before it: "
                "their similarity means nothing. Make all prints with the same settings."
            )
    if not rows:
        raise UsageError("There are no voiceprints to compare: pass at least one.")
    found = np.stack(rows).astype(np.float32, copy=False)
    if not (whole := has_direction(np.linalg.norm(found, axis=1))).all():
        number = int(np.argmin(whole)) + 1
        raise UsageError(f"Voiceprint {number} has no direction (all zero, or not finite): make it again.")
    return found


def has_direction(lengths: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether vectors of these lengths have one."""
    return np.isfinite(lengths) & (lengths > 0)


def cosine_matrix(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine of every pair of rows.

    Parameters
    ----------
    embeddings : (n, dimensions) float32
        Of any length but zero.

    Returns
    -------
    (n, n) float32
        Symmetric, in [-1, 1], with ones on the diagonal.

    Raises
    ------
    UsageError
        The array is not two-dimensional, or a row has no direction (all zero, or not finite).

    Examples
    --------
    >>> cosine_matrix(np.array([[1, 0], [0, 2], [3, 3]], np.float32)).round(3).tolist()[2]
    [0.7070000171661377, 0.7070000171661377, 1.0]
    """
    if embeddings.ndim != 2:
        raise UsageError(f"Expected one embedding a row, (n, dimensions), not shape {embeddings.shape}.")
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if not (whole := has_direction(lengths)).all():
        row = int(np.argmin(whole))
        raise UsageError(f"Embedding {row} has no direction (all zero, or not finite): leave it out.")
    directions = (embeddings / lengths).astype(np.float32)
    cosines: NDArray[np.float32] = directions @ directions.T
    np.clip(cosines, -1.0, 1.0, out=cosines)
    np.fill_diagonal(cosines, 1.0)
    return cosines


def nearest(matrix: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The most similar other row of every row.

    Parameters
    ----------
    matrix : (n, n) float32
        As `cosine_matrix` returns it; n at least 2.

    Returns
    -------
    indices : (n,) intp
        Position of the most similar other row; the first of equals.
    scores : (n,) float32
        Its similarity.

    Raises
    ------
    UsageError
        The matrix is not square or has fewer than two rows.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise UsageError(f"Expected a square matrix of two rows or more, not shape {matrix.shape}.")
    others = np.array(matrix, np.float32)
    np.fill_diagonal(others, -np.inf)
    indices = np.argmax(others, axis=1)
    return indices, others[np.arange(len(others)), indices]
