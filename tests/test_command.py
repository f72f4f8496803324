"""The command line, in process and as installed."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from voices import prints, voices

import voiceprint_nb as vp
from voiceprint_nb.command import main
from voiceprint_nb.notebook.terminal import read_table, write_table

REPOSITORY = Path(__file__).resolve().parents[1]
SAMPLES = REPOSITORY / "data" / "samples"
MANIFEST = str(SAMPLES / "manifest.csv")
SCRIPT = [str(Path(sys.executable).parent / "voiceprint-nb")]
MODULE = [sys.executable, "-m", "voiceprint_nb"]
DEADLINE_S = 60.0


@pytest.fixture(autouse=True)
def own_place(tmp_path, monkeypatch):
    for name in ("PYANNOTEAI_API_KEY", "VOICEPRINT_NB_SERVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VOICEPRINT_NB_DATA_DIR", str(tmp_path / "user-data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def good(tmp_path):
    """A manifest of three good clips, whose paths count from its own folder."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("ada-1.wav", "ada-2.flac", "ben-1.wav"):
        (folder / name).write_bytes((SAMPLES / name).read_bytes())
    path = folder / "good.csv"
    path.write_text("sound,id\nada-1.wav,007\nada-2.flac,NA\nben-1.wav,1.10\n")
    return path


def run_installed(*arguments, program=SCRIPT, **options):
    options = {"timeout": DEADLINE_S, "capture_output": True, "text": True, **options}
    return subprocess.run([*program, *arguments], check=False, **options)


