"""The panel of a run in JupyterLab: it moves, its buttons act, it can be shown again; how it looks."""

from __future__ import annotations

from tests.served import serving

PREAMBLE = """\
import numpy as np
import voiceprint_nb as vp

def noises(n, seed):
    rng = np.random.default_rng(seed)
    return [(rng.normal(scale=0.1, size=32_000).astype(np.float32), 16_000) for _ in range(n)]
"""
EVERY_STATE = """\
from voiceprint_nb.batch.progress import END_STATES, LIVE_STATES, Snapshot
from voiceprint_nb.notebook.widgets import PanelMeter

ended = dict(zip(END_STATES, (0, 5_832, 411, 74, 38, 12, 3)))
live = dict(zip(LIVE_STATES, (3_420, 40, 110, 60)))
counts = {**ended, **live}
problems = (
    ("too_long", 61, "The clip lasts 31.0 s and the limit is 30 s: cut it, or pass fit='best'."),
    ("service_unavailable", 38, "The service did not answer, even after retries: resume() tries again."),
    ("not_audio", 13, "The bytes are not audio of a known format: check the file, or export it as WAV."),
)
facts = ("voiceprints", "Service: api.pyannote.ai. Clips that are files or in memory are uploaded there.")
more = {"limits": {"submit": (37, 100), "media": (61, 100)}}
stop = PanelMeter(on_cancel=lambda: None)
stop.show(Snapshot(*facts, sum(counts.values()), counts, problems, 4_012.0, 52, False, **more))
"""
ENDED = """\
again = PanelMeter(on_retry=lambda: None)
counts = {"succeeded": 9_871, "reused": 101, "invalid": 14, "failed": 10, "canceled": 3, "pending": 1}
again.show(Snapshot(*facts, 10_000, counts, problems, 6_012.0, 0, True, "The credit is used up."))
"""
WATCH = """\
words => {
  const started = {};
  document.addEventListener("click", () => { started.ms = performance.now(); }, true);
  window.tookMs = new Promise(resolve => new MutationObserver((_, observer) => {
    if (started.ms === undefined || !document.body.innerText.includes(words)) return;
    observer.disconnect();
    resolve(performance.now() - started.ms);
  }).observe(document.body, { childList: true, characterData: true, subtree: true }));
}"""


def bar(cell):
    return cell.get_by_role("progressbar")


def n_done(cell):
    return int(bar(cell).get_attribute("aria-valuenow"))


def test_the_bar_moves_cancel_stops_it_and_retry_goes_on(open_notebook, picture, faults):
    from playwright.sync_api import expect

    notebook = open_notebook("run.ipynb", [PREAMBLE, 'run = vp.submit(noises(300, 1), service="local")'])
    page, cell = notebook.page, notebook.cell(1)
    notebook.run(0)
    notebook.run(1)
    seen = [0]
    for _ in range(3):
        expect(bar(cell)).not_to_have_attribute("aria-valuenow", str(seen[-1]))
        seen.append(n_done(cell))
    assert seen == sorted(seen)
    assert seen[-1] < 300

    page.evaluate(WATCH, "Canceled; submitted jobs go on")
    cell.get_by_role("button", name="Cancel").click()
    assert page.evaluate("window.tookMs") < 1000
    expect(cell).to_contain_text("resume(")
    expect(cell.get_by_role("button", name="Cancel")).to_have_count(0)
    assert faults(cell.locator(".jp-Cell-outputArea")) == []
    picture(cell, "canceled")

    retry = cell.get_by_role("button", name="Retry failed")
    retry.focus()
    retry.press("Enter")
    expect(cell).to_contain_text("run.result() gives the frame.", timeout=60_000)
    expect(cell).to_contain_text("300 of 300 rows")
    expect(cell.locator(".jp-Cell-outputArea").get_by_role("button")).to_have_count(0)
    picture(cell, "finished")


def test_after_a_reload_the_run_goes_on_and_is_shown_again(open_notebook, picture):
    from playwright.sync_api import expect

    cells = [PREAMBLE, 'run = vp.submit(noises(1600, 2), service="local")', "run.show()"]
    notebook = open_notebook("reload.ipynb", cells)
    notebook.run(0)
    notebook.run(1)
    expect(bar(notebook.cell(1))).not_to_have_attribute("aria-valuenow", "0")
    before = n_done(notebook.cell(1))
    notebook.save()
    notebook.reload()
    notebook.run(2)
    shown = notebook.cell(2)
    expect(bar(shown)).to_be_visible()
    assert n_done(shown) >= before
    shown.get_by_role("button", name="Cancel").click()
    expect(shown).to_contain_text("Canceled; submitted jobs go on")
    expect(shown.get_by_role("button", name="Retry failed")).to_be_visible()
    before_reload = notebook.cell(1)  # this page knows its widgets, and no display id
    expect(before_reload).to_contain_text("Canceled; submitted jobs go on")
    expect(before_reload).to_contain_text("run.show() in a new cell draws a panel that is saved")
    expect(before_reload.get_by_role("button", name="Retry failed")).to_be_visible()
    picture(before_reload, "reloaded")
    saved = notebook.save()
    (output, *_) = saved.cells[2].outputs
    assert "Canceled; submitted jobs go on" in output.data["text/html"]


def test_a_run_that_the_service_refuses_says_why(open_notebook, picture, faults, tmp_path):
    from playwright.sync_api import expect

    with serving(tmp_path / "service") as served:
        call = f'run = vp.submit(noises(5, 3), service="{served.base_url}", api_key="sk_wrong")'
        notebook = open_notebook("refused.ipynb", [PREAMBLE, call])
        notebook.run(0)
        notebook.run(1)
        cell = notebook.cell(1)
        expect(cell).to_contain_text("Stopped:")
        expect(cell.get_by_role("button", name="Retry failed")).to_be_visible()
        assert faults(cell.locator(".jp-Cell-outputArea")) == []
        picture(cell, "refused")


def test_every_state_can_be_told_by_everybody(open_notebook, picture, faults):
    from playwright.sync_api import expect

    notebook = open_notebook("states.ipynb", [EVERY_STATE, ENDED])
    notebook.run(0)
    notebook.run(1)
    live, ended = (notebook.cell(index).locator(".jp-Cell-outputArea") for index in (0, 1))
    expect(live.get_by_role("button", name="Cancel")).to_be_visible()
    expect(ended.get_by_role("button", name="Retry failed")).to_be_visible()
    for theme in ("Dark", "Light"):
        notebook.theme(f"JupyterLab {theme}")
        picture(live, f"live-{theme.lower()}")
        picture(ended, f"failed-{theme.lower()}")
        assert faults(live) == []
        assert faults(ended) == []
