"""Run the notebooks top to bottom and save them with outputs that hold no path and no clock of this machine.

``python -m tools.notebooks`` from the repository root; ``--check`` runs them without saving.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "notebooks"
LONG_TEXT = re.compile(r"VlBOQ[A-Za-z0-9+/=]{80,}")  # how the text of a local voiceprint begins


def run(path: Path, data_dir: Path) -> nbformat.NotebookNode:
    """Execute a notebook in the repository root, with a ledger of its own; raises if a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    setup = nbformat.v4.new_code_cell(f"import os; os.environ['VOICEPRINT_NB_DATA_DIR'] = {str(data_dir)!r}")
    notebook.cells.insert(0, setup)
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(ROOT)}})
    client.execute()
    del notebook.cells[0]
    return notebook


def cleaned(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without widget state, execution times and machine metadata, but for tags; counts start at 1."""
    language = notebook.metadata.get("language_info", {})
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": language.get("name", "python")},
        }
    )
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code_cells, start=1):
        cell.metadata = {"tags": cell.metadata.tags} if "tags" in cell.metadata else {}
        cell.execution_count = count
        cell.outputs = [output for output in cell.outputs if not _is_widget(output)]
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
            output.pop("transient", None)
    return notebook


def leaks(notebook: nbformat.NotebookNode) -> list[str]:
    """What a saved notebook must not hold: voiceprint text, absolute paths of the machine that ran it."""
    text = nbformat.writes(notebook)
    found = ["voiceprint text"] if LONG_TEXT.search(text) else []
    return found + [
        f"path {home}" for home in (str(ROOT), str(Path.home())) if len(home) > 5 and home in text
    ]


def _is_widget(output: Any) -> bool:
    return "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def main() -> None:
    """Run all notebooks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="do not save")
    check = parser.parse_args().check
    for path in sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            notebook = cleaned(run(path, Path(folder)))
        if found := leaks(notebook):
            raise SystemExit(f"{path.name} would hold {', '.join(found)}")
        if not check:
            nbformat.write(notebook, path)
        print(f"{path.name}: {len(notebook.cells)} cells {'run' if check else 'saved'}")


if __name__ == "__main__":
    main()