def test_the_installed_script_from_the_repository_root(tmp_path):
    out = tmp_path / "new" / "folder" / "out.csv"
    done = run_installed("run", "data/samples/manifest.csv", "--out", str(out), cwd=REPOSITORY)
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert lines[0] == "Service: local, in this process. The audio stays on this machine."
    assert lines[-1].startswith("Some rows have no voiceprint: see their vp_error in")
    assert out.stat().st_mode & 0o777 == 0o600
    table = pd.read_csv(out)
    assert table.vp_status.value_counts().to_dict() == {"succeeded": 20, "invalid": 4}
    assert list(table)[:3] == ["audio", "speaker", "note"]

    done = run_installed("compare", str(out), "--label", "speaker", program=MODULE, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 21
    assert not any(text[20:80] in done.stdout for text in table["voiceprint"].dropna())


def test_check_prints_a_table_and_names_no_service(capsys):
    assert main(["check", MANIFEST, "--base", str(REPOSITORY)]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 25
    assert "too_long" in out
    assert "<NA>" not in out
    assert "Service" not in err


def test_check_fits_long_clips(tmp_path):
    table = pd.DataFrame({"audio": [str(SAMPLES / "ben-long.opus")]})
    table.to_csv(tmp_path / "long.csv")
    assert main(["check", "long.csv"]) == 1
    assert main(["check", "long.csv", "--fit", "head"]) == 0


def test_quality_is_measured_where_it_is_asked_for(good, tmp_path):
    for command in ("check", "run"):
        out = str(tmp_path / f"{command}.csv")
        assert main([command, str(good), "--column", "sound", "--quality", "--out", out]) == 0
        assert read_table(Path(out)).vp_snr_db.astype(float).between(10, 90).all()
    assert main(["resume", "--out", out]) == 0
    assert "vp_snr_db" in read_table(Path(out))


def test_plan_prints_what_a_run_would_do(good, own_place, monkeypatch, capsys):
    assert main(["plan", MANIFEST, "--base", str(REPOSITORY)]) == 1
    assert "19 prints to make on this machine, 1 duplicate, 4 invalid" in capsys.readouterr().out
    monkeypatch.setenv("PYANNOTEAI_API_KEY", "key-0f3a")
    prices = ["--price-per-print", "0.5", "--model", "precision-3", "--service", "pyannoteai"]
    call = ["plan", str(good), "--column", "sound", *prices, "--out", "rows.csv"]
    assert main(call) == 0
    out, err = capsys.readouterr()
    assert "3 prints to buy" in out
    assert "Cost: 1.5 (3 prints at 0.5)" in out
    assert "Service: api.pyannote.ai" in out
    assert "Service" not in err
    assert read_table(Path("rows.csv")).vp_plan.tolist() == ["new"] * 3
    assert not (own_place / "user-data").exists()
    assert main(["plan", "rows.csv", "--column", "sound", "--base", str(good.parent)]) == 0
    with pytest.raises(SystemExit):
        main([*call, "--price-per-hour", "1"])


@pytest.mark.parametrize("where", ["own folder", "base", "current folder"])
def test_where_relative_paths_count_from(where, good, tmp_path, monkeypatch):
    manifest, more = str(good), []
    if where == "base":
        manifest = str(good.rename(tmp_path / "elsewhere.csv"))
        more = ["--base", "/", "--base", str(tmp_path / "mine")]
    elif where == "current folder":
        manifest = str(good.rename(tmp_path / "elsewhere.csv"))
        monkeypatch.chdir(tmp_path / "mine")
    assert main(["check", manifest, "--column", "sound", *more]) == 0
    assert main(["check", manifest, "--column", "sound", "--base", "/"]) == 1


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_run_then_compare(ending, good, tmp_path, capsys):
    out = tmp_path / f"out.{ending}"
    out.write_text("old")
    out.chmod(0o666)
    assert main(["run", str(good), "--column", "sound", "--out", str(out)]) == 0
    assert out.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    back = read_table(out)
    assert back.id.tolist() == ["007", "NA", "1.10"]
    matrix = tmp_path / f"matrix.{ending}"
    assert main(["compare", str(out), "--label", "id", "--out", str(matrix)]) == 0
    cosines = read_table(matrix)
    assert list(cosines) == ["id", "007", "NA", "1.10"]
    values = cosines[["007", "NA", "1.10"]].to_numpy().astype(float)
    np.testing.assert_allclose(values, vp.compare(back), atol=1e-6)
    assert main(["compare", str(out), "--label", "id", "--top", "2", "--out", str(matrix)]) == 0
    alike = read_table(matrix)
    assert alike.row.tolist() == ["007"] * 2 + ["NA"] * 2 + ["1.10"] * 2
    assert main(["compare", str(out)]) == 0
    page = tmp_path / "report.html"
    assert main(["report", str(out), str(page), "--label", "id"]) == 0
    assert "Rows by state" in page.read_text()
    assert main(["run", str(out), "--column", "sound", "--base", str(good.parent), "--out", str(out)]) == 0
    assert read_table(out).vp_source.tolist() == ["reused"] * 3


def labelled(path, n_speakers, n_clips, *, seed):
    """A result with made-up voices."""
    embeddings, speakers = voices(n_speakers, n_clips, noise=0.5, seed=seed)
    names = [f"{seed}-{speaker}" for speaker in speakers]
    table = pd.DataFrame({"id": range(len(names)), "voiceprint": prints(embeddings), "speaker": names})
    table.to_csv(path, index=False)
    return table


@pytest.mark.parametrize("ending", ["json", "parquet"])
def test_enroll_calibrate_match_and_cluster(tmp_path, capsys, ending):
    known, people, told = tmp_path / "known.csv", tmp_path / f"people.{ending}", tmp_path / "told.csv"
    labelled(known, 30, 5, seed=1)
    assert main(["calibrate", str(known), "--enrolled", "3"]) == 0
    assert "150 clips of 30 speakers, against people of 3 clips" in capsys.readouterr().out
    table = labelled(tmp_path / "more.csv", 12, 6, seed=2)
    half = table[table.speaker.isin(table.speaker.unique()[:6])]
    half.groupby("speaker").head(3).to_csv(tmp_path / "enroll.csv", index=False)
    for _ in range(2):  # the second time nothing is new
        assert main(["enroll", str(tmp_path / "enroll.csv"), str(people), "--consent", "asked"]) == 0
    assert "6 people, 18 voiceprints" in capsys.readouterr().out
    call = ["match", str(tmp_path / "more.csv"), str(people), "--out", str(told)]
    assert main([*call, "--calibrate-on", str(known)]) == 1  # not all are known
    out = read_table(told)
    assert out.vp_label[out.speaker.isin(half.speaker)].eq(out.speaker).sum() > 30
    assert out.vp_label[~out.speaker.isin(half.speaker)].isna().all()
    assert main([*call, "--threshold", "-1"]) == 0
    labelled(tmp_path / "cohort.csv", 60, 1, seed=4)
    cohort = ["--cohort", str(tmp_path / "cohort.csv")]
    assert main(["calibrate", str(known), *cohort]) == 0
    assert "Scores: adaptive s-norm by" in capsys.readouterr().out
    assert main([*call, "--calibrate-on", str(known), *cohort]) == 1
    normalised = read_table(told)
    assert normalised.vp_score.astype(float).max() > 1  # no cosines
    assert normalised.vp_label[~out.speaker.isin(half.speaker)].isna().all()
    assert (
        main(["cluster", str(tmp_path / "more.csv"), "--calibrate-on", str(known), "--out", str(told)]) == 0
    )
    assert read_table(told).groupby("vp_cluster").speaker.nunique().tolist() == [1] * 12
    capsys.readouterr()
    labelled(known, 3, 4, seed=3)
    assert main(["calibrate", str(known)]) == 0
    assert "3 speakers are too few" in capsys.readouterr().err
    assert main(["match", str(known), str(tmp_path / "none.json"), "--threshold", "0.8"]) == 2


@pytest.fixture
def enrolled(tmp_path):
    """A table, a library of its people and another table to calibrate on."""
    table = labelled(tmp_path / "clips.csv", 6, 6, seed=2)
    table.groupby("speaker").head(3).to_csv(tmp_path / "enroll.csv", index=False)
    labelled(tmp_path / "known.csv", 30, 5, seed=1)
    assert main(["enroll", "enroll.csv", "people.json"]) == 0
    return table


def test_match_and_cluster_tell_what_they_decide_by(enrolled, capsys):
    call = ["match", "clips.csv", "people.json", "--out", "told.csv"]
    assert main([*call, "--threshold", "0.5"]) == 0
    given = "voiceprint-nb: a name from a score of 0.500 on (as given), unknown below 0.500; 6 enrolled.\n"
    assert capsys.readouterr().err == given
    assert main([*call, "--threshold", "2"]) == 2
    capsys.readouterr()
    main([*call, "--calibrate-on", "known.csv", "--false-name-rate", "0.05"])
    assert re.search(
        r"a name from a score of 0\.\d{3} on \(at most 0\.05 of strangers named, "
        r"interval 0\.\d{3} to 0\.\d{3}\), unknown below 0\.\d{3}; 6 enrolled\.\n$",
        capsys.readouterr().err,
    )
    labelled(Path("few.csv"), 4, 4, seed=3)
    assert main([*call, "--calibrate-on", "few.csv"]) == 1
    err = capsys.readouterr().err
    assert "No row gets a name: asked for 0.01 false names" in err
    assert re.search(r"voiceprint-nb: no names, unknown below 0\.\d{3}; 6 enrolled\.\n$", err)
    assert main(["cluster", "clips.csv", "--threshold", "0.5", "--out", "told.csv"]) == 0
    line = "voiceprint-nb: 6 voices; one voice from a mean cosine of 0.500 on (as given).\n"
    assert capsys.readouterr().err == line
    assert main(["cluster", "clips.csv", "--calibrate-on", "known.csv", "--out", "told.csv"]) == 0
    assert "(0.01 of pairs of two speakers are as alike).\n" in capsys.readouterr().err


def test_match_takes_scores_to_be_unsure_at_and_ways_to_score(enrolled, capsys):
    call = ["match", "clips.csv", "people.json", "--out", "told.csv"]
    assert main([*call, "--threshold", "0.99", "--unknown-below", "-1"]) == 1
    told = read_table(Path("told.csv"))
    assert "unsure" in set(told.vp_decision)
    assert "unknown" not in set(told.vp_decision)
    assert main([*call, "--threshold", "0.5", "--scoring", "best"]) == 0
    best = read_table(Path("told.csv")).vp_score
    assert not np.allclose(best.astype(float), told.vp_score.astype(float))
    assert main(["calibrate", "known.csv", "--enrolled", "3", "--scoring", "best"]) == 0
    assert "against people of 3 clips (best)" in capsys.readouterr().out
    main([*call, "--calibrate-on", "known.csv", "--scoring", "best"])
    assert read_table(Path("told.csv")).vp_score.tolist() == best.tolist()


def test_match_is_not_whole_if_a_row_has_no_voiceprint(enrolled):
    enrolled.assign(voiceprint=enrolled["voiceprint"].where(enrolled.id > 0)).to_csv("gap.csv", index=False)
    call = ["people.json", "--threshold", "-1", "--out", "told.csv"]
    assert main(["match", "gap.csv", *call]) == 1
    assert read_table(Path("told.csv")).vp_decision.isna().sum() == 1
    assert main(["match", "clips.csv", *call]) == 0


def test_a_report_with_a_calibration_and_a_library(good, enrolled, capsys):
    assert main(["run", str(good), "--column", "sound", "--out", "out.csv"]) == 0
    call = ["report", "out.csv", "report.html", "--label", "id"]
    assert main(call) == 0
    plain = Path("report.html").read_text()
    read_table(Path("known.csv")).rename(columns={"speaker": "id", "id": "number"}).to_csv("labelled.csv")
    assert main([*call, "--calibrate-on", "labelled.csv", "--library", "people.json"]) == 0
    page = Path("report.html").read_text()
    for words in ("150 clips of 30 speakers", "Enrolled people"):
        assert words in page
        assert words not in plain
    assert main([*call, "--library", "none.json"]) == 2


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_labels_may_repeat_and_be_anything(ending, good, tmp_path):
    out = tmp_path / "out.csv"
    main(["run", str(good), "--column", "sound", "--out", str(out)])
    table = read_table(out).assign(who=["a", "a", "who"])
    table.to_csv(out, index=False)
    assert main(["compare", str(out), "--label", "who", "--out", f"matrix.{ending}"]) == 0
    assert list(read_table(Path(f"matrix.{ending}"))) == ["who", "a", "a.1", "who.1"]
    assert main(["compare", str(out), "--label", "nobody"]) == 2


def test_resume_runs_and_forget(good, capsys):
    assert main(["resume"]) == 2
    assert main(["runs"]) == 0
    assert main(["run", str(good), "--column", "sound"]) == 0
    printed = capsys.readouterr().out
    assert "No rows." in printed
    assert "succeeded" in printed
    run_id = vp.runs().run_id[0]
    assert main(["resume", run_id, "--out", "again.csv"]) == 0
    table = read_table(Path("again.csv"))
    assert table.vp_source.tolist() == ["reused"] * 3
    assert not any(text[20:80] in printed for text in table["voiceprint"])
    assert main(["runs", "--out", "runs.csv"]) == 0
    assert read_table(Path("runs.csv")).run_id.tolist() == [run_id]
    assert main(["forget"]) == 2
    assert main(["forget", run_id]) == 0
    assert "3 voiceprints deleted." in capsys.readouterr().out
    assert main(["forget", "--everything"]) == 0


@pytest.mark.parametrize("name", ["out.xlsx", "out", "mine", "file.csv/out.csv", "/proc/out.csv"])
def test_an_impossible_output_is_refused_before_any_work(name, good, own_place, capsys):
    (own_place / "file.csv").write_text("")
    assert main(["run", str(good), "--column", "sound", "--out", name]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("voiceprint-nb: ")
    assert "Service" not in err
    assert out == ""
    assert not (own_place / "user-data").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "nothing.csv"], "No such file"),
        (["run", "table.xlsx"], "no known ending"),
        (["run", "empty.csv"], "cannot be read as a table"),
        (["run", "text.parquet"], "cannot be read as a table"),
        (["run", MANIFEST, "--column", "sound"], "no column 'sound'"),
        (["run", MANIFEST, "--service", "mars"], "Unknown service"),
        (["compare", MANIFEST], "pass the result of voiceprints"),
        (["forget", "nobody"], "knows no run 'nobody'"),
    ],
)
def test_wrong_calls_exit_with_2_and_a_sentence(arguments, said, tmp_path, capsys):
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "text.parquet").write_text("text")
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("voiceprint-nb: ")
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_service_that_is_down_exits_with_3(good, capsys):
    assert main(["run", str(good), "--column", "sound", "--service", "http://127.0.0.1:9"]) == 3
    assert "voiceprint-nb: " in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--help"], ["fly"], ["run"], ["run", MANIFEST, "--fit", "tail"]])
