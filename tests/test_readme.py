"""The README and the notebooks are true: what they show runs."""

import json
import re
from pathlib import Path

import nbformat
import pytest

from tools.notebooks import cleaned, leaks, run
from voiceprint_nb.errors import ROW_CODES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_python_examples_run(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("VOICEPRINT_NB_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("PYANNOTEAI_API_KEY", raising=False)
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict[str, object] = {}
    with pytest.warns(UserWarning) as told:  # six speakers are too few
        exec(compile(example, "README.md", "exec"), names)  # noqa: S102 - the README's own example
    assert [str(one.message)[:19] for one in told] == ["6 speakers are too ", "No row gets a name:"]
    out = names["out"]
    assert (out.vp_status == "succeeded").sum() == 20
    assert out["voiceprint"].notna().sum() == 20


def test_shell_examples_name_commands_that_exist(capsys):
    from voiceprint_nb.command import main

    shown = re.findall(
        r"^voiceprint-nb ([a-z]+)(?: \| ([a-z]+))?(?: \| ([a-z]+))?", README, flags=re.MULTILINE
    )
    words = {word for line in shown for word in line if word}
    assert words >= {"check", "plan", "run", "compare", "resume", "runs", "forget"}
    for word in words:
        with pytest.raises(SystemExit) as stopped:
            main([word, "--help"])
        assert stopped.value.code == 0, word
    assert "usage: voiceprint-nb" in capsys.readouterr().out


def test_error_codes_are_all_listed():
    table = README.split("<!-- error codes: begin -->")[1].split("<!-- error codes: end -->")[0]
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.*) \|$", table, re.MULTILINE)
    listed = {code: (status, meaning) for code, status, meaning in rows}
    assert listed == ROW_CODES


def test_linked_files_exist():
    linked = re.findall(r"\]\(([^)#:]+)\)", README)
    assert linked
    assert [name for name in linked if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_runs_and_is_saved_with_outputs(path, tmp_path):
    executed = cleaned(run(path, tmp_path))
    assert leaks(executed) == []
    saved = nbformat.read(path, as_version=4)
    assert leaks(saved) == []
    for cell, fresh in zip(saved.cells, executed.cells, strict=True):
        if cell.cell_type == "code":
            assert [o.output_type for o in cell.outputs] == [o.output_type for o in fresh.outputs], (
                cell.source
            )
    assert len(json.dumps(saved)) < 300_000
