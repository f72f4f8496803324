"""The panel as HTML, and which view is chosen; the live widget is tested in kernels."""

from __future__ import annotations

import io
import sys
from html.parser import HTMLParser

import pytest

from voiceprint_nb.batch.meters import BarMeter, LineMeter
from voiceprint_nb.batch.progress import END_STATES, LIVE_STATES, Snapshot
from voiceprint_nb.notebook import views
from voiceprint_nb.notebook.widgets import PanelMeter, StillMeter, as_html

HERE = "Service: local, in this process. The audio stays on this machine."


def snapshot(counts=None, *, n_rows=None, problems=(), ended=False, **options):
    counts = {"succeeded": 3} if counts is None else counts
    rows = sum(counts.values()) if n_rows is None else n_rows
    values = {
        "title": "voiceprints",
        "destination": HERE,
        "elapsed_s": 2.0,
        "waiting_for_limit": 0,
        **options,
    }
    return Snapshot(n_rows=rows, counts=counts, problems=problems, ended=ended, **values)


class Page(HTMLParser):
    """Tags must close in order; collects text and attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.bar = [], "", {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if ("role", "progressbar") in attrs:
            self.bar = dict(attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("state", [*END_STATES, *LIVE_STATES])
@pytest.mark.parametrize("ended", [False, True])
def test_every_state_is_told_in_words(state, ended):
    page = Page(as_html(snapshot({state: 2}, ended=ended)))
    assert f"2 {state}" in page.text
    assert HERE in page.text


def test_the_bar_speaks_to_screen_readers():
    page = Page(as_html(snapshot({"succeeded": 300, "running": 100, "queued": 600}, elapsed_s=30.0)))
    assert page.bar["aria-valuenow"] == "300"
    assert (page.bar["aria-valuemin"], page.bar["aria-valuemax"]) == ("0", "1000")
    assert page.bar["aria-label"] == "voiceprints: 300 of 1000 rows"
    assert "10.0 rows/s, 63 s to 79 s left" in page.text


def test_no_rows():
    page = Page(as_html(snapshot({}, ended=True, elapsed_s=0.0)))
    assert "0 of 0 rows" in page.text


def test_sentences_are_escaped():
    evil = "<script>alert('x')</script>\" onload=x &"
    panel = as_html(
        snapshot(problems=((evil, 2, evil),), title=evil, destination=evil, stopped_by=evil, ended=True)
    )
    page = Page(panel)
    assert "<script" not in panel
    assert page.text.count(evil) == 5
    assert page.bar["aria-label"].startswith(evil)


def test_problems_are_cut_and_say_so():
    problems = tuple((f"code_{n}", 1, "said") for n in range(11))
    text = Page(as_html(snapshot(problems=problems))).text
    assert "code_7" in text
    assert "code_8" not in text
    assert "and 3 more" in text


def test_waiting_and_stopping_are_told():
    facts = {"waiting_for_limit": 4, "stopped_by": "The key was refused.", "limits": {"submit": (37, 100)}}
    text = Page(as_html(snapshot({"uploading": 6}, **facts))).text
    assert "4 waiting for the limit" in text
    assert "2 uploading" in text
    assert "This minute: 37 of 100 submissions" in text
    assert "Stopped: The key was refused." in text


class Seen:
    def __init__(self, *, fails=False):
        self.shown, self.fails = [], fails

    def show(self, shown):
        if self.fails:
            raise OSError("the front end is gone")
        self.shown.append(shown)


def test_views_are_drawn_five_times_a_second_and_end_once():
    now_s, seen = [0.0], Seen()
    meter = views.Paced(seen, clock=lambda: now_s[0])
    for n in range(101):
        now_s[0] = n / 100
        meter.show(snapshot())
    assert len(seen.shown) in (5, 6)
    for _ in range(3):
        meter.show(snapshot(ended=True))
    meter.show(snapshot())
    assert [shown.ended for shown in seen.shown[-2:]] == [False, True]


def test_a_view_that_fails_is_given_up_in_one_sentence(capsys):
    meter = views.Paced(Seen(fails=True))
    meter.show(snapshot())
    meter.show(snapshot(ended=True))
    assert capsys.readouterr().err == "Progress cannot be shown here (OSError); the run goes on.\n"


def test_outside_kernels_the_destination_is_told_once(capsys):
    meter = views.meter_for(True, HERE)
    meter.show(snapshot(ended=True))
    meter.show(snapshot(ended=True))
    assert capsys.readouterr().err == f"{HERE}\n{snapshot(ended=True)}\n"


def test_without_progress_the_destination_is_still_told(capsys):
    assert views.meter_for(False, HERE) is None
    assert views.meter_for(False, HERE, version=lambda: (7, 4)) is None
    assert views.meter_for(False, "") is None
    assert capsys.readouterr().err == f"{HERE}\n{HERE}\n"


def test_check_says_nothing_about_a_destination(capsys):
    assert isinstance(views.meter_for(True, "")._meter, LineMeter)
    assert capsys.readouterr().err == ""


def test_terminals_get_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    meter = views.meter_for(True, HERE)
    assert isinstance(meter._meter, BarMeter)
    meter.show(snapshot({"succeeded": 1, "queued": 1}))
    meter.show(snapshot(ended=True))
    assert sys.stderr.getvalue().endswith(f"{snapshot(ended=True)}\n")


@pytest.mark.parametrize("version", [(6, 31), (7, 1), (7, 4), (8, 0), ()])
def test_kernels_get_the_panel(version, capsys):
    meter = views.meter_for(True, HERE, version=lambda: version)
    assert isinstance(meter._meter, PanelMeter)
    assert capsys.readouterr().err == ""


def test_the_kernel_that_loses_updates_gets_no_widgets_and_one_sentence(capsys):
    meter = views.meter_for(True, HERE, version=lambda: (7, 0))
    assert isinstance(meter._meter, StillMeter)
    (trouble,) = capsys.readouterr().err.splitlines()
    assert "upgrade to 7.1" in trouble


def test_this_is_no_kernel():
    assert views.kernel_version() is None


def test_colab_gets_text_where_it_would_show_no_widgets(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    assert "ipywidgets<8" in views.kernel_trouble((6, 17))
    monkeypatch.setattr(views.metadata, "version", lambda name: "7.7.1")
    assert views.kernel_trouble((6, 17)) is None