def test_usage_comes_from_argparse(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == (0 if arguments == ["--help"] else 2)


COMMANDS = [
    *("check", "plan", "run", "resume", "runs", "forget", "compare", "enroll", "calibrate", "match"),
    *("cluster", "report", "doctor", "serve", "keys"),
]


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    whole = capsys.readouterr().out
    assert "Exit status: 0 every row succeeded" in whole
    assert set(re.search(r"\{([a-z,]+)\}", whole)[1].split(",")) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"{command}: " in capsys.readouterr().out


def test_interrupt_exits_with_130_and_resume_completes(tmp_path):
    rng = np.random.default_rng(0)
    for n in range(300):
        soundfile.write(tmp_path / f"{n}.wav", rng.normal(scale=0.1, size=160_000), 16_000)
    pd.DataFrame({"audio": [f"{n}.wav" for n in range(300)]}).to_csv(tmp_path / "many.csv", index=False)
    program = [*SCRIPT, "run", "many.csv", "--out", "out.csv"]
    running = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        ends_s = time.monotonic() + DEADLINE_S
        while not n_finished(tmp_path / "user-data" / "ledger.sqlite3") and running.poll() is None:
            assert time.monotonic() < ends_s
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=DEADLINE_S)
    finally:
        running.kill()
    assert (running.returncode, out) == (130, "")
    assert len([line for line in err.splitlines() if line.startswith("Stopped.")]) == 1
    assert "Traceback" not in err
    assert not (tmp_path / "out.csv").exists()
    assert main(["resume", "--out", "out.csv"]) == 0
    table = read_table(tmp_path / "out.csv")
    assert table.vp_status.tolist() == ["succeeded"] * 300
    assert set(table.vp_source) == {"new", "reused"}


