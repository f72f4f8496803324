"""The verbs on the samples, with the real local service."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from voices import prints, voices

import voiceprint_nb as vp
from voiceprint_nb import scratch
from voiceprint_nb.batch.store import FILE_NAME
from voiceprint_nb.contract import decode_voiceprint

LOCAL = {"service": "local", "progress": False}
ONE = {"service": "local"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The samples' result, and the ledger it is in."""
    root = Path(__file__).resolve().parents[2]
    frame = pd.read_csv(root / "data" / "samples" / "manifest.csv")
    frame.index = pd.Index([7] * len(frame), name="take")
    data_dir = tmp_path_factory.mktemp("ledger")
    return frame, vp.voiceprints(frame, base=root, data_dir=data_dir, **LOCAL), data_dir


def test_the_samples(finished):
    frame, out, _ = finished
    assert list(frame) == ["audio", "speaker", "note"]
    assert out.index.equals(frame.index)
    assert out.vp_status.value_counts().to_dict() == {"succeeded": 20, "invalid": 4}
    assert out.vp_source.value_counts().to_dict() == {"new": 19, "reused": 1}
    problems = out[out.vp_status == "invalid"].set_index("note").vp_error_code
    assert sorted(problems) == ["empty_file", "not_audio", "silent", "too_long"]
    assert out.vp_error[out.vp_status == "succeeded"].isna().all()
    assert out["voiceprint"].notna().sum() == 20
    facts = out.attrs["voiceprint_nb"]
    assert facts["counts"] == {"succeeded": 19, "reused": 1, "invalid": 4}
    assert (facts["service"], facts["column"], facts["fit"]) == ("local", "voiceprint", "error")
    assert facts["model"] == decode_voiceprint(out["voiceprint"].iloc[0]).fingerprint


def test_parquet_keeps_columns_index_and_attributes(finished, tmp_path):
    _, out, _ = finished
    out.to_parquet(tmp_path / "out.parquet")
    back = pd.read_parquet(tmp_path / "out.parquet")
    ours = list(out)[3:]  # older versions of pandas bring the user's NaN back as None
    pd.testing.assert_frame_equal(back[ours], out[ours])
    assert list(back) == list(out)
    assert back.attrs == out.attrs


def test_speakers_sound_like_themselves(finished):
    _, out, _ = finished
    matrix = vp.compare(out, label="speaker")
    assert matrix.shape == (20, 20)
    assert matrix.index.name == "speaker"
    cosines = matrix.to_numpy(copy=True)
    assert (np.diag(cosines) == 1).all()
    np.fill_diagonal(cosines, -1)
    assert (matrix.index[cosines.argmax(axis=1)] == matrix.index).mean() > 0.9


def test_compare_takes_series_prints_and_texts(finished):
    _, out, _ = finished
    whole = vp.compare(out)
    assert whole.index.tolist() == [7] * 20
    np.testing.assert_array_equal(vp.compare(out["voiceprint"]), whole)
    np.testing.assert_array_equal(vp.compare(out["voiceprint"].dropna().tolist()), whole)
    np.testing.assert_array_equal(out.voiceprint.compare(), whole)


@pytest.mark.parametrize(
    ("data", "label", "said"),
    [
        (pd.DataFrame({"x": [1]}), None, "pass the result of voiceprints"),
        (pd.DataFrame({"voiceprint": [None]}), None, "no voiceprint to compare"),
        (pd.DataFrame({"voiceprint": ["opaque"]}), None, "opaque"),
        (pd.DataFrame({"voiceprint": prints(voices(2, 1, noise=0.1)[0])}), "speaker", "no column 'speaker'"),
        ([], None, "no voiceprint to compare"),
    ],
)
def test_compare_refuses_in_a_sentence(data, label, said):
    with pytest.raises(vp.UsageError, match=said):
        vp.compare(data, label)


