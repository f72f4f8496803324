"""The picker in JupyterLab: a clip is chosen, seen and heard, and its window moved with the keyboard."""

from __future__ import annotations

import re

from tests.notebook.recordings import SAMPLES, write_meeting

# The knobs of noUiSlider, which ipywidgets' sliders are made of, have no name, and no trait gives them one.
# Those who need names have the labelled fields below the sliders, which do the same.
NAMELESS_KNOBS = re.compile(r'serious aria-input-field-name: .* <div class="noUi-handle ')


def test_the_window_that_is_chosen_by_keyboard_is_in_the_frame(open_notebook, picture, faults, server):
    from playwright.sync_api import expect

    clips = [SAMPLES / "ada-1.wav", write_meeting(server.root / "meeting.wav"), SAMPLES / "empty.wav"]
    cells = [
        f"import voiceprint_nb as vp\npicker = vp.Picker({list(map(str, clips))})\npicker",
        "print(picker.frame[['start_s', 'end_s']].values.tolist())",
    ]
    notebook = open_notebook("picker.ipynb", cells)
    picker = notebook.cell(0).locator(".jp-Cell-outputArea")
    status = picker.get_by_role("status").first
    notebook.run(0)
    expect(picker).to_contain_text("3 clips: 1 ok, 1 too long, 1 cannot be used")
    picker.get_by_role("button", name="Next").press("Enter")
    expect(status).to_contain_text("It lasts 1:40.0")
    waveform = picker.get_by_role("img", name="Around the window of meeting.wav, 1:40.0; proposed: 1:05.9 to")
    expect(waveform).to_be_visible()

    start, end = (picker.get_by_role("spinbutton", name=name) for name in ("Start (s)", "End (s)"))
    start.fill("62.5")
    start.press("Enter")
    expect(end).to_have_value("92.5")
    knob = picker.get_by_role("slider").nth(1)
    knob.press("ArrowLeft")
    expect(status).to_contain_text("1:02.5 to 1:32.4 is used, 29.9 s.")
    expect(end).to_have_value("92.4")
    player = picker.get_by_label("The window, as it is used")
    expect(player).to_have_js_property("duration", 29.9)
    notebook.run(1)
    expect(notebook.cell(1)).to_contain_text("[[nan, nan], [62.5, 92.4], [nan, nan]]")

    for theme in ("Dark", "Light"):
        notebook.theme(f"JupyterLab {theme}")
        picture(picker, f"picker-{theme.lower()}")
        assert [fault for fault in faults(picker) if not NAMELESS_KNOBS.match(fault)] == []
