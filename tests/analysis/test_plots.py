"""The heat map shows every number and every name once, and draws where it is told."""

import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from voices import prints, voices

import voiceprint_nb as vp
from voiceprint_nb import calibrate
from voiceprint_nb.analysis.plots import det_curve, score_histogram, similarity_matrix, timeline, voice_map
from voiceprint_nb.errors import MissingExtra, UsageError

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


def test_type_fits_into_its_cell_and_long_names_into_the_picture():
    for n, expected in ((3, 9.0), (25, None)):
        wide = matrix(n).set_axis([f"{'folder/' * 20}{k}.wav" for k in range(n)])
        ax = similarity_matrix(wide)
        ax.figure.draw_without_rendering()
        cell = ax.get_window_extent().width / n
        extents = [text.get_window_extent() for text in ax.texts]
        assert max(extent.width for extent in extents) < cell
        assert expected in (None, ax.texts[0].get_fontsize())
        names = [label.get_text() for label in ax.get_yticklabels()]
        assert len(names[0]) == 30
        assert names[0].startswith("…")
        assert names[-1].endswith(f"/{n - 1}.wav")
    labels = similarity_matrix(matrix(60)).get_yticklabels()
    heights = [label.get_window_extent().height for label in labels]
    assert max(heights) <= 1.1 * (labels[0].get_window_extent().y0 - labels[1].get_window_extent().y0)


def test_what_is_no_matrix_is_refused(labelled):
    for data in (labelled, labelled["voiceprint"], matrix(3).iloc[:2], pd.DataFrame()):
        with pytest.raises(UsageError, match=r"pass compare\(out\)"):
            similarity_matrix(data)


def test_what_lies_below_the_colours_is_marked_and_prints_are_no_names():
    low = matrix(3)
    low.iloc[0, 1] = -0.2
    names = prints(voices(3, 1, noise=0.1)[0])
    for shown, extend in ((low, "min"), (matrix(3), "neither")):
        ax = similarity_matrix(shown.set_axis(names))
        assert ax.images[0].colorbar.extend == extend
        assert {label.get_text() for label in ax.get_yticklabels()} == {"(voiceprint, not shown)"}


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


def test_rates_that_are_none_are_refused(labelled):
    made = calibrate(labelled)
    for rate in (0, -1, 1, float("nan")):
        with pytest.raises(UsageError, match="between 0 and 1"):
            score_histogram(made, false_accept_rate=rate)


@pytest.mark.filterwarnings("ignore:3 speakers are too few")
def test_few_speakers_have_a_threshold_without_an_interval():
    embeddings, speakers = voices(3, 6, noise=0.9)
    few = pd.DataFrame({"voiceprint": prints(embeddings), "speaker": speakers})
    ax = score_histogram(calibrate(few), false_accept_rate=0.05)
    assert "too few speakers" in ax.get_legend().get_texts()[2].get_text()
    assert len(ax.patches) == 2  # both histograms


@pytest.mark.filterwarnings("ignore:12 speakers are too few")
def test_no_error_is_called_so():
    embeddings, speakers = voices(12, 4, noise=0.1)
    made = calibrate(pd.DataFrame({"voiceprint": prints(embeddings), "speaker": speakers}))
    assert det_curve(made).get_legend().get_texts()[0].get_text() == "no error seen (to 25.0%)"


def test_normalised_scores_are_not_called_cosines(labelled):
    others, _ = voices(200, 1, noise=0.9, seed=1)
    ax = score_histogram(calibrate(labelled, cohort=prints(others)))
    assert ax.get_xlabel() == "score (normalised)"
    assert score_histogram(calibrate(labelled)).get_xlabel() == "score (cosine)"


def test_error_rates_cross_at_the_equal_error_rate(labelled):
    made = calibrate(labelled)
    ax = det_curve(made)
    curve, point = ax.lines
    distance = np.hypot(*(curve.get_xydata() - point.get_xydata()).T)
    assert distance.min() < 0.15
    assert np.all(np.diff(curve.get_xdata()) <= 0)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.1", "1", "2", "5", "10", "20", "40"]


def test_voices_on_a_plane(labelled):
    ax = voice_map(labelled.iloc[:88], "speaker", method="pca")
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert len(names) == 21  # the 20 largest groups, and the others
    assert sum(len(points.get_offsets()) for points in ax.collections) == 88
    assert len(voice_map(labelled, method="pca").collections[0].get_offsets()) == 100
    assert len(voice_map(labelled.iloc[:1]).collections[0].get_offsets()) == 1