def test_check_needs_no_service(manifest, own_place):
    before = manifest.copy()
    out = vp.check(manifest, progress=False)
    pd.testing.assert_frame_equal(manifest, before)
    assert out.vp_status.value_counts().to_dict() == {"ok": 20, "invalid": 4}
    assert out.vp_sample_rate_hz.iloc[0] == 16_000
    assert out.vp_format.iloc[0] == "WAV PCM_16"
    assert vp.check(manifest, fit="best", progress=False).vp_status.eq("ok").sum() == 21
    assert not (own_place / "user-data").exists()


def test_one_clip(manifest, tmp_path):
    path = manifest.audio[0]
    print_ = vp.voiceprint(path, data_dir=tmp_path, **ONE)
    assert 2.5 < print_.duration_s < 9
    assert print_.embedding.shape == (256,)
    again = vp.voiceprint(Path(path).read_bytes(), data_dir=tmp_path, **ONE)
    assert again.text == print_.text
    assert print_.similarity(again) == pytest.approx(1)
    other = vp.voiceprint(manifest.audio[4], data_dir=tmp_path, **ONE)
    assert print_.similarity(other) < 0.9
    with pytest.raises(vp.RowError) as caught:
        vp.voiceprint("no-such-file.wav", data_dir=tmp_path, **ONE)
    assert caught.value.code == "file_not_found"


def test_a_voiceprints_text_is_never_shown(finished, manifest, tmp_path, capsys):
    _, out, data_dir = finished
    print_ = vp.voiceprint(manifest.audio[0], data_dir=data_dir, **ONE)
    run = vp.submit(manifest[:3], service="local", data_dir=tmp_path)
    run.result()
    run.show()
    print(run, print_, f"{print_!r} {run!r}", out.attrs, [print_], vp.runs(data_dir=data_dir), out.voiceprint)
    printed = "".join(capsys.readouterr())
    assert printed.count("<Voiceprint of") == 3
    assert not any(text[20:80] in printed for text in out["voiceprint"].dropna())


def test_bytes_files_and_pairs_in_one_list(manifest, tmp_path, noises):
    path = Path(manifest.audio[0])
    with path.open("rb") as file:
        clips = [str(path), path, path.read_bytes(), file, io.BytesIO(path.read_bytes()), *noises(1), None]
        out = vp.voiceprints(clips, data_dir=tmp_path, **LOCAL)
    assert out.vp_status.tolist() == ["succeeded"] * 6 + ["invalid"]
    assert out["voiceprint"].nunique() == 2
    assert out.vp_error_code.iloc[6] == "empty_cell"
    assert list(out.audio[:5]) == clips[:5]


def test_resume_after_memory_is_gone(manifest, tmp_path, noises):
    pairs = noises(2, seed=1)
    frame = pd.DataFrame(
        {
            "who": pd.Series(["a", "b", "c", None, "e"], dtype="category"),
            3: [pairs[0], manifest.audio[0], None, "no-such-file.wav", pairs[1]],
            "who2": pd.array([1, None, 3, 4, 5], dtype="Int64"),
        },
        index=pd.MultiIndex.from_product([["x"], [1, 1, 2, 2, 3]]),
    )
    out = vp.voiceprints(frame, 3, prefix="a_", data_dir=tmp_path, **LOCAL)
    assert out.a_status.tolist() == ["succeeded", "succeeded", "invalid", "invalid", "succeeded"]
    back = vp.resume(out.attrs["voiceprint_nb"]["run_id"], data_dir=tmp_path, progress=False)
    pd.testing.assert_frame_equal(back[["who", "who2"]], frame[["who", "who2"]])
    assert back["a_voiceprint"].equals(out["a_voiceprint"])
    assert back.a_source.dropna().tolist() == ["reused"] * 3
    assert back[3].tolist() == [None, manifest.audio[0], None, "no-such-file.wav", None]
    assert back.a_error_code.tolist()[2:4] == ["empty_cell", "file_not_found"]

    vp.forget(everything=True, data_dir=tmp_path)
    unfinished = vp.submit(frame, 3, data_dir=tmp_path, **LOCAL)
    unfinished.cancel()
    unfinished.result()
    resumed = vp.resume(data_dir=tmp_path, progress=False)
    assert resumed.attrs["voiceprint_nb"]["run_id"] == unfinished.run_id
    assert resumed.vp_status.iloc[1] == "succeeded"
    gone = resumed.vp_error[resumed.vp_error_code == "unsupported_cell"]
    assert all("call voiceprints() with the frame again" in sentence for sentence in gone)


