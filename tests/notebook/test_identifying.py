"""Match and verify, on made-up voices whose truth is known, and on real ones where present."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from speech import speech_folder
from voices import frame_of, prints, voices

import voiceprint_nb as vp
from voiceprint_nb import audio
from voiceprint_nb.engine.embedder import Embedder, voiceprint_text

OTHER_MODEL = "cd" * 16
HOSTED = "aG9zdGVkIHByaW50IG9mIGFub3RoZXIga2luZA=="


pytestmark = pytest.mark.usefixtures("few_repeats")


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
    assert out.attrs["voiceprint_nb_match"]["vp_"]["threshold"] == 0.8
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
    assert vp.match(gaps["voiceprint"], library, threshold=0.8).vp_label.equals(out.vp_label)


def test_what_was_decided_by_is_kept_for_each_prefix(
    calibration: vp.Calibration, known: pd.DataFrame, library: vp.Library, tmp_path: Path
) -> None:
    out = vp.match(known, library, threshold=0.8)
    out = vp.match(out, library, calibration=calibration, false_name_rate=0.05, prefix="m_")
    out = vp.cluster(vp.cluster(out, threshold=0.6), threshold=0.7, prefix="c_")
    assert {"vp_label", "m_label", "c_cluster"} <= set(out)
    told = out.attrs["voiceprint_nb_match"]
    assert told["vp_"] == {
        "by": "given",
        "threshold": 0.8,
        "unknown_below": 0.8,
        "remark": None,
        "scoring": "centroid",
        "people": 20,
    }
    assert told["m_"]["by"] == "calibration"
    assert told["m_"]["false_name_rate"] == 0.05 > told["m_"]["supported_false_name_rate"] > 0
    low, high = told["m_"]["threshold_interval"]
    assert low < told["m_"]["threshold"] < high
    clusters = out.attrs["voiceprint_nb_cluster"]
    assert [clusters[prefix]["threshold"] for prefix in ("vp_", "c_")] == [0.6, 0.7]
    out.to_parquet(tmp_path / "out.parquet")
    assert pd.read_parquet(tmp_path / "out.parquet").attrs == json.loads(json.dumps(out.attrs)) == out.attrs


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
        "false_name_rate lies": lambda: vp.match(known, library, calibration=calibration, false_name_rate=2),
        "false_name_rate is a number .* not a str": lambda: vp.match(
            known, library, threshold=0.8, false_name_rate="0.01"
        ),
        "A threshold is a number, not a str": lambda: vp.match(known, library, threshold="0.8"),
        "not by a DataFrame: Library.from_frame": lambda: vp.match(known, known, threshold=0.8),
        "not by a NoneType: Library.from_frame": lambda: vp.match(known, None, threshold=0.8),
        "not by a str: Library.load": lambda: vp.match(known, "people.json", threshold=0.8),
        "or voiceprints, not a int": lambda: vp.match(5, library, threshold=0.8),
        "reach 0.80 against one clip": lambda: vp.verify(known["voiceprint"][0], known["voiceprint"][1]),
        "each enrolled person is one more claim": lambda: vp.match(known, library),
        "pairs of clips of two speakers": lambda: vp.cluster(known),
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
        "only one speaker|another speaker": lambda: vp.calibrate(known.assign(speaker="one")),
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
    with pytest.warns(UserWarning) as told:
        out = vp.match(known, library, calibration=calibration)
    assert [str(one.message) for one in told] == [
        "0.01 false names among 20 people: The threshold for 0.0005 rests on 11 of 21240 false claims: "
        "30 would make it firm."
    ]
    assert out.attrs["voiceprint_nb_match"]["vp_"]["remark"] == str(told[0].message)
    with pytest.warns(UserWarning, match="Calibrate with more speakers"):
        vp.verify(known["voiceprint"][0], known["voiceprint"][:3], calibration=calibration,
                  false_accept_rate=1e-5)  # fmt: skip
    own = known["voiceprint"][known.speaker.eq("s2-0")].tolist()
    with pytest.warns(UserWarning) as told:
        vp.verify(own[0], own[1], calibration=calibration)
        vp.verify(own[0], own[1:4], calibration=pairs)
        vp.verify(own[0], own[1:4], calibration=calibration, false_accept_rate=0.001)
    assert [str(one.message)[:58] for one in told] == [
        "The calibration is for people of 3 clips, the person's are",
        "The calibration is for people of 1 clip, the person's are ",
        "The threshold for 0.001 rests on 21 of 21240 false claims:",
    ]


def test_a_calibration_that_is_too_small_gives_no_names(
    known: pd.DataFrame, library: vp.Library, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the speakers are few
        small = vp.calibrate(frame_of(6, 6, seed=1), enrolled=3)
    with pytest.warns(UserWarning, match="No row gets a name") as told:
        out = vp.match(known, library, calibration=small)
    assert len(told) == 1
    assert str(told[0].message) == (
        "No row gets a name: asked for 0.01 false names, but with 20 people this calibration (6 speakers, "
        "180 false claims) supports rates from 0.255 on. Calibrate with more speakers, ask for "
        "false_name_rate=0.255, or give a threshold of your own."
    )
    assert out.vp_label.isna().all()
    assert out.vp_decision.eq("unsure").mean() > 0.9
    assert set(out.vp_decision) <= {"unsure", "unknown"}
    kept = out.attrs["voiceprint_nb_match"]["vp_"]
    assert (kept["false_name_rate"], kept["gives_names"], kept["threshold"]) == (0.01, False, None)
    assert kept["supported_false_name_rate"] == pytest.approx(0.255, abs=1e-3)
    assert kept["remark"] == str(told[0].message)
    assert vp.report(out.assign(vp_status="succeeded"), tmp_path / "report.html").exists()
    with pytest.warns(UserWarning, match="rests on"):
        asked = vp.match(known, library, calibration=small, false_name_rate=0.255)
    assert asked.vp_decision.eq("match").mean() > 0.5
    with pytest.warns(UserWarning, match=r"1 person this .* supports rates from 0.013 on"):
        vp.match(known, vp.Library.from_frame(known[:3]), calibration=small, false_name_rate=0.005)
    with pytest.warns(UserWarning, match=r"supports no rate\. Calibrate with more speakers, or give"):
        vp.match(known, vp.Library.from_frame(frame_of(130, 2, seed=3)), calibration=small)


def test_many_clips_of_few_speakers_are_no_large_calibration(
    known: pd.DataFrame, library: vp.Library
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the speakers are few
        few = vp.calibrate(frame_of(4, 60, seed=1), enrolled=3)
    assert 2.31 * len(library) / few.n_impostor < 0.1  # were all of its claims counted
    with pytest.warns(UserWarning, match="No row gets a name"):
        assert vp.match(known, library, calibration=few, false_name_rate=0.5).vp_label.isna().all()


def test_a_threshold_without_interval_is_told_as_such(known: pd.DataFrame) -> None:
    people = vp.Library.from_frame(known.head(24))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the speakers are few
        four = vp.calibrate(frame_of(4, 8, seed=1), enrolled=3)
        out = vp.match(known, people, calibration=four, false_name_rate=0.2)
    told = out.attrs["voiceprint_nb_match"]["vp_"]
    assert told["gives_names"]
    assert told["threshold_interval"] is None


def test_a_threshold_beside_a_calibration_is_told_what_it_does(
    calibration: vp.Calibration, known: pd.DataFrame, library: vp.Library
) -> None:
    share = float((calibration.trials.impostor >= 0.4).mean())
    with pytest.warns(UserWarning, match=f"up to {share * 20:.2g} of strangers' clips get a name"):
        out = vp.match(known, library, calibration=calibration, threshold=0.4, false_name_rate=0.05)
    assert (out.vp_decision.eq("match") == (out.vp_score >= 0.4)).all()
    assert out.vp_probability.notna().all()
    assert "false_name_rate=0.05 or not" in out.attrs["voiceprint_nb_match"]["vp_"]["remark"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vp.match(known, library, calibration=calibration, threshold=0.95)


def test_voiceprints_themselves_are_matched(known: pd.DataFrame, library: vp.Library) -> None:
    whole = vp.match(known, library, threshold=0.8)
    own = known["voiceprint"].tolist()
    assert vp.match(own, library, threshold=0.8).vp_label.tolist() == whole.vp_label.tolist()
    one = vp.match(vp.Voiceprint(own[0], 3.0), library, threshold=0.8)
    assert one.vp_nearest.tolist() == ["s2-0"]
    assert len(vp.cluster(own[:8], threshold=0.5).vp_cluster) == 8


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


@pytest.fixture(scope="module")
def cohort() -> pd.DataFrame:
    return frame_of(80, 1, seed=9)


@pytest.fixture(scope="module")
def normalised(cohort: pd.DataFrame) -> vp.Calibration:
    return vp.calibrate(frame_of(60, 6, seed=1), enrolled=3, cohort=cohort)


def test_scores_normalised_by_a_cohort(
    normalised: vp.Calibration, cohort: pd.DataFrame, known: pd.DataFrame, library: vp.Library
) -> None:
    own = known.groupby("speaker").tail(5)
    out = vp.match(own, library, calibration=normalised, false_name_rate=0.05, cohort=cohort)
    matched = out[out.vp_decision.eq("match")]
    assert len(matched) > 0.6 * len(own)
    assert (matched.vp_label == matched.speaker).mean() > 0.95
    assert out.vp_score.max() > 1.5
    assert "s-norm" in out.attrs["voiceprint_nb_match"]["vp_"]["normalisation"]
    right = out.vp_nearest == out.speaker
    assert out.vp_probability[right].mean() > out.vp_probability[~right].mean()
    first, name = own["voiceprint"].iloc[0], own.speaker.iloc[0]
    person = known["voiceprint"][known.speaker.eq(name)][:3].tolist()
    one = vp.verify(first, person, calibration=normalised, cohort=cohort)
    against = vp.match(own[:1], library, threshold=3.0, cohort=cohort)
    assert against.vp_nearest.iloc[0] == name
    assert one.score == pytest.approx(against.vp_score.iloc[0], abs=1e-4)
    assert vp.verify(first, person, threshold=99.0, cohort=cohort).decision == "no match"


def test_what_a_cohort_has_not_normalised_is_not_compared_with_what_it_has(
    calibration: vp.Calibration,
    normalised: vp.Calibration,
    cohort: pd.DataFrame,
    known: pd.DataFrame,
    library: vp.Library,
) -> None:
    clip, of_nobody = known["voiceprint"][0], cohort["voiceprint"][0]
    for words, made, others in (
        ("pass the same as cohort=", normalised, None),
        ("made with another cohort", normalised, cohort[1:]),
        ("to calibrate", calibration, cohort),
        ("1 of the cohort's voiceprints are in question", normalised, pd.concat([cohort, known[:1]])),
        ("another model", normalised, prints(voices(80, 1, noise=0.9)[0], model=OTHER_MODEL)),
    ):
        with pytest.raises(vp.UsageError, match=words):
            vp.match(known, library, calibration=made, cohort=others)
        with pytest.raises(vp.UsageError, match=words):
            vp.verify(clip, [of_nobody] * 3 if others is None else clip, calibration=made, cohort=others)
    strangers = frame_of(3, 1, seed=12)
    with pytest.raises(vp.UsageError, match="3 of the cohort's"):  # who is enrolled is not the cohort's
        vp.match(strangers, library, threshold=1.0, cohort=pd.concat([cohort, known[:3]]))
    with pytest.warns(UserWarning, match="12 voiceprints is small") as told:
        vp.match(known, library, threshold=5.0, cohort=cohort[:12])
        vp.verify(clip, clip, threshold=5.0, cohort=cohort[:12])
    assert len(told) == 2
    with pytest.raises(vp.UsageError, match="a number, not nan"):
        vp.match(known, library, threshold=float("nan"), cohort=cohort)


def test_a_small_calibration_on_real_speech_names_no_strangers() -> None:
    folder = speech_folder()
    rows = pd.read_csv(folder / "manifest.csv")
    names = np.random.default_rng(0).permutation(rows.speaker.unique())
    calibrating, enrolled, strangers = names[:6], names[6:14], names[14:22]
    clips = pd.concat(
        [
            rows[rows.speaker.isin(part)].groupby("speaker").head(6)
            for part in (calibrating, enrolled, strangers)
        ]
    )
    embedder = Embedder()
    vectors = embedder.embed_many([audio.read_mono(folder / path) for path in clips.path])
    clips = clips.assign(
        voiceprint=[voiceprint_text(vector, embedder.model.fingerprint) for vector in vectors]
    )
    library = vp.Library.from_frame(clips[clips.speaker.isin(enrolled)].groupby("speaker").head(3))
    of_strangers = clips[clips.speaker.isin(strangers)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the speakers are few
        small = vp.calibrate(clips[clips.speaker.isin(calibrating)], enrolled=3)
    best = small.threshold(1 / small.n_impostor).with_confidence(0.9)
    assert vp.match(of_strangers, library, threshold=best).vp_label.notna().mean() > 0.05
    with pytest.warns(UserWarning, match="No row gets a name"):
        out = vp.match(of_strangers, library, calibration=small, false_name_rate=0.02)
    assert out.vp_label.isna().all()


def noisy(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """With white noise 10 dB below the voice."""
    noise = random.standard_normal(len(samples), np.float32)
    return samples + noise * np.float32(np.sqrt(np.mean(samples**2) / 10))


def test_a_threshold_carries_over_to_noise_with_a_cohort_that_has_it() -> None:
    """Real speech: calibrated on clean clips, asked about noisy ones of others, for 5 % false accepts."""
    folder = speech_folder()
    rows = pd.read_csv(folder / "manifest.csv")
    rows = rows.groupby("speaker").head(2)
    turn = rows.speaker.map({name: n % 3 for n, name in enumerate(rows.speaker.unique())})
    random, embedder = np.random.default_rng(4), Embedder()

    def frame(part: pd.DataFrame, *, with_noise: bool) -> pd.DataFrame:
        clips = [audio.read_mono(folder / path) for path in part.path]
        clips = [noisy(clip, random) if with_noise else clip for clip in clips]
        texts = [voiceprint_text(vector, embedder.model.fingerprint) for vector in embedder.embed_many(clips)]
        return part.assign(voiceprint=texts)

    cohort, clean = frame(rows[turn == 0], with_noise=False), frame(rows[turn == 1], with_noise=False)
    cohort = pd.concat([cohort, frame(rows[turn == 0], with_noise=True)])
    asked = frame(rows[turn == 2], with_noise=True)
    accepted = {}
    for name, others in {"cosine": None, "normalised": cohort}.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the speakers are few
            threshold = vp.calibrate(clean, cohort=others).threshold(0.05).value
            trials = vp.calibrate(asked, cohort=others).trials
        accepted[name] = float(np.mean(trials.impostor >= threshold))
    assert accepted["cosine"] > 0.2
    assert accepted["normalised"] < 0.1
