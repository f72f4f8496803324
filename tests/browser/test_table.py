"""The table of rows in JupyterLab: read, sorted, filtered and listened to."""

from __future__ import annotations

from pathlib import Path

import pytest

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
ROWS = f"""\
import os
import pandas as pd
import voiceprint_nb as vp

os.chdir({str(SAMPLES.parents[1])!r})
df = pd.read_csv("data/samples/manifest.csv")
out = vp.voiceprints(df, "audio", service="local", ledger=False, progress=False)
"""
HEARD = """async player => {
  player.muted = true;
  await player.play();
  await new Promise(resolve => player.addEventListener("timeupdate", resolve, {once: true}));
  player.pause();
  return player.duration;
}"""


def test_it_is_read_sorted_filtered_and_heard(open_notebook, picture, faults):
    from playwright.sync_api import expect

    failures = "vp.show(out.query(\"vp_status != 'succeeded'\"))"
    notebook = open_notebook("table.ipynb", [ROWS, "vp.show(out)", failures])
    complaints = []
    notebook.page.on("pageerror", lambda error: complaints.append(str(error)))
    notebook.page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    for index in range(3):
        notebook.run(index)
    whole, failed = (notebook.cell(index).locator(".jp-Cell-outputArea") for index in (1, 2))
    expect(failed.get_by_role("table", name="4 rows: 4 invalid")).to_be_visible()
    expect(failed).to_contain_text("'empty.wav' has no bytes: record, copy or download it again.")
    expect(failed.get_by_role("row")).to_have_count(5)

    rows = whole.locator("tbody").get_by_role("row")
    expect(rows).to_have_count(10)
    by_length = whole.get_by_role("button", name="seconds: Activate to")
    for _ in range(2):  # shortest first, then longest
        by_length.focus()
        by_length.press("Enter")
    expect(rows.first).to_contain_text("ben-long.opus")
    assert rows.first.locator("audio").evaluate(HEARD) == pytest.approx(31.0, abs=0.1)
    whole.get_by_role("searchbox", name="Search:").fill("empty_file")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("nothing to play")

    for theme in ("Dark", "Light"):
        notebook.theme(f"JupyterLab {theme}")
        for name, part in (("table", whole), ("failures", failed)):
            picture(part, f"{name}-{theme.lower()}")
            assert faults(part) == []
    assert complaints == []