def test_resume_takes_the_newest_unfinished_run(manifest, tmp_path, noises):
    first = vp.submit(noises(150, seed=2), data_dir=tmp_path, **LOCAL)
    first.cancel()
    assert "canceled" in set(first.result().vp_status)
    vp.voiceprints(manifest[:1], data_dir=tmp_path, **LOCAL)
    listed = vp.runs(data_dir=tmp_path)
    assert listed.state.tolist() == ["finished", "unfinished"]
    assert listed.run_id[1] == first.run_id
    assert vp.resume(data_dir=tmp_path, progress=False).attrs["voiceprint_nb"]["run_id"] == first.run_id
    assert vp.runs(data_dir=tmp_path).state.tolist() == ["finished", "finished"]
    newest = vp.resume(data_dir=tmp_path, progress=False)
    assert newest.attrs["voiceprint_nb"]["run_id"] == listed.run_id[0]
    with pytest.raises(vp.UsageError, match="no run 'other'"):
        vp.resume("other", data_dir=tmp_path)


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
def test_a_ledger_that_others_may_change_is_not_unpickled(manifest, tmp_path, mode):
    vp.voiceprints(manifest[:1], data_dir=tmp_path, **LOCAL)
    (tmp_path / FILE_NAME).chmod(mode)
    with pytest.raises(vp.UsageError, match=r"Others may have changed the ledger .*chmod 600"):
        vp.resume(data_dir=tmp_path, progress=False)
    (tmp_path / FILE_NAME).chmod(0o600)
    assert vp.resume(data_dir=tmp_path, progress=False).vp_source.tolist() == ["reused"]


def test_a_ledger_that_others_may_read_is_drawn_tight(manifest, tmp_path):
    vp.voiceprints(manifest[:1], data_dir=tmp_path, **LOCAL)
    (tmp_path / FILE_NAME).chmod(0o644)
    assert vp.resume(data_dir=tmp_path, progress=False).vp_source.tolist() == ["reused"]
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_a_single_clip_leaves_no_run_behind(manifest, tmp_path):
    batch = vp.voiceprints(manifest[:2], data_dir=tmp_path, **LOCAL)
    clip = vp.voiceprint(manifest.audio.iloc[2], service="local", data_dir=tmp_path)
    assert vp.runs(data_dir=tmp_path).run_id.tolist() == [batch.attrs["voiceprint_nb"]["run_id"]]
    assert len(vp.resume(data_dir=tmp_path, progress=False)) == 2
    again = vp.voiceprints(manifest[2:3], data_dir=tmp_path, **LOCAL)
    assert again.vp_source.tolist() == ["reused"]
    assert again["voiceprint"].tolist() == [clip.text]


@pytest.mark.parametrize("model", ["precision-2", "none-such"])
def test_models_of_another_service_are_refused(manifest, model):
    with pytest.raises(vp.UsageError, match="use 'robust', 'compatible' or 'fast'"):
        vp.voiceprints(manifest[:1], model=model, **LOCAL)
    with pytest.raises(vp.UsageError, match="Unknown model 'none-such': use one of precision-2"):
        vp.voiceprints(manifest[:1], service="pyannoteai", api_key="k", model="none-such", ledger=False)


def test_a_temporary_folder_that_takes_nothing_ends_the_run_with_the_remedy(manifest, tmp_path, monkeypatch):
    full = tmp_path / "full"
    full.touch()
    monkeypatch.setattr(scratch, "new_folder", lambda: full)
    data = Path(manifest.audio.iloc[0]).read_bytes()
    with pytest.raises(vp.UsageError, match=r"could not be written .* set TMPDIR"):
        vp.voiceprints([data], data_dir=tmp_path, **LOCAL)


