"""The quickstart as people use it: opened in JupyterLab, run, saved, converted."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

REPOSITORY = Path(__file__).resolve().parents[2]
QUEUED = "[...document.querySelectorAll('.jp-InputPrompt')].filter(one => one.innerText == '[*]:').length"


def quickstart():
    """The notebook before anybody has run it."""
    notebook = nbformat.read(REPOSITORY / "notebooks" / "01-quickstart.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def test_run_all_then_save_and_convert(open_notebook, server, picture, faults, tmp_path):
    from playwright.sync_api import expect

    shutil.copytree(REPOSITORY / "data" / "samples", server.root / "data" / "samples")
    notebook = open_notebook("notebooks/quickstart.ipynb", quickstart())
    n_cells = sum(cell.cell_type == "code" for cell in quickstart().cells)
    page = notebook.page
    notebook.menu("Run", "Run All Cells")
    page.wait_for_function(f"{QUEUED} > 9")
    for index in range(n_cells):
        expect(notebook.cell(index).locator(".jp-InputPrompt")).to_have_text(
            f"[{index + 1}]:", timeout=60_000
        )
    expect(page.locator(".jp-RenderedText[data-mime-type*=error], .jp-mod-error")).to_have_count(0)
    panel = notebook.cell(2).locator(".jp-OutputArea-output").first
    expect(panel).to_contain_text("24 of 24 rows")
    expect(panel.get_by_role("table")).to_contain_text("empty_file")
    picture(notebook.cell(2), "quickstart")
    assert faults(panel) == []

    saved = notebook.save()
    assert "widgets" not in saved.metadata or not saved.metadata.widgets
    for theme in ("light", "dark"):
        html, _ = HTMLExporter(theme=theme, embed_images=True).from_notebook_node(saved)
        file = tmp_path / f"{theme}.html"
        file.write_text(html)
        page.goto(file.as_uri(), wait_until="domcontentloaded")
        table = page.get_by_role("table").filter(has_text="reason").filter(has_text="empty_file").last
        expect(table.get_by_role("row")).to_have_count(5)
        static = page.locator(".jp-OutputArea-output").filter(has_text="voiceprints: 24 of 24 rows").first
        assert faults(static) == []
        picture(static, f"converted-{theme}")
