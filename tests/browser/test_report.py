"""A report in a browser: pages that are folded on the screen are all on paper."""

from __future__ import annotations

import pandas as pd
import pytest
from voices import frame_of

import voiceprint_nb as vp

ARE_SEEN = "pages => pages.map(page => page.querySelector('table').checkVisibility())"


@pytest.fixture
def address(tmp_path):
    out = frame_of(300, 4, seed=0).assign(vp_status="succeeded", number=range(1200))
    wide = pd.DataFrame({f"text_{number}": out["number"].astype(str) for number in range(8)})
    return vp.report(pd.concat([out, wide], axis=1), tmp_path / "report.html").as_uri()


def test_folded_rows_are_printed(page, address, picture):
    page.goto(address)
    pages = page.locator("details")
    assert pages.evaluate_all(ARE_SEEN) == [True, False, False]
    page.emulate_media(media="print")
    assert pages.evaluate_all(ARE_SEEN) == [True, True, True]
    assert pages.last.bounding_box()["height"] > 200 * 10  # rows
    picture(pages.last, "report-printed")


def test_it_is_read_by_everybody(page, address, faults):
    page.goto(address)
    assert faults(page.locator("main")) == []