def test_one_voiceprint_compares_with_nothing(manifest, tmp_path):
    clip = vp.voiceprint(manifest.audio.iloc[0], service="local", data_dir=tmp_path)
    for alone in (clip, clip.text):
        with pytest.raises(vp.UsageError, match="two or more"):
            vp.compare(alone)
    with pytest.raises(vp.UsageError, match="is missing"):
        vp.compare([clip, None])


def test_forget(manifest, tmp_path):
    one = vp.voiceprints(manifest[:2], data_dir=tmp_path, **LOCAL)
    two = vp.voiceprints(manifest[1:4], data_dir=tmp_path, **LOCAL)
    assert two.vp_source.tolist() == ["reused", "new", "new"]
    with pytest.raises(vp.UsageError, match="Say what to forget"):
        vp.forget(data_dir=tmp_path)
    with pytest.raises(vp.UsageError, match="Say what to forget"):
        vp.forget("x", everything=True, data_dir=tmp_path)
    with pytest.raises(vp.UsageError, match="knows no run 'x'"):
        vp.forget("x", data_dir=tmp_path)
    assert vp.forget(one.attrs["voiceprint_nb"]["run_id"], data_dir=tmp_path) == 1
    assert vp.forget(everything=True, data_dir=tmp_path) == 3
    assert vp.runs(data_dir=tmp_path).empty
    with pytest.raises(vp.UsageError, match="no run yet"):
        vp.resume(data_dir=tmp_path)


def test_without_a_ledger_nothing_is_written(manifest, own_place):
    out = vp.voiceprints(manifest[:1], ledger=False, **LOCAL)
    assert out.vp_source.tolist() == ["new"]
    assert list(own_place.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"column": "sound"}, "no column 'sound'"),
        ({"service": "mars"}, "Unknown service: use"),
        ({"service": "pyannoteai"}, "needs a key"),
        ({"api_key": "hf_abc"}, "Hugging Face token"),
        ({"fit": "tail"}, "Unknown fit"),
        ({"prefix": ""}, "already has 'status'"),
    ],
)
def test_a_wrong_call_raises_before_anything_is_kept(manifest, own_place, arguments, said):
    with pytest.raises(vp.UsageError, match=said):
        vp.voiceprints(manifest.assign(status="mine"), **{**LOCAL, **arguments})
    assert list(own_place.iterdir()) == []


def test_overwrite_replaces_an_earlier_result(finished, tmp_path):
    _, out, data_dir = finished
    root = Path(__file__).resolve().parents[2]
    with pytest.raises(vp.UsageError, match="overwrite=True"):
        vp.voiceprints(out, base=root, data_dir=data_dir, **LOCAL)
    again = vp.voiceprints(out, base=root, data_dir=data_dir, overwrite=True, **LOCAL)
    assert list(again) == list(out)
    assert again["voiceprint"].equals(out["voiceprint"])


@pytest.mark.parametrize("data", [[], pd.DataFrame({"audio": []}), pd.Series([], dtype="string")])
def test_no_rows(data, tmp_path):
    out = vp.voiceprints(data, data_dir=tmp_path, **LOCAL)
    assert out.shape[0] == 0
    assert str(out["voiceprint"].dtype) == "string"
    assert vp.check(data, progress=False).shape[0] == 0


def test_settings_come_from_the_environment(manifest, own_place, monkeypatch, capsys):
    monkeypatch.setenv("VOICEPRINT_NB_SERVICE", "local")
    vp.voiceprints(manifest[:1], progress=False)
    assert capsys.readouterr().err == "Service: local, in this process. The audio stays on this machine.\n"
    assert (own_place / "user-data" / FILE_NAME).stat().st_mode & 0o777 == 0o600
