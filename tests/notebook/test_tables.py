"""`vp.show`: what a table says, plays, leaves out, and never lets through."""

from __future__ import annotations

import html
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

import voiceprint_nb as vp
from tests.notebook.pages import Page, embedded, page
from voiceprint_nb.errors import MissingExtra, UsageError

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
TAGS = {"style", "div", "table", "caption", "thead", "tbody", "tr", "th", "td", "audio", "span", "code", "p"}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[31m\u202e"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The samples, worked on."""
    frame = pd.read_csv(SAMPLES / "manifest.csv")
    frame["audio"] = [str(SAMPLES.parents[1] / path) for path in frame.audio]
    folder = tmp_path_factory.mktemp("ledger")
    return vp.voiceprints(frame, service="local", progress=False, data_dir=folder)


def test_what_went_wrong_can_be_read_and_heard(out):
    table = vp.show(out.query("vp_status != 'succeeded'"))
    said, text = str(table), table._repr_html_()
    assert said.startswith("4 rows: 4 invalid")
    for code in ("too_long", "empty_file", "not_audio", "silent"):
        assert code in said
        assert f"<code>{code}</code>" in text
    assert html.escape("pass fit='best' or fit='head'") in text
    assert len(embedded(text)) == 2  # the long one and the silent one
    assert text.count("nothing to play") == 2
    assert set(table._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_heads_have_a_scope_and_a_status_has_a_word(out):
    text = page(out[:3])
    assert re.findall(r'<th scope="col"[^>]*>([^<]+)', text) == [
        "row",
        "audio",
        "status",
        "seconds",
        "speaker",
    ]
    assert text.count('<th scope="row">') == 3
    assert text.count("</span> succeeded</td>") == 3
    assert text.count('preload="metadata"') == 3
    assert 'aria-label="' in text


def test_no_voiceprint_anywhere(out):
    texts = list(out["voiceprint"].dropna())
    frame = out.assign(copied=out["voiceprint"], cut=out["voiceprint"].str[:150], opaque="QUJD" * 400)
    for shape in (frame, frame.set_index("copied"), frame.rename(columns={"speaker": texts[0]})):
        said = str(vp.show(shape)) + page(shape) + page(shape, interactive=True)
        assert "copied" not in said or shape.index.name == "copied"
        assert all(text[60:100] not in said for text in texts)
        assert "QUJDQUJD" not in said


@pytest.mark.parametrize(
    "index",
    [
        pd.Index(["a", "a", "a"]),
        pd.MultiIndex.from_tuples([("x", 1), ("x", 2), ("y", 1)], names=["who", "take"]),
        pd.date_range("2026-01-01", periods=3),
        pd.Index([None, 1.5, "z"], dtype=object),
    ],
)
def test_any_index(out, index):
    part = out.iloc[18:21].set_axis(index)
    assert page(part).count('scope="row"') == 3
    assert len(vp.show(part.query("vp_status != 'succeeded'"))) == 1


def test_results_are_found_by_any_prefix(out, manifest):
    renamed = out.rename(columns=lambda name: name.replace("vp_", "q_"))
    assert "20 succeeded, 4 invalid" in str(vp.show(renamed))
    mine = vp.voiceprints(manifest[:1], prefix="p_", service="local", ledger=False, progress=False)
    assert "p_status" not in str(vp.show(mine))
    assert "1 row: 1 succeeded" in str(vp.show(mine, prefix="p_"))
    checked = vp.check(manifest.audio.rename("clip"), prefix="c_", progress=False)
    said = str(vp.show(checked))
    assert "24 rows: 20 ok, 4 invalid" in said
    assert re.search(r"seconds +Hz channels +format +bytes\n", said)
    assert "clip" in said


def test_a_result_that_went_through_csv(out, tmp_path):
    out.drop(columns="voiceprint").to_csv(tmp_path / "out.csv")
    frame = pd.read_csv(tmp_path / "out.csv", dtype=str)
    assert "24 rows: 20 succeeded, 4 invalid" in str(vp.show(frame))
    assert ">3.7</td>" in page(frame)


def test_rows_that_were_not_worked_on_yet(manifest):
    assert str(vp.show(manifest.audio[:2])).startswith("2 rows\n")
    assert len(embedded(page(list(manifest.audio[:2])))) == 2
    assert len(vp.show(manifest[:0])) == 0
    assert "<table>" in page(manifest[:0])


def test_similarity_to_a_row(out):
    named = out.set_index("speaker", append=True).iloc[:19]
    matrix = vp.compare(named)
    table = vp.show(named, compare_to=(0, "ada"))
    shown = re.findall(r"\d+, (\w+).*? (-?\d\.\d{3}) ", str(table))
    assert [name for name, _ in shown[:4]] == ["ada"] * 4
    expected = sorted(matrix.iloc[0], reverse=True)
    assert [float(score) for _, score in shown] == pytest.approx(expected, abs=6e-4)
    print_ = vp.Voiceprint(out["voiceprint"].iloc[0], 3.7)
    assert "4 without a similarity" in str(vp.show(out, compare_to=print_))


def test_what_cannot_be_compared(out):
    with pytest.raises(UsageError, match="no row has the label 'nobody'"):
        vp.show(out, compare_to="nobody")
    with pytest.raises(UsageError, match="2 rows have the label '0'"):
        vp.show(out.iloc[[0, 0, 1]], compare_to=0)
    with pytest.raises(UsageError, match="has no voiceprint"):
        vp.show(out, compare_to=21)
    hosted = out.assign(voiceprint="QUJD" * 400)
    with pytest.raises(UsageError, match="opaque") as refused:
        vp.show(hosted, compare_to=0)
    assert "QUJD" not in str(refused.value)
    mixed = out.iloc[:3].assign(voiceprint=[*out["voiceprint"][:2], "QUJD" * 400])
    assert "1 without a similarity" in str(vp.show(mixed, compare_to=0))


@pytest.mark.parametrize("interactive", [False, True])
def test_hostile_names_and_cells_stay_text(tmp_path, interactive):
    frame = pd.DataFrame(
        {
            "audio": [str(tmp_path / HOSTILE), HOSTILE, {"<script>": 1}],
            HOSTILE: [HOSTILE[:40], "</script>", "<!--<script>"],
            "vp_status": [HOSTILE, "failed", None],
            "vp_error_code": [HOSTILE] * 3,
            "vp_error": [HOSTILE] * 3,
            "vp_warning": [HOSTILE] * 3,
        },
        index=pd.Index([HOSTILE] * 3, name=HOSTILE),
    )
    text = page(frame, interactive=interactive)
    if not interactive:
        assert Page(text).tags <= TAGS
        assert "onerror" not in Page(text).attributes
    user_made = re.sub(r"<script>function injectCSS.*?</script>", "", text, flags=re.DOTALL)
    assert "<img" not in user_made
    assert "<script>alert" not in user_made
    for said in (user_made, str(vp.show(frame))):
        assert "\x1b" not in said
        assert "\u202e" not in said


def test_links_that_may_be_signed_are_left_out():
    links = [
        "https://bucket.example.org/a.wav?X-Amz-Signature=s3cret1",
        "https://user:s3cret2@example.org/b.wav",
        "https://example.org/c.wav#s3cret3",
        "https://www.dropbox.com/s/abc/d.wav?dl=0&rlkey=s3cret4",
        "https://example.org/e.wav",
    ]
    frame = pd.DataFrame({"audio": links, "link": links, "vp_error": [f"{links[0]}: no"] * 5}, index=links)
    for said in (page(frame), page(frame, interactive=True), str(vp.show(frame))):
        assert "s3cret" not in said
        assert "rlkey" not in said
    text = page(frame)
    assert Page(text).sources == ["https://example.org/e.wav"]
    assert text.count('preload="none"') == 1
    assert text.count("may be signed") == 4


def test_long_frames_show_their_first_rows(out):
    many = pd.concat([out] * 400, ignore_index=True)
    table = vp.show(many, rows=5)
    assert len(table) == 5
    assert str(table).startswith("9600 rows: 8000 succeeded, 1600 invalid")
    assert "And 9,595 more" in str(table)
    assert page(many, rows=5).count('scope="row"') == 5


def test_columns_of_the_user(out):
    frame = out[:2].assign(
        transcript="so it goes " * 20, take=[1, 2], empty=None, blob=[b"1234", b""], when=pd.Timestamp(0)
    )
    said = str(vp.show(frame))
    assert "Too long for this table: transcript." in said
    assert "so it goes" not in said
    assert "bytes, 4 B" in said
    assert "1970-01-01" in said
    assert "empty" not in said
    frame.insert(0, "take", ["x1", "x2"], allow_duplicates=True)
    assert "x2" in str(vp.show(frame))


def test_sorting_and_filtering_by_itables_loads_nothing_from_the_web(out, monkeypatch):
    text = vp.show(out)._repr_html_()
    assert "new ITable(" in text
    assert "injectModule" in text
    assert not re.search(
        r"(import|from|src|href)[ =(]*['\"]https?:", re.sub(r'"[A-Za-z0-9+/=]{999,}"', "", text)
    )
    assert text.count("data:audio/") == 20 + 2  # once each: not in the preview
    assert "new ITable(" not in vp.show(out[:10])._repr_html_()
    assert "new ITable(" not in vp.show(out, interactive=False)._repr_html_()
    monkeypatch.setattr("itables.javascript._CONNECTED", False)  # as init_notebook_mode leaves it
    assert "injectModule" not in vp.show(out)._repr_html_()


def test_without_itables(out, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "<caption>" in vp.show(out)._repr_html_()
    with pytest.raises(MissingExtra, match=r"voiceprint_nb\[tables\]"):
        vp.show(out, interactive=True)._repr_html_()


def test_columns_that_are_not_there(manifest):
    with pytest.raises(UsageError, match="no column 'clip'"):
        vp.show(manifest, "clip")
    assert manifest.voiceprint.show()._repr_html_().startswith("<style>")


def test_a_notebook_keeps_its_table_when_it_is_converted(tmp_path, out):
    out.query("vp_status != 'succeeded'").to_pickle(tmp_path / "out.pkl")
    source = "import pandas as pd, voiceprint_nb as vp\nvp.show(pd.read_pickle('out.pkl'))"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    converted, _ = HTMLExporter().from_notebook_node(notebook)
    assert "<code>too_long</code>" in converted
    assert converted.count('src="data:audio/') == 2
    assert len(nbformat.writes(notebook)) < 200_000
