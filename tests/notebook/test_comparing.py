"""Calibrate and cluster, on made-up voices whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import pytest
from voices import frame_of, prints, voices

import voiceprint_nb as vp
from voiceprint_nb.analysis import calibration as calibrating
from voiceprint_nb.analysis import trials


@pytest.fixture(scope="module", autouse=True)
def few_repeats() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrating, "_REPEATS", 150)
        yield


@pytest.fixture(scope="module")
def calibration() -> vp.Calibration:
    return vp.calibrate(frame_of(60, 6, seed=1), enrolled=3)


@pytest.fixture(scope="module")
def known() -> pd.DataFrame:
    return frame_of(20, 8, seed=2)


def test_few_speakers_and_small_cohorts_are_told() -> None:
    with pytest.warns(UserWarning, match="4 speakers are too few"):
        vp.calibrate(frame_of(4, 4, seed=1))
    with pytest.warns(UserWarning, match="12 voiceprints is small"):
        vp.calibrate(frame_of(20, 3, seed=1), cohort=frame_of(12, 1, seed=8))


def test_a_calibration_counts_the_clips_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "_MOST_CLIPS", 100)
    made = vp.calibrate(frame_of(30, 6, seed=1))
    assert made.n_clips == 100
    assert made.n_genuine + made.n_impostor == 100 * 99 / 2
    assert "100 clips of 30 speakers" in str(made)


def test_normalised_scores_are_told_from_cosines(known: pd.DataFrame) -> None:
    labelled, cohort = frame_of(30, 4, seed=1), frame_of(60, 1, seed=8)
    plain, made = vp.calibrate(labelled), vp.calibrate(labelled, cohort=cohort)
    assert made.trials.scores.max() > 1
    assert "adaptive s-norm by the 60 most alike of 60 cohort voiceprints" in str(made)
    assert "s-norm" not in str(plain)
    assert made.eer.value < plain.eer.value + 0.02
    again = pd.concat([cohort, cohort])["voiceprint"].tolist()  # equal prints count once
    assert vp.calibrate(labelled, cohort=again).normalisation == made.normalisation
    with pytest.raises(vp.UsageError, match="Clusters are made by cosines"):
        vp.cluster(known, calibration=made)
    for words, others in {
        "4 of the cohort's voiceprints are in question": pd.concat([cohort, labelled[:4]]),
        "of 9 voiceprints": cohort[:9],
        "another model": cohort.assign(voiceprint=prints(voices(60, 1, noise=0.9)[0], model="cd" * 16)),
        "no voiceprint to compare": [],
    }.items():
        with pytest.raises(vp.UsageError, match=words):
            vp.calibrate(labelled, cohort=others)


def test_columns_that_are_no_labels_are_refused(known: pd.DataFrame) -> None:
    twice = pd.concat([known, known[["speaker"]]], axis=1)
    prints_twice = pd.concat([known, known[["voiceprint"]]], axis=1)
    lists = known.assign(speaker=[[name] for name in known.speaker])
    for words, refused in {
        "2 columns 'speaker'": lambda: vp.calibrate(twice),
        "2 columns 'voiceprint'": lambda: vp.calibrate(prints_twice),
        "A list is no name": lambda: vp.calibrate(lists),
        "one text or number a row": lambda: vp.calibrate(
            lists.assign(who=known.speaker), "who", within="speaker"
        ),
        "2 columns 'speaker': rename": lambda: vp.compare(twice, label="speaker"),
    }.items():
        with pytest.raises(vp.UsageError, match=words):
            refused()


def test_rows_without_a_name_or_a_print_are_left_out_of_a_calibration(calibration: vp.Calibration) -> None:
    labelled = frame_of(60, 6, seed=1)
    again = labelled["voiceprint"][0]
    more = pd.DataFrame({"voiceprint": [None, again, again], "speaker": ["x", None, labelled.speaker[0]]})
    again = vp.calibrate(pd.concat([labelled, more], ignore_index=True), enrolled=3)
    assert str(again) == str(calibration)
    assert "360 clips of 60 speakers" in str(again)
    assert "Equal error rate" in again._repr_html_()


def test_clips_of_one_room_only_meet_each_other() -> None:
    labelled = frame_of(40, 4, seed=1)
    rooms = labelled.assign(room=labelled.speaker.str.slice(-1))
    assert vp.calibrate(rooms, within="room").n_impostor < vp.calibrate(rooms).n_impostor
    assert vp.calibrate(rooms, within="room").n_genuine == vp.calibrate(rooms).n_genuine
    with pytest.raises(vp.UsageError, match="No row"):
        vp.calibrate(labelled.assign(room=None), within="room")


def test_voices_are_counted_without_labels(known: pd.DataFrame) -> None:
    pairs = vp.calibrate(frame_of(60, 6, seed=1, noise=0.5))
    clear = frame_of(15, 6, seed=5, noise=0.5)
    gaps = clear.assign(voiceprint=clear["voiceprint"].where(clear.index != 3, None))
    out = vp.cluster(gaps, calibration=pairs)
    assert out.groupby("speaker").vp_cluster.nunique().eq(1).all()
    assert out.groupby("vp_cluster").speaker.nunique().eq(1).all()
    assert out.vp_cluster.dtype == "Int64"
    assert out.vp_cluster.isna().tolist() == [n == 3 for n in range(len(out))]
    assert out.vp_representative.sum() == 15
    assert out.attrs["voiceprint_nb_cluster"]["vp_"]["clusters"] == 15
    assert set(vp.cluster(known, threshold=-1.0).vp_cluster) == {1}
    with pytest.raises(vp.UsageError, match="pass calibration="):
        vp.cluster(known)
    with pytest.raises(vp.UsageError, match="clip against clip"):
        vp.cluster(known, calibration=vp.calibrate(known, enrolled=3))