def n_finished(ledger):
    if not ledger.exists() or not ledger.stat().st_size:
        return 0
    db = sqlite3.connect(ledger, timeout=10)
    try:
        return db.execute("SELECT count(*) FROM jobs WHERE state = 'succeeded'").fetchone()[0]
    except sqlite3.OperationalError:  # the tables are being made
        return 0
    finally:
        db.close()


def test_a_reader_that_leaves_early_is_no_error(good):
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = run_installed("check", str(good), "--column", "sound", stdout=write_end, capture_output=False,
                             stderr=subprocess.PIPE)  # fmt: skip
    finally:
        os.close(write_end)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_tables_with_a_byte_order_mark_and_an_index(tmp_path):
    (tmp_path / "bom.csv").write_bytes("\ufeffaudio,é\na.wav,ü\n".encode())
    assert read_table(tmp_path / "bom.csv").columns.tolist() == ["audio", "é"]
    frame = pd.DataFrame({"x": [1]}, index=pd.Index(["row"], name="who"))
    write_table(frame, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "who,x\nrow,1\n"


def test_a_failed_write_keeps_what_was_there(tmp_path):
    path = tmp_path / "out.parquet"
    path.write_text("old")
    for frame in (pd.DataFrame([[1, 2]], columns=["a", "a"]), pd.DataFrame({"a": [object(), "x"]})):
        with pytest.raises(vp.UsageError, match="cannot be written"):
            write_table(frame, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
