"""Notebook 7: panel, buttons, picker and table do there what they do in JupyterLab."""

from __future__ import annotations

from tests.browser.test_panel import PREAMBLE
from tests.browser.test_table import SAMPLES


def test_panel_picker_and_table(open_notebook):
    from playwright.sync_api import expect

    clips = [str(SAMPLES / "ada-1.wav"), str(SAMPLES / "empty.wav")]
    cells = [
        PREAMBLE,
        f"picker = vp.Picker({clips})\npicker",
        f"vp.show(vp.check({clips}))",
        'run = vp.submit(noises(800, 4), service="local")',
    ]
    notebook = open_notebook("seven.ipynb", cells, seven=True)
    notebook.begin()
    for index in range(1, len(cells)):
        notebook.run(index)
    picker, table, run = (notebook.cell(index) for index in (1, 2, 3))
    run.get_by_role("button", name="Cancel").click()
    expect(run).to_contain_text("Canceled; submitted jobs go on")
    expect(run.get_by_role("button", name="Retry failed")).to_be_visible()
    picker.get_by_role("button", name="Next").press("Enter")
    expect(picker.get_by_role("status").first).to_contain_text("empty.wav")
    expect(table.get_by_role("table").last).to_contain_text("empty_file")
    expect(table.locator("audio")).to_have_js_property("readyState", 4)
    (panel, *_) = notebook.save().cells[3].outputs
    assert "Canceled; submitted jobs go on" in panel.data["text/html"]
