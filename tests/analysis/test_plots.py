"""The heat map shows every number and every name once, and draws where it is told."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from voices import prints, voices

import voiceprint_nb as vp
from voiceprint_nb import calibrate
from voiceprint_nb.analysis.plots import det_curve, score_histogram, similarity_matrix, voice_map

mpl.use("Agg")


@pytest.fixture(autouse=True)
def closed_figures():
    from matplotlib import pyplot

    yield
    pyplot.close("all")


def matrix(n: int) -> pd.DataFrame:
    names = [f"clip-{k}" for k in range(n)]
    values = np.linspace(0, 1, n * n, dtype=np.float32).reshape(n, n)
    return pd.DataFrame(values, index=names, columns=names)


def test_small_matrices_carry_their_numbers():
    ax = similarity_matrix(matrix(3))
    assert [text.get_text() for text in ax.texts] == [
        f"{value:.2f}" for value in matrix(3).to_numpy().ravel()
    ]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["clip-0", "clip-1", "clip-2"]
    assert np.array_equal(ax.images[0].get_array(), matrix(3).to_numpy())


def test_large_matrices_leave_numbers_and_then_names_out():
    assert not list(similarity_matrix(matrix(26)).texts)
    assert "clip-0" not in [label.get_text() for label in similarity_matrix(matrix(61)).get_xticklabels()]


def test_it_draws_into_the_given_axes():
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2)
    assert similarity_matrix(matrix(2), right) is right
    assert len(right.images) == 1
    assert not left.images
    assert figure.axes[0] is left


def test_alike_rows_stand_side_by_side():
    groups = np.array([0, 1, 0, 1, 0])
    cosines = np.where(groups[:, None] == groups[None, :], 0.9, 0.2)
    np.fill_diagonal(cosines, 1.0)
    names = [f"{group}" for group in groups]
    ax = similarity_matrix(pd.DataFrame(cosines, index=names, columns=names), ordered=True)
    shown = [label.get_text() for label in ax.get_yticklabels()]
    assert shown in (["0", "0", "0", "1", "1"], ["1", "1", "0", "0", "0"])
    assert ax.images[0].get_array()[0, 1] == 0.9


@pytest.fixture(scope="module")
def labelled():
    embeddings, speakers = voices(25, 4, noise=0.9)
    return pd.DataFrame({"voiceprint": prints(embeddings), "speaker": [f"s{one}" for one in speakers]})


def test_scores_and_threshold(labelled):
    made = calibrate(labelled)
    ax = score_histogram(made, false_accept_rate=0.05)
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names[:2] == ["false claims (4800)", "true claims (150)"]
    assert names[2].startswith(f"5.0% false accepts at {made.threshold(0.05).value:.3f}")
    (line,) = ax.lines
    assert set(line.get_xdata()) == {made.threshold(0.05).value}


def test_error_rates_cross_at_the_equal_error_rate(labelled):
    made = calibrate(labelled)
    ax = det_curve(made)
    curve, point = ax.lines
    distance = np.hypot(*(curve.get_xydata() - point.get_xydata()).T)
    assert distance.min() < 0.15
    assert np.all(np.diff(curve.get_xdata()) <= 0)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.1", "1", "2", "5", "10", "20", "40"]


def test_voices_on_a_plane(labelled):
    ax = voice_map(labelled.iloc[:88], "speaker")
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert len(names) == 21  # the 20 largest groups, and the others
    assert sum(len(points.get_offsets()) for points in ax.collections) == 88
    assert len(voice_map(labelled).collections[0].get_offsets()) == 100
    assert len(voice_map(labelled.iloc[:1]).collections[0].get_offsets()) == 1


def test_axes_that_are_given_are_drawn_on_and_returned(labelled):
    from matplotlib import pyplot

    made = calibrate(labelled)
    for draw in (score_histogram, det_curve):
        _, ax = pyplot.subplots()
        assert draw(made, ax) is ax
    assert vp.plots.det_curve is det_curve
