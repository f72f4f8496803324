"""What values show of themselves as the last line of a cell."""

from __future__ import annotations

import pytest

import voiceprint_nb as vp
from voiceprint_nb.contract import decode_voiceprint
from voiceprint_nb.notebook.voiceprint import Voiceprint
from voiceprint_nb.notebook.widgets import as_html

LOCAL = {"service": "local", "progress": False}


def bundle(value):
    return value._repr_mimebundle_(include=None, exclude=None)


@pytest.mark.parametrize("verb", ["run", "voiceprint", "plan", "doctor", "show"])
def test_text_and_html_and_nothing_else(verb, noises, tmp_path):
    clips = noises(1)
    value = {
        "run": lambda: vp.submit(clips, data_dir=tmp_path, **LOCAL),
        "voiceprint": lambda: vp.voiceprint(clips[0], service="local", data_dir=tmp_path),
        "plan": lambda: vp.plan(clips, data_dir=tmp_path, **LOCAL),
        "doctor": vp.doctor,
        "show": lambda: vp.show(clips),
    }[verb]()
    shown = bundle(value)
    assert list(shown) == ["text/plain", "text/html"]
    assert shown["text/html"].startswith(("<div", "<table", "<style"))
    assert not shown["text/plain"].startswith("<voiceprint_nb.")


def test_a_run_that_has_ended_shows_the_end_of_its_panel(manifest, tmp_path):
    run = vp.submit(manifest[18:], data_dir=tmp_path, **LOCAL)
    run.result()
    shown = bundle(run)
    assert shown["text/html"] == as_html(run._session.tally.snapshot())
    for told in ("6 of 6 rows", "<code>too_long</code>", "<code>silent</code>", "stays on this machine"):
        assert told in shown["text/html"]
    assert shown["text/plain"].startswith(f"<Run {run.run_id}: voiceprints: 6 of 6 rows (")


def test_a_run_that_goes_on_says_of_which_moment_it_tells(noises, tmp_path):
    run = vp.submit(noises(400), data_dir=tmp_path, **LOCAL)
    going_on = bundle(run)["text/html"]
    run.cancel()
    run.result()
    assert "run.show() draws a panel that follows" in going_on
    assert "run.show()" not in bundle(run)["text/html"]
    assert "canceled" in bundle(run)["text/html"]


def test_a_run_named_in_a_cell_makes_no_widget(kernel):
    kernel.run(
        "run = vp.submit(noises(3, 20), service='local', data_dir=place, progress=False); run.result();"
    )
    kernel.forget()
    cell = kernel.run("run")
    (result,) = [m["content"]["data"] for m in cell.outputs if m["msg_type"] == "execute_result"]
    assert set(result) == {"text/plain", "text/html"}
    assert "3 of 3 rows" in result["text/html"]
    assert cell.displays() == []
    assert kernel.said("comm_open") == []


def test_a_voiceprint_tells_all_but_itself():
    text = "hosted-" * 40
    shown = bundle(Voiceprint(text, 3.42, "Short <clip>."))
    assert shown["text/plain"] == "<Voiceprint of 3.4 s: Short <clip>.>"
    assert "of 3.4 s" in shown["text/html"]
    assert "Short &lt;clip&gt;." in shown["text/html"]
    assert "hosted" not in str(shown)
    assert bundle(Voiceprint(text, 3.42))["text/plain"] == "<Voiceprint of 3.4 s>"


def test_pandas_cuts_voiceprints_off_before_they_tell_anything(manifest, tmp_path):
    out = vp.voiceprints(manifest[:2], data_dir=tmp_path, **LOCAL)
    for text in out["voiceprint"]:
        record = decode_voiceprint(text)
        told = (len(text) - len(record.vector) * 4 // 3) + 16  # the head, and less than four of 256 numbers
        for shown in (out._repr_html_(), repr(out), repr(out["voiceprint"])):
            assert text[:told] not in shown
            assert text[-told:] not in shown


def test_links_in_a_check_are_the_users_own_cells_only():
    secret = "signature-0f3a"  # noqa: S105 - of nothing
    out = vp.check([f"http://127.0.0.1:9/a.wav?{secret}"], progress=False)
    assert out.vp_status.tolist() == ["invalid"]
    assert secret not in out.drop(columns="audio").to_csv()
