"""The heat map shows every number and every name once, and draws where it is told."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from voiceprint_nb.analysis.plots import similarity_matrix

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
