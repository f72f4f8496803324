"""Calibrate and cluster, on made-up voices whose truth is known."""

from __future__ import annotations

import pandas as pd
import pytest
from voices import frame_of, prints, voices

import voiceprint_nb as vp
from voiceprint_nb.analysis import matching, trials
from voiceprint_nb.notebook import comparing

pytestmark = pytest.mark.usefixtures("few_repeats")


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
        "10 different voiceprints to tell how scores spread, not 9": cohort[:9],
        "another model": cohort.assign(voiceprint=prints(voices(60, 1, noise=0.9)[0], model="cd" * 16)),
        "no voiceprint to compare": [],
    }.items():
        with pytest.raises(vp.UsageError, match=words):
            vp.calibrate(labelled, cohort=others)


def test_a_cohort_of_the_same_people_is_refused() -> None:
    """Other clips of the same people, which no equal print tells; without names nobody knows."""
    everybody = frame_of(30, 4, seed=1)
    labelled, rest = everybody[everybody.index % 4 < 2], everybody[everybody.index % 4 >= 2]
    with pytest.raises(vp.UsageError, match=r"30 of the cohort's people have names .*'s1-0'"):
        vp.calibrate(labelled, cohort=rest)
    assert vp.calibrate(labelled, cohort=rest.drop(columns="speaker")).normalisation is not None


def test_blank_and_mixed_labels_are_names_of_people() -> None:
    labelled = frame_of(30, 4, seed=1)
    numbers = labelled.index // 4
    plain = vp.calibrate(labelled)
    rows = pd.concat([labelled.assign(speaker=numbers), frame_of(8, 2, seed=9).assign(speaker=" ")])
    mixed = rows.assign(speaker=[str(who) if n % 2 else who for n, who in enumerate(rows.speaker)])
    for named in (rows, mixed, rows.assign(speaker=rows.speaker.replace(" ", None).astype(float))):
        made = vp.calibrate(named)
        assert (made.n_speakers, made.n_clips, made.eer.value) == (30, 120, plain.eer.value)
    rooms = labelled.assign(room=[" " if who.endswith("9") else "a" for who in labelled.speaker])
    assert vp.calibrate(rooms, within="room").n_clips == 27 * 4


def test_advice_counts_the_clips_that_make_a_person() -> None:
    with pytest.raises(vp.UsageError, match="at least 4 different ones of one speaker"):
        vp.calibrate(frame_of(30, 3, seed=1), enrolled=3)
    for enrolled in (2.5, 0, "3"):
        with pytest.raises(vp.UsageError, match="one clip or more, not of enrolled="):
            vp.calibrate(frame_of(30, 3, seed=1), enrolled=enrolled)  # type: ignore[arg-type]


@pytest.mark.parametrize("block", [1, 1 << 24])
def test_the_most_alike_are_those_of_the_matrix(
    monkeypatch: pytest.MonkeyPatch, known: pd.DataFrame, block: int
) -> None:
    monkeypatch.setattr(matching, "_BLOCK_VALUES", block)
    named = known.assign(clip=[f"c{n}" for n in range(len(known))])
    matrix = vp.compare(named, label="clip")
    found = vp.compare(named, label="clip", top=3)
    assert list(found.columns) == ["row", "other", "score"] and len(found) == 3 * len(known)
    for row, own in found.groupby("row", sort=False):
        nearest = matrix.loc[row].drop(row).nlargest(3)
        assert own.other.tolist() == nearest.index.tolist()
        assert own.score.tolist() == pytest.approx(nearest.tolist(), abs=1e-6)
    assert len(vp.compare(known[:3], top=99)) == 6
    assert vp.compare(known[:1], top=5).empty
    by_two = known.set_index(["speaker", known.index])
    assert vp.compare(by_two, top=1).row[0] == ("s2-0", 0)
    with pytest.raises(vp.UsageError, match="pass 1 or more"):
        vp.compare(known, top=0)


def test_a_matrix_that_is_too_large_names_the_way_out(
    monkeypatch: pytest.MonkeyPatch, known: pd.DataFrame
) -> None:
    monkeypatch.setattr(comparing, "_MOST_IN_MATRIX", 100)
    with pytest.raises(vp.UsageError, match=r"matrix of 160 voiceprints .* pass top=10"):
        vp.compare(known)
    assert len(vp.compare(known, top=2)) == 320


def test_rows_of_a_matrix_are_named_by_a_column_of_a_frame(known: pd.DataFrame) -> None:
    assert vp.compare(known.assign(n=range(160)), label="n").columns.tolist() == list(range(160))
    for words, refused in {
        "pass the whole frame": lambda: vp.compare(known["voiceprint"], label="speaker"),
        "A voiceprint is no name": lambda: vp.compare(known, label="voiceprint"),
        "no column 'who'": lambda: vp.compare(known, label="who"),
        "no column \\['speaker'\\]": lambda: vp.compare(known, label=["speaker"]),  # type: ignore[arg-type]
    }.items():
        with pytest.raises(vp.UsageError, match=words):
            refused()


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
    with pytest.raises(vp.UsageError, match="not both"):
        vp.cluster(known, calibration=pairs, threshold=0.5)
    with pytest.raises(vp.UsageError, match="clip against clip"):
        vp.cluster(known, calibration=vp.calibrate(known, enrolled=3))
