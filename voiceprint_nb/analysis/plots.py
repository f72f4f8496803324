"""Pictures of voiceprints: take Axes, return Axes. Needs the extra ``analysis`` (matplotlib, scikit-learn).

Colours are those of a palette that colour-blind readers tell apart (Okabe and Ito, "Color Universal Design",
2008); line styles, markers and numbers say the same a second time, so that print in black and white will do.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from voiceprint_nb.analysis.calibration import Calibration
from voiceprint_nb.analysis.detection import error_rates
from voiceprint_nb.analysis.names import PRINT, is_print
from voiceprint_nb.analysis.prints import labels_of, prints_of
from voiceprint_nb.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
_PALETTE = (_BLUE, _ORANGE, _GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
_MARKERS = "osD^vP*X"
_MOST_LABELS = 60
_MOST_NUMBERS = 25
_MOST_NAMES = 20
_MOST_CHARACTERS = 30
_MOST_APART = 100  # bars with a gap between
_LEAST_FOR_UMAP = 16
_UNITS = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))

Method = Literal["auto", "pca", "umap"]
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
    UsageError
        A table of something else, such as voiceprints themselves.
    MissingExtra
        matplotlib, or for ``ordered`` scikit-learn (which brings SciPy), is not installed.
    """
    _refuse_no_matrix(matrix)
    if ordered and len(matrix) > 2:
        order = _leaves(matrix.to_numpy())
        matrix = matrix.iloc[order, order]
    labels = [_short(label) for label in matrix.index] if len(matrix) <= _MOST_LABELS else []
    side = max(4.0, min(12.0, 0.3 * len(matrix) + 2)) + 0.07 * max(map(len, labels), default=0)
    ax = _axes(ax, (side + 1, side))
    image = ax.imshow(matrix.to_numpy(), vmin=0, vmax=1, cmap="cividis")
    beyond: Literal["min", "neither"] = "min" if (matrix.to_numpy() < 0).any() else "neither"
    ax.figure.colorbar(image, ax=ax, label="cosine similarity", shrink=0.8, extend=beyond)
    ax.set_xticks(range(len(labels)), labels, rotation=90)
    ax.set_yticks(range(len(labels)), labels)
    if not labels:
        ax.set_xlabel(f"{len(matrix)} voiceprints")
    ax.figure.canvas.figure.draw_without_rendering()  # lays out: how large a cell is decides the type
    cell = 72 * ax.get_window_extent().height / ax.figure.dpi / max(len(matrix), 1)
    ax.tick_params(labelsize=min(10.0, 0.9 * cell))
    if len(matrix) <= _MOST_NUMBERS:
        for row, values in enumerate(matrix.to_numpy()):
            for column, value in enumerate(values):
                place: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": min(9.0, 0.37 * cell)}
                ax.text(column, row, f"{value:.2f}", color="black" if value > 0.5 else "white", **place)
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
        Whose threshold is drawn, with its 95 % interval, unless there are too few false claims to tell it; in
        (0, 1).

    Raises
    ------
    UsageError
        A rate outside.
    MissingExtra
        matplotlib is not installed.
    """
    if not 0 < false_accept_rate < 1:
        raise UsageError(f"A false-accept rate lies between 0 and 1, not at {false_accept_rate}.")
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
        if at.has_interval:
            ax.axvspan(at.low, at.high, color=_GREY, alpha=0.2)
        name = f"{false_accept_rate:.1%} false accepts at {at:.3f}"
        ax.axvline(at.value, color="black", linestyle="--", label=name)
    kind = "cosine" if calibration.normalisation is None else "normalised"
    ax.set(xlabel=f"score ({kind})", ylabel="density", title="Scores of true and false claims")
    ax.legend(loc="upper left", frameon=False)
    return ax


def det_curve(calibration: Calibration, ax: Axes | None = None) -> Axes:
    """Both error rates over all thresholds, on axes of normal deviates (DET; Martin et al., Eurospeech 1997).

    Parameters
    ----------
    calibration, ax
        As in `score_histogram`.
    """
    from scipy.special import ndtri

    ax = _axes(ax, (5, 5))
    rates = error_rates(calibration.trials.genuine, calibration.trials.impostor)
    accept, reject = ndtri(np.clip((rates.false_accept, rates.false_reject), 1e-6, 1 - 1e-6))
    ax.plot(accept, reject, color=_BLUE, drawstyle="steps-post")
    middle = ndtri(np.clip(calibration.eer.value, 1e-6, 0.5))
    eer = calibration.eer
    label = f"equal error rate {eer:.1%}" if eer.value else f"no error seen (to {eer.high:.1%})"
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


def voice_map(
    data: pd.DataFrame, label: Hashable | None = None, ax: Axes | None = None, *, method: Method = "auto"
) -> Axes:
    """Voiceprints on a plane, alike ones near each other, as far as two of many dimensions can tell.

    Parameters
    ----------
    data : DataFrame
        A result of `voiceprints`.
    label : hashable, optional
        Column that names groups: the 20 largest have a colour and a marker of their own.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.
    method : {"auto", "pca", "umap"}
        ``"pca"`` draws the two directions in which the prints differ most, and its axes say how much of all
        differences each holds. ``"umap"`` (McInnes et al., 2018) keeps neighbours together, whereas distances
        between groups mean little. By default UMAP where it is installed and there are 16 prints or more.

    Returns
    -------
    Axes

    Raises
    ------
    MissingExtra
        matplotlib, or for ``"umap"`` umap-learn, is not installed.
    UsageError
        Another method, too few prints for ``"umap"``, or prints that cannot be compared.
    """
    ax = _axes(ax, (7, 6))
    prints = prints_of(data)
    if _is_umap(method, len(prints.positions)):
        places = _umap(prints.embeddings)
        axes = ("UMAP 1", "UMAP 2")
    else:
        places, held = _principal(prints.embeddings)
        axes = (f"principal component 1 ({held[0]:.0%})", f"principal component 2 ({held[1]:.0%})")
    names = np.full(len(places), None, object) if label is None else labels_of(data, label, prints)
    largest = pd.Series(names).value_counts().index[:_MOST_NAMES]
    rest = ~pd.Series(names).isin(largest).to_numpy()
    if rest.any():
        _scatter(ax, places[rest], None if label is None else "others", _GREY, ".")
    for number, name in enumerate(largest):
        chosen = names == name
        turn, place = divmod(number, len(_PALETTE))  # 8 colours, with other markers at each turn
        told = _short(name)
        if len(largest) > len(_MARKERS):  # markers come again: numbers tell groups apart without colour
            told = f"{number + 1}: {told}"
            _number(ax, np.median(places[chosen], axis=0), number + 1)
        _scatter(ax, places[chosen], told, _PALETTE[place], _MARKERS[(place + turn) % len(_MARKERS)])
    ax.set(xticks=[], yticks=[], xlabel=axes[0], ylabel=axes[1], title="Voiceprints on a plane")
    if len(largest):
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    return ax


def timeline(times: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """How a batch went: a bar for each job, and how many had ended at each moment.

    Parameters
    ----------
    times : DataFrame of shape (jobs, 3), float64
        ``submitted_s``, ``accepted_s`` and ``ended_s`` of each job, in seconds since the run began, in order
        of submission; the end is missing where a job is open.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.
    """
    from matplotlib.ticker import MaxNLocator

    ax = _axes(ax, (8, 4.5))
    longest_s = float(np.nanmax(times.to_numpy()))
    unit_s, unit = next((one for one in _UNITS if longest_s > 3 * one[0]), _UNITS[-1])
    submitted, accepted, ended = (times / unit_s).to_numpy().T
    is_open = np.isnan(ended)
    last = np.where(is_open, longest_s / unit_s, ended)
    _bars(ax, submitted, accepted, label="being submitted", facecolor="0.75", edgecolor="0.75")
    label = f"at the service ({(~is_open).sum()} ended)"
    _bars(ax, accepted, last, ~is_open, label=label, facecolor=_BLUE, edgecolor=_BLUE)
    if is_open.any():
        label = f"at the service, still open ({is_open.sum()})"
        _bars(ax, accepted, last, is_open, label=label, facecolor="white", edgecolor=_ORANGE, hatch="////")
    ends = np.sort(ended[~is_open])
    line: dict[str, Any] = {
        "where": "post",
        "linewidth": 1.5,
        "path_effects": _halo(),
        "label": "ended so far",
    }
    ax.step([0, *ends], range(len(ends) + 1), "k--", **line)
    ax.set(xlim=(0, None), ylim=(0, len(times)), xlabel=f"{unit} since the run began")
    ax.set(ylabel="jobs, in order of submission", title=_pace(times, unit_s, unit))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False)
    return ax


def _bars(
    ax: Axes, left: np.ndarray, right: np.ndarray, chosen: np.ndarray | slice = slice(None), **style: Any
) -> None:
    """Bars from left to right, one above the other; those chosen."""
    from matplotlib.collections import PolyCollection

    gap = 0.1 if len(left) <= _MOST_APART else 0.0
    low = np.arange(len(left)) + gap
    high = low + 1 - 2 * gap
    corners = np.array([(left, low), (right, low), (right, high), (left, high)]).transpose(2, 0, 1)
    ax.add_collection(PolyCollection(list(corners[chosen]), linewidth=0.3, **style))


def _pace(times: pd.DataFrame, unit_s: float, unit: str) -> str:
    took = (times["ended_s"] - times["submitted_s"]).dropna()
    if took.empty:
        return f"{len(times)} jobs, none of which has ended"
    last, middle_s = times["ended_s"].max() / unit_s, took.median()
    return f"{len(took)} of {len(times)} jobs ended in {last:.3g} {unit}; half took {middle_s:.2g} s or less"


def _is_umap(method: str, n_prints: int) -> bool:
    if method not in ("auto", "pca", "umap"):
        raise UsageError(f"Unknown method={method!r}: use 'auto', 'pca' or 'umap'.")
    is_installed = importlib.util.find_spec("umap") is not None
    if method != "umap":
        return method == "auto" and is_installed and n_prints >= _LEAST_FOR_UMAP
    if not is_installed:
        raise MissingExtra("method='umap' needs umap-learn: pip install umap-learn.")
    if n_prints < _LEAST_FOR_UMAP:
        raise UsageError(f"UMAP needs {_LEAST_FOR_UMAP} voiceprints or more: use method='pca'.")
    return True


def _umap(embeddings: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)  # a part of it that is not used lacks Tensorflow
        from umap import UMAP  # type: ignore[import-not-found, unused-ignore]

    found = UMAP(n_neighbors=_LEAST_FOR_UMAP - 1, metric="cosine", random_state=0, n_jobs=1)
    return np.asarray(found.fit_transform(embeddings))


def _principal(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (n, 2) along the two principal components, and the share of all differences that each holds."""
    centred = embeddings - embeddings.mean(axis=0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    lacking = max(0, 2 - len(directions))
    shares = lengths**2 / max(float((lengths**2).sum()), 1e-12)
    return np.pad(centred @ directions[:2].T, ((0, 0), (0, lacking))), np.pad(shares[:2], (0, lacking))


def _refuse_no_matrix(matrix: pd.DataFrame) -> None:
    is_table = isinstance(matrix, pd.DataFrame) and len(matrix) == len(matrix.columns) > 0
    if not (is_table and all(map(pd.api.types.is_numeric_dtype, matrix.dtypes))):
        raise UsageError("This picture is of a matrix of similarities: pass compare(out), not out itself.")


def _short(label: object) -> str:
    text = PRINT if is_print(label) else str(label)
    return text if len(text) <= _MOST_CHARACTERS else f"…{text[1 - _MOST_CHARACTERS :]}"


def _scatter(ax: Axes, places: np.ndarray, name: str | None, colour: str, marker: str) -> None:
    x, y = places[:, 0], places[:, 1]
    ax.scatter(x, y, s=36, c=colour, marker=marker, label=name, edgecolors="white", linewidths=0.4)


def _number(ax: Axes, place: np.ndarray, number: int) -> None:
    beside: dict[str, Any] = {"xytext": (7, 7), "textcoords": "offset points"}
    xy = (float(place[0]), float(place[1]))
    ax.annotate(str(number), xy, **beside, weight="bold", fontsize=9, path_effects=_halo(), zorder=4)


def _halo() -> list[Any]:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=3, foreground="white")]


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
