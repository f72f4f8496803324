"""Calibrate, match and verify, on made-up voices whose truth is known, and on real ones where present."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from voices import prints, voices

import voiceprint_nb as vp

OTHER_MODEL = "cd" * 16
HOSTED = "aG9zdGVkIHByaW50IG9mIGFub3RoZXIga2luZA=="


def frame_of(n_speakers: int, n_clips: int, *, seed: int, noise: float = 0.9) -> pd.DataFrame:
    """A result with a column of names; each seed has other speakers."""
    embeddings, speakers = voices(n_speakers, n_clips, noise=noise, seed=seed)
    names = [f"s{seed}-{speaker}" for speaker in speakers]
    return pd.DataFrame({"voiceprint": prints(embeddings), "speaker": names})


@pytest.fixture(scope="module")
def calibration() -> vp.Calibration:
    return vp.calibrate(frame_of(60, 6, seed=1), enrolled=3)


@pytest.fixture(scope="module")
def known() -> pd.DataFrame:
    return frame_of(20, 8, seed=2)


@pytest.fixture(scope="module")
def library(known: pd.DataFrame) -> vp.Library:
    return vp.Library.from_frame(known.groupby("speaker").head(3))


def test_people_get_their_names_and_strangers_hardly_any(
    calibration: vp.Calibration, known: pd.DataFrame, library: vp.Library
) -> None:
    own = vp.match(known.groupby("speaker").tail(5), library, calibration=calibration, false_name_rate=0.05)
    matched = own[own.vp_decision.eq("match")]
    assert len(matched) > 0.7 * len(own)
    assert (matched.vp_label == matched.speaker).all()
    assert (own.vp_label.isna() == own.vp_decision.ne("match")).all()
    named = []
    for seed in range(4):
        people = vp.Library.from_frame(frame_of(20, 3, seed=100 + seed))
        strangers = vp.match(
            frame_of(200, 3, seed=200 + seed), people, calibration=calibration, false_name_rate=0.05
        )
        named.append(strangers.vp_label.notna().mean())
    assert np.mean(named) <= 0.05  # some libraries are easier to be taken into than others
    assert strangers.vp_decision.eq("unknown").mean() > 0.7
    assert set(strangers.vp_nearest) <= set(people)  # all the same, everybody is like somebody


def test_probabilities_are_shares(
    calibration: vp.Calibration, known: pd.DataFrame, library: vp.Library
) -> None:
    own = known.groupby("speaker").tail(5)
    both = pd.concat(
        [own, frame_of(34, 3, seed=4)], ignore_index=True
    )  # half of them strangers, as is the prior
    out = vp.match(both, library, calibration=calibration, false_name_rate=0.05)
    right = out.vp_nearest == out.speaker
    for low, high in ((0.0, 0.2), (0.8, 1.0)):
        here = out.vp_probability.between(low, high)
        assert here.sum() > 20
        assert right[here].mean() == pytest.approx(out.vp_probability[here].mean(), abs=0.12)
    sceptic = vp.match(both, library, calibration=calibration, false_name_rate=0.05, unknown_prior=0.99)
    assert (sceptic.vp_probability < out.vp_probability).all()


def test_thresholds_of_ones_own(known: pd.DataFrame, library: vp.Library) -> None:
    out = vp.match(known, library, threshold=0.8, unknown_below=0.6)
    score = out.vp_score
    assert (out.vp_decision.eq("match") == (score >= 0.8)).all()
    assert (out.vp_decision.eq("unknown") == (score < 0.6)).all()
    assert out.vp_decision.eq("unsure").any()
    assert out.vp_probability.isna().all()
    assert out.attrs["voiceprint_nb_match"]["threshold"] == 0.8
    plain = vp.match(known, library, threshold=0.8)
    assert set(plain.vp_decision) == {"match", "unknown"}
    best = vp.match(known, library, threshold=0.8, scoring="best")
    assert (best.vp_score >= score - 0.2).all()
    assert not np.allclose(best.vp_score, score)


def test_the_frame_stays_as_it_was(known: pd.DataFrame, library: vp.Library) -> None:
    gaps = known.assign(voiceprint=known["voiceprint"].where(known.index % 3 > 0, None)).set_index("speaker")
    out = vp.match(gaps, library, threshold=0.8)
    assert out.index.equals(gaps.index)
    assert out["voiceprint"].equals(gaps["voiceprint"])
    without = gaps["voiceprint"].isna()
    assert out[without][["vp_label", "vp_decision", "vp_score"]].isna().all(axis=None)
    assert out[~without].vp_decision.notna().all()
    assert out.vp_decision.dtype == "string"
    assert out.vp_score.dtype == np.float64
    with pytest.raises(vp.UsageError, match="already has 'vp_label'"):
        vp.match(out, library, threshold=0.8)
    assert vp.match(out, library, threshold=0.8, overwrite=True).equals(out)
    assert "m_label" in vp.match(out, library, threshold=0.8, prefix="m_")
    assert vp.match(gaps["voiceprint"], library, threshold=0.8).vp_label.equals(out.vp_label)


def test_one_person_has_no_margin(known: pd.DataFrame) -> None:
    alone = vp.Library.from_frame(known[known.speaker.eq("s2-0")])
    assert vp.match(known, alone, threshold=0.5).vp_margin.isna().all()


def test_what_cannot_be_told_is_refused(
    calibration: vp.Calibration, known: pd.DataFrame, library: vp.Library
) -> None:
    other = known.assign(voiceprint=prints(voices(20, 8, noise=0.9)[0], model=OTHER_MODEL))
    elsewhere = vp.calibrate(other, enrolled=3)
    for words, refused in {
        "pass calibration=": lambda: vp.match(known, library),
        "another model or feature recipe": lambda: vp.match(other, library, threshold=0.8),
        "do not carry over": lambda: vp.match(known, library, calibration=elsewhere),
        "scoring='centroid'": lambda: vp.match(known, library, calibration=calibration, scoring="best"),
        "identify endpoint": lambda: vp.match(known.assign(voiceprint=HOSTED), library, threshold=0.8),
        "no voiceprint": lambda: vp.match(known.assign(voiceprint=None), library, threshold=0.8),
        "library is empty": lambda: vp.match(known, vp.Library(), threshold=0.8),
        "false_name_rate": lambda: vp.match(known, library, calibration=calibration, false_name_rate=2),
        "unknown_prior": lambda: vp.match(known, library, calibration=calibration, unknown_prior=0),
        "of different models": lambda: vp.verify(
            known["voiceprint"][0], other["voiceprint"][0], threshold=0.5
        ),
        "no column 'who'": lambda: vp.calibrate(known, "who"),
        "No row with a voiceprint has a name": lambda: vp.calibrate(known.assign(speaker=None)),
        "a cosine, from -1 to 1": lambda: vp.match(known, library, threshold=float("nan")),
        "a cosine": lambda: vp.cluster(known, threshold=2),
        "'centroid', 'best'": lambda: vp.match(known, library, threshold=0.5, scoring="mean"),
        "one of 'centroid'": lambda: vp.calibrate(known, scoring="mean"),
        "one clip or more": lambda: vp.calibrate(known, enrolled=0),
        "between 0 and 1": lambda: vp.verify(
            known["voiceprint"][0], known["voiceprint"][1], calibration=calibration, false_accept_rate=0
        ),
        "only one speaker": lambda: vp.calibrate(known.assign(speaker="one")),
    }.items():
        with pytest.raises(vp.UsageError, match=words), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            refused()


def test_a_calibration_that_does_not_fit_is_told(
    calibration: vp.Calibration, known: pd.DataFrame, library: vp.Library
) -> None:
    pairs = vp.calibrate(frame_of(60, 6, seed=1))
    with pytest.warns(UserWarning, match="pass enrolled=3"):
        vp.match(known, library, calibration=pairs)
    with pytest.warns(UserWarning, match="Calibrate with more speakers"):
        vp.match(known, library, calibration=calibration, false_name_rate=1e-5)
    with pytest.warns(UserWarning, match="4 speakers are too few"):
        vp.calibrate(frame_of(4, 4, seed=1))


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


def test_one_claim_against_one_person(calibration: vp.Calibration, known: pd.DataFrame) -> None:
    own = known["voiceprint"][known.speaker.eq("s2-0")].tolist()
    other = known["voiceprint"][known.speaker.eq("s2-1")].tolist()
    true = vp.verify(own[0], own[1:4], calibration=calibration)
    false = vp.verify(own[0], other[:3], calibration=calibration)
    assert (true.decision, false.decision) == ("match", "no match")
    assert true.probability is not None
    assert false.probability is not None
    assert true.probability > 0.9
    assert false.probability < 0.1
    assert true.threshold == calibration.threshold(0.01).value
    assert vp.verify(own[0], own[0], threshold=0.99).decision == "match"
    assert "match" in true._repr_html_()
    with pytest.raises(vp.UsageError, match="pass calibration="):
        vp.verify(own[0], own[1])


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
    assert out.attrs["voiceprint_nb_cluster"]["clusters"] == 15
    assert set(vp.cluster(known, threshold=-1.0).vp_cluster) == {1}
    with pytest.raises(vp.UsageError, match="pass calibration="):
        vp.cluster(known)
    with pytest.raises(vp.UsageError, match="clip against clip"):
        vp.cluster(known, calibration=vp.calibrate(known, enrolled=3))