def test_each_voice_is_drawn_once_whatever_its_name(labelled):
    names = [7, "7", 7.0, "None", None, float("nan"), " ", "nan", True, "True"] * 3
    data = labelled.iloc[:30].assign(speaker=pd.Series(names, dtype=object))
    ax = voice_map(data, "speaker", method="pca")
    told = [text.get_text() for text in ax.get_legend().get_texts()]
    counts = {name: len(points.get_offsets()) for name, points in zip(told, ax.collections, strict=True)}
    assert counts == {"others": 9, "7": 9, "True": 6, "None": 3, "nan": 3}


def test_many_groups_carry_numbers_as_markers_come_again(labelled):
    ax = voice_map(labelled, "speaker", method="pca")
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    numbered = [f"{text.get_text()}: " for text in ax.texts]
    assert numbered == [f"{number}: " for number in range(1, 21)]
    assert all(name.startswith(number) for name, number in zip(names[1:], numbered, strict=True))
    assert not voice_map(labelled.iloc[:32], "speaker", method="pca").texts


def test_a_plane_says_how_it_was_made(labelled, monkeypatch):
    ax = voice_map(labelled, method="pca")
    assert ax.get_xlabel().startswith("principal component 1 (")
    monkeypatch.setitem(sys.modules, "umap", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert voice_map(labelled).get_ylabel() == ax.get_ylabel()
    with pytest.raises(MissingExtra, match="pip install umap-learn"):
        voice_map(labelled, method="umap")
    with pytest.raises(UsageError, match="'tsne'"):
        voice_map(labelled, method="tsne")


def test_neighbours_stay_together_by_umap(labelled):
    pytest.importorskip("umap")
    ax = voice_map(labelled, "speaker")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("UMAP 1", "UMAP 2")
    first = ax.collections[1].get_offsets()
    assert np.array_equal(first, voice_map(labelled, "speaker", method="umap").collections[1].get_offsets())
    assert voice_map(labelled.iloc[:15]).get_xlabel().startswith("principal component")
    with pytest.raises(UsageError, match="16 voiceprints or more"):
        voice_map(labelled.iloc[:15], method="umap")


def times(submitted, waits):
    submitted = np.array(submitted, float)
    return pd.DataFrame(
        {
            "submitted_s": submitted,
            "accepted_s": submitted + 0.5,
            "ended_s": submitted + np.array(waits, float),
        }
    )


def test_a_bar_for_each_job_and_a_line_for_what_has_ended():
    ax = timeline(times([0, 1, 2], [9, 2, 3]))
    submitting, waiting = (one.get_paths() for one in ax.collections)
    assert [tuple(path.get_extents().intervalx) for path in submitting] == [(0, 0.5), (1, 1.5), (2, 2.5)]
    assert [tuple(path.get_extents().intervalx) for path in waiting] == [(0.5, 9), (1.5, 3), (2.5, 5)]
    (line,) = ax.lines
    assert line.get_xydata().tolist() == [[0, 0], [3, 1], [5, 2], [9, 3]]
    assert ax.get_xlabel() == "seconds since the run began"
    assert ax.get_title() == "3 of 3 jobs ended in 9 seconds; half took 3 s or less"


def test_open_jobs_are_hatched_up_to_what_is_known_last():
    ax = timeline(times([0, 600, 1200], [60, np.nan, np.nan]))
    still = ax.collections[2]
    assert still.get_hatch()
    assert [path.get_extents().x1 for path in still.get_paths()] == [1200.5 / 60] * 2
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == [
        "being submitted",
        "at the service (1 ended)",
        "at the service, still open (2)",
        "ended so far",
    ]
    assert ax.get_xlabel() == "minutes since the run began"
    assert timeline(times([0], [np.nan])).get_title() == "1 jobs, none of which has ended"
    assert timeline(times(np.arange(400) * 60, [9] * 400)).get_xlabel() == "hours since the run began"


def test_axes_that_are_given_are_drawn_on_and_returned(labelled):
    from matplotlib import pyplot

    made = calibrate(labelled)
    for draw, shown in ((score_histogram, made), (det_curve, made), (timeline, times([0], [1]))):
        _, ax = pyplot.subplots()
        assert draw(shown, ax) is ax
    assert vp.plots.det_curve is det_curve
