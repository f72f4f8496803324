"""Pictures of voiceprints: take Axes, return Axes. Needs the extra ``analysis`` (matplotlib, scikit-learn).

Colours are those of a palette that colour-blind readers tell apart (Okabe and Ito, "Color Universal Design",
2008); line styles, markers and numbers say the same a second time, so that print in black and white will do.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from voiceprint_nb.analysis.calibration import Calibration
from voiceprint_nb.analysis.detection import error_rates
from voiceprint_nb.analysis.prints import labels_of, prints_of
from voiceprint_nb.errors import MissingExtra

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
_PALETTE = (_BLUE, _ORANGE, _GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
_MARKERS = "osD^vP*X"
_MOST_LABELS = 60
_MOST_NUMBERS = 25
_MOST_NAMES = 20
_DET_TICKS = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)


def similarity_matrix(matrix: pd.DataFrame, ax: Axes | None = None, *, ordered: bool = False) -> Axes:
    """Heat map of a similarity matrix; small ones carry their numbers, so that colour is not the only sign.

    Parameters
    ----------
    matrix : DataFrame of shape (prints, prints)
        Cosines in [-1, 1], as `voiceprint_nb.compare` returns them.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.
    ordered : bool
        Whether rows that are alike stand side by side, in the order of a hierarchical clustering.

    Returns
    -------
    Axes

    Raises
    ------
    MissingExtra
        matplotlib, or for ``ordered`` scikit-learn (which brings SciPy), is not installed.
    """
    side = max(4.0, min(12.0, 0.3 * len(matrix) + 2))
    ax = _axes(ax, (side + 1, side))
    if ordered and len(matrix) > 2:
        order = _leaves(matrix.to_numpy())
        matrix = matrix.iloc[order, order]
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


def score_histogram(
    calibration: Calibration, ax: Axes | None = None, *, false_accept_rate: float = 0.01
) -> Axes:
    """How scores of true and of false claims lie, and the threshold between them.

    Parameters
    ----------
    calibration : Calibration
        Made by `voiceprint_nb.calibrate`.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.
    false_accept_rate : float
        Whose threshold is drawn, with its 95 % interval, unless there are too few false claims to tell it.
    """
    ax = _axes(ax, (7, 4))
    trials = calibration.trials
    bins = np.histogram_bin_edges(trials.scores, bins=60).tolist()
    claims: tuple[tuple[Any, dict[str, Any]], ...] = (
        (trials.impostor, {"label": f"false claims ({calibration.n_impostor})", "color": _ORANGE}),
        (trials.genuine, {"label": f"true claims ({calibration.n_genuine})", "color": _BLUE, "hatch": "//"}),
    )
    for scores, style in claims:
        ax.hist(scores, bins, density=True, histtype="stepfilled", alpha=0.5, **style)
    if false_accept_rate * calibration.n_impostor >= 1:
        at = calibration.threshold(false_accept_rate)
        ax.axvspan(at.low, at.high, color=_GREY, alpha=0.2)
        name = f"{false_accept_rate:.1%} false accepts at {at:.3f}"
        ax.axvline(at.value, color="black", linestyle="--", label=name)
    ax.set(xlabel="score (cosine)", ylabel="density", title="Scores of true and false claims")
    ax.legend(loc="upper left", frameon=False)
    return ax


def det_curve(calibration: Calibration, ax: Axes | None = None) -> Axes:
    """Both error rates over all thresholds, on axes of normal deviates (DET; Martin et al., Eurospeech 1997).

    Parameters
    ----------
    calibration : Calibration
        Made by `voiceprint_nb.calibrate`.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.
    """
    from scipy.special import ndtri

    ax = _axes(ax, (5, 5))
    rates = error_rates(calibration.trials.genuine, calibration.trials.impostor)
    accept, reject = ndtri(np.clip((rates.false_accept, rates.false_reject), 1e-6, 1 - 1e-6))
    ax.plot(accept, reject, color=_BLUE, drawstyle="steps-post")
    middle = ndtri(np.clip(calibration.eer.value, 1e-6, 0.5))
    label = f"equal error rate {calibration.eer:.1%}"
    ax.plot(middle, middle, color=_ORANGE, marker="o", linestyle="none", label=label)
    ticks = ndtri(np.array(_DET_TICKS))
    names = [f"{rate:.3g}" for rate in 100 * np.array(_DET_TICKS)]
    ax.set_xticks(ticks, names)
    ax.set_yticks(ticks, names)
    ax.set(
        xlim=(ticks[0], ticks[-1]),
        ylim=(ticks[0], ticks[-1]),
        xlabel="false accepts (%)",
        ylabel="false rejects (%)",
        title="Detection error trade-off",
        aspect="equal",
    )
    ax.grid(color="0.9")
    ax.legend(frameon=False)
    return ax


def voice_map(data: pd.DataFrame, label: Hashable | None = None, ax: Axes | None = None) -> Axes:
    """Voiceprints on a plane: the two directions in which they differ most (principal components).

    Near each other means alike only as far as two of many dimensions can tell; the title says how much of all
    differences the plane holds.

    Parameters
    ----------
    data : DataFrame
        A result of `voiceprints`.
    label : hashable, optional
        Column that names groups: the 20 largest have a colour and a marker of their own.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.
    """
    ax = _axes(ax, (7, 6))
    prints = prints_of(data)
    centred = prints.embeddings - prints.embeddings.mean(axis=0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    places = np.pad(centred @ directions[:2].T, ((0, 0), (0, max(0, 2 - len(directions)))))
    held = float((lengths[:2] ** 2).sum() / max((lengths**2).sum(), 1e-12))
    names = np.full(len(places), None, object) if label is None else labels_of(data, label, prints)
    largest = pd.Series(names).value_counts().index[:_MOST_NAMES]
    rest = ~np.isin(names.astype(str), [str(name) for name in largest])
    if rest.any():
        _scatter(ax, places[rest], None if label is None else "others", _GREY, ".")
    for number, name in enumerate(largest):
        chosen = np.array([one == name for one in names])
        turn, place = divmod(number, len(_PALETTE))  # 8 colours, with other markers at each turn
        _scatter(ax, places[chosen], str(name), _PALETTE[place], _MARKERS[(place + turn) % len(_MARKERS)])
    ax.set(xticks=[], yticks=[], title=f"Voiceprints on a plane ({held:.0%} of their differences)")
    if len(largest):
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    return ax


def _scatter(ax: Axes, places: np.ndarray, name: str | None, colour: str, marker: str) -> None:
    x, y = places[:, 0], places[:, 1]
    ax.scatter(x, y, s=28, c=colour, marker=marker, label=name, edgecolors="white", linewidths=0.4)


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise MissingExtra("Plots need matplotlib: pip install 'voiceprint_nb[analysis]'.") from error
    if ax is None:
        _, ax = pyplot.subplots(figsize=size, layout="constrained")
    return ax


def _leaves(cosines: np.ndarray) -> np.ndarray:
    try:
        from scipy.cluster.hierarchy import leaves_list, linkage
    except ImportError as error:
        raise MissingExtra("Ordering needs scikit-learn: pip install 'voiceprint_nb[analysis]'.") from error
    upper = np.triu_indices(len(cosines), k=1)
    return np.asarray(leaves_list(linkage(1 - cosines[upper], method="average", optimal_ordering=True)))
