"""Pictures of voiceprints: take Axes, return Axes. Needs the extra ``analysis`` (matplotlib)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from voiceprint_nb.errors import MissingExtra

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LABELS = 60
_MOST_NUMBERS = 25


def similarity_matrix(matrix: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Heat map of a similarity matrix; small ones carry their numbers, so that colour is not the only sign.

    Parameters
    ----------
    matrix : DataFrame of shape (prints, prints)
        Cosines in [-1, 1], as `voiceprint_nb.compare` returns them.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    MissingExtra
        matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise MissingExtra("Plots need matplotlib: pip install 'voiceprint_nb[analysis]'.") from error
    side = max(4.0, min(12.0, 0.3 * len(matrix) + 2))
    if ax is None:
        _, ax = pyplot.subplots(figsize=(side + 1, side), layout="constrained")
    image = ax.imshow(matrix.to_numpy(), vmin=0, vmax=1, cmap="cividis")
    ax.figure.colorbar(image, ax=ax, label="cosine similarity", shrink=0.8)
    if len(matrix) <= _MOST_LABELS:
        labels = [str(label) for label in matrix.index]
        ax.set_xticks(range(len(labels)), labels, rotation=90)
        ax.set_yticks(range(len(labels)), labels)
    if len(matrix) <= _MOST_NUMBERS:
        for row, values in enumerate(matrix.to_numpy()):
            for column, value in enumerate(values):
                colour = "black" if value > 0.6 else "white"
                ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=6, color=colour)
    ax.set_title("Similarity of voiceprints")
    return ax
