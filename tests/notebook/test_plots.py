"""The times of a run are found by its result, its handle or its id."""

import matplotlib as mpl
import pytest

import voiceprint_nb as vp
from voiceprint_nb.batch.store import Ledger
from voiceprint_nb.notebook.plots import job_times

mpl.use("Agg")


@pytest.fixture(autouse=True)
def closed_figures():
    from matplotlib import pyplot

    yield
    pyplot.close("all")


def drawn(ax):
    return [path.vertices.tolist() for bars in ax.collections for path in bars.get_paths()]


def test_a_run_is_drawn_from_whatever_names_it(noises):
    from matplotlib import pyplot

    run = vp.submit([*noises(5), "no-such-file.wav"], service="local", progress=False)
    out = run.result()
    _, given = pyplot.subplots()
    ax = vp.plots.timeline(out, given)
    assert ax is given
    assert drawn(ax) == drawn(vp.plots.timeline(run)) == drawn(vp.plots.timeline(run.run_id))
    assert len(ax.collections[1].get_paths()) == 5
    counts, pace = ax.get_title().splitlines()
    assert counts == "6 rows (5 succeeded, 1 invalid)"
    assert pace.startswith("5 of 5 jobs ended in ")


def test_rows_without_a_job_of_the_run_are_not_drawn(noises):
    clips = noises(3)
    vp.voiceprints(clips[:2], service="local", progress=False)
    again = vp.voiceprints(clips, service="local", progress=False)
    assert len(vp.plots.timeline(again).collections[1].get_paths()) == 1
    reused = vp.voiceprints(clips, service="local", progress=False)
    with pytest.raises(vp.UsageError, match="had a job of its own"):
        vp.plots.timeline(reused)


def test_jobs_of_other_runs_are_not_taken_for_its_own(tmp_path):
    now_s = [0.0]
    with Ledger(tmp_path, clock=lambda: now_s[0]) as ledger:

        def begin(*keys):
            run_id = ledger.begin_run(n_rows=len(keys), destination="local", call={}, frame=None)
            for position, key in enumerate(keys):
                ledger.note_row(run_id, position, key)
            return run_id

        def work(key, until_s):
            ledger.claim(key)
            ledger.opened(key, f"job of {key}")
            now_s[0] = until_s
            ledger.succeeded(key, voiceprint="AAEC", warning=None)

        ledger.claim("left open")
        ledger.opened("left open", "job")
        work("before", 10)
        now_s[0] = 100
        run_id = begin("before", "left open", "own", "after")
        work("own", 104)
        ledger.succeeded("left open", voiceprint="AAEC", warning=None)
        ledger.end_run(run_id, {}, finished=True)
        now_s[0] = 200
        work("after", 210)
    record, times = job_times(run_id, tmp_path)
    assert record.run_id == run_id
    assert times.to_numpy().tolist() == [[0, 0, 4], [0, 0, 4]]
    assert job_times("no-such-run", tmp_path)[0] is None


def test_unknown_runs_are_named(noises, tmp_path):
    unkept = vp.voiceprints(noises(1), service="local", progress=False, ledger=False)
    with pytest.raises(vp.UsageError, match="runs\\(\\) lists what it has"):
        vp.plots.timeline(unkept)
    unkept.attrs.clear()
    with pytest.raises(vp.UsageError, match="does not tell its run"):
        vp.plots.timeline(unkept)
    elsewhere = vp.voiceprints(noises(1), service="local", progress=False, data_dir=tmp_path / "elsewhere")
    with pytest.raises(vp.UsageError, match="knows no run"):
        vp.plots.timeline(elsewhere)
    assert vp.plots.timeline(elsewhere, data_dir=tmp_path / "elsewhere").get_title()
