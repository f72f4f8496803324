"""In real kernels: queued cells, interrupts, running loops, the panel."""

from __future__ import annotations

import time

import nbformat
import pytest
from nbclient import NotebookClient

from voiceprint_nb.contract import decode_voiceprint

VIEW = "application/vnd.jupyter.widget-view+json"


def ends(kernel):
    return [m["content"] for m in kernel.said("update_display_data")]


def test_nine_cells_queued_behind_a_blocking_call_all_run(kernel):
    ids = [kernel.send("out = vp.voiceprints(noises(40, 1), service='local', data_dir=place)")]
    ids += [kernel.send(f"ran_{n} = {n}; print('cell', {n}, len(out))") for n in range(9)]
    cells = kernel.collect(ids)
    assert [cell.status for cell in cells] == ["ok"] * 10
    assert [cell.text() for cell in cells[1:]] == [f"cell {n} 40\n" for n in range(9)]
    assert kernel.run("print(out.vp_status.value_counts().to_dict())").text() == "{'succeeded': 40}\n"


def test_interrupt_ends_a_blocking_call_at_once_and_resume_completes_it(kernel):
    running = kernel.send("vp.voiceprints(noises(400, 2), service='local', data_dir=place)")
    kernel.until(kernel.shows_work)
    kernel.manager.interrupt_kernel()
    (cell,) = kernel.collect([running])
    assert (cell.status, cell.ename) == ("error", "KeyboardInterrupt")
    assert cell.took_s < 3
    assert cell.text("stderr").count("Stopped.") == 1
    assert "of 400 rows are finished; resume goes on with run" in cell.text("stderr")
    left = kernel.run("print(tasks())").text()
    assert "voiceprint_nb" not in left
    assert not any(name in left for name in ("Session", "Batch", "Waiter", "ticking")), left
    assert kernel.open_widgets() == set()
    assert "canceled" in ends(kernel)[-1]["data"]["text/html"]

    said = kernel.run(
        "out = vp.resume(data_dir=place); print(out.vp_source.value_counts().to_dict(), len(out))"
    )
    counts, n_rows = said.text().rsplit(" ", 1)
    assert int(n_rows) == 400
    assert "reused" in counts  # rows in memory are gone: those that were finished come from the ledger


def test_interrupt_before_any_row_leaves_nothing_behind(kernel):
    running = kernel.send("print('on'); vp.voiceprints(noises(400, 3), service='local', data_dir=place)")
    kernel.until(lambda: any(m["content"].get("text") == "on\n" for m in kernel.said("stream")))
    kernel.manager.interrupt_kernel()
    (cell,) = kernel.collect([running])
    assert (cell.ename, cell.took_s < 3) == ("KeyboardInterrupt", True)
    assert "voiceprint_nb" not in kernel.run("print(tasks())").text()


def test_await_in_a_cell(kernel):
    cell = kernel.run(
        "run = vp.submit(noises(30, 4), service='local', data_dir=place)\n"
        "ticks = 0\n"
        "async def other():\n"
        "    global ticks\n"
        "    while not run.done:\n"
        "        ticks += 1\n"
        "        await asyncio.sleep(0.01)\n"
        "beside = asyncio.ensure_future(other())\n"
        "out = await run\n"
        "await beside\n"
        "print(len(out), ticks > 3, set(out.vp_status))"
    )
    assert cell.text() == "30 True {'succeeded'}\n", cell.reply["content"]


def test_interrupt_of_an_awaiting_cell_stops_the_run(kernel):
    running = kernel.send("run = vp.submit(noises(400, 5), service='local', data_dir=place)\nawait run")
    kernel.until(kernel.shows_work)
    kernel.manager.interrupt_kernel()
    (cell,) = kernel.collect([running])
    assert cell.status == "error"
    assert cell.took_s < 3
    assert kernel.run("print(run.result(timeout_s=5).vp_status.nunique() > 1)").text() == "True\n"
    assert "voiceprint_nb" not in kernel.run("print(tasks())").text()


def test_blocking_verb_inside_a_coroutine_of_a_cell(kernel):
    cell = kernel.run(
        "async def work():\n"
        "    await asyncio.sleep(0)\n"
        "    return vp.voiceprints(noises(5, 6), service='local', data_dir=place)\n"
        "print(len(await work()))"
    )
    assert cell.text() == "5\n", cell.reply["content"]


def test_panel_is_live_then_plain_html_and_leaves_no_widget(kernel):
    cell = kernel.run(
        "out = vp.voiceprints([*noises(150, 7), 'no-such-file.wav'], service='local', data_dir=place)"
    )
    assert (cell.text("stdout"), cell.text("stderr")) == ("", "")
    (display,) = cell.displays()
    assert VIEW in display["data"]
    assert display["data"]["text/plain"].startswith("voiceprints: ")
    (end,) = ends(kernel)
    assert end["transient"]["display_id"] == display["transient"]["display_id"]
    assert VIEW not in end["data"]
    assert "voiceprints: 151 of 151 rows" in end["data"]["text/html"]
    assert "150 succeeded" in end["data"]["text/html"]
    assert "file_not_found" in end["data"]["text/html"]
    assert "The audio stays on this machine." in end["data"]["text/html"]
    assert kernel.open_widgets() == set()
    assert len(kernel.panel_texts()) > 1


def test_panel_is_updated_at_most_five_times_a_second(kernel):
    kernel.run("out = vp.voiceprints(noises(150, 8), service='local', data_dir=place)")
    times = [m["header"]["date"] for m in kernel.said("comm_msg")]
    assert len(times) <= 5 * (times[-1] - times[0]).total_seconds() + 2


def test_nothing_that_is_published_holds_a_voiceprint(kernel):
    kernel.run("out = vp.voiceprints(noises(5, 9), service='local', data_dir=place)")
    kernel.run("run = vp.submit(noises(5, 9), service='local', data_dir=place); run.result(); run")
    kernel.run("vp.voiceprint(noises(1, 9)[0], service='local', data_dir=place)")
    published = str(kernel.heard)
    cell = kernel.run("print(out['voiceprint'][0])")
    text = cell.text().strip()
    assert len(decode_voiceprint(text).vector) == 1024
    assert text[:200] not in published
    assert text[-200:] not in published


def ends_of(kernel, display):
    """Plain contents that have taken the place of an output, in order."""
    same = [end for end in ends(kernel) if end["transient"] == display["transient"]]
    return [end["data"] for end in same if VIEW not in end["data"]]


def test_submit_has_a_cancel_button_and_then_one_to_retry(kernel):
    began_s = time.monotonic()
    cell = kernel.run("run = vp.submit(noises(400, 10), service='local', data_dir=place)")
    assert time.monotonic() - began_s < 2
    panel, actions = cell.displays()
    assert (VIEW in panel["data"], VIEW in actions["data"]) == (True, True)
    assert list(kernel.buttons()) == ["Cancel"]
    kernel.until(kernel.shows_work)
    kernel.click("Cancel")
    kernel.until(lambda: "Retry failed" in kernel.buttons())
    (end,) = ends_of(kernel, panel)
    assert "Canceled; submitted jobs go on" in end["text/html"]
    assert "resume(" in end["text/html"]
    assert (
        kernel.run("print(run.result(timeout_s=9)['voiceprint'].notna().any(), run.done)").text()
        == "True True\n"
    )
    kernel.click("Retry failed")
    kernel.until(lambda: bool(ends_of(kernel, actions)))
    assert "400 of 400 rows" in ends_of(kernel, panel)[-1]["text/html"]
    assert ends_of(kernel, actions) == [{"text/plain": "run.result() gives the frame."}]
    assert kernel.run("print(set(run.result().vp_status))").text() == "{'succeeded'}\n"


def test_show_draws_the_panel_again_and_both_end(kernel):
    kernel.run("run = vp.submit(noises(60, 11), service='local', data_dir=place, progress=False)")
    panel = kernel.run("run.show()").displays()[0]
    kernel.run("out = run.result()")
    assert len(ends_of(kernel, panel)) == (VIEW in panel["data"])  # it may have ended before it was shown
    (late,) = kernel.run("run.show()").displays()
    assert "60 of 60 rows" in late["data"]["text/html"]
    kernel.run("import gc; del run; gc.collect()")
    kernel.until(lambda: kernel.open_widgets() == set())


def test_nesting_is_refused_where_it_drops_cells(kernel):
    cell = kernel.run("vp.enable_nesting()", raises="UsageError")
    assert "drop queued cells" in cell.reply["content"]["evalue"]
    assert kernel.run("print(hasattr(asyncio, '_nest_patched'))").text() == "False\n"


def test_a_saved_notebook_shows_how_the_runs_ended(tmp_path):
    sources = [
        "import numpy as np, voiceprint_nb as vp",
        "rng = np.random.default_rng(12)",
        "clips = [(rng.normal(scale=0.1, size=32_000), 16_000) for _ in range(60)]",
        "out = vp.voiceprints(clips, service='local', ledger=False)",
        "run = vp.submit(clips[:30], service='local', ledger=False)",
        "out = run.result()",
        "checked = vp.check(clips[:5])",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for cell, title in zip(notebook.cells[3:], ("60 of 60", "30 of 30", None, "check: 5 of 5"), strict=True):
        if title is None:
            assert cell.outputs == []
            continue
        assert all(VIEW not in output.data for output in cell.outputs)
        assert title in cell.outputs[0].data["text/html"]


@pytest.mark.parametrize("how", ["script", "ipython"])
def test_outside_kernels_progress_is_text(how, tmp_path, run_python):
    code = (
        "import numpy as np, voiceprint_nb as vp; rng = np.random.default_rng(0); "
        "clips = [(rng.normal(scale=0.1, size=32_000), 16_000) for _ in range(3)]; "
        "out = vp.voiceprints(clips, service='local'); print(set(out.vp_status))"
    )
    done = run_python("-m", "IPython", "-c", code) if how == "ipython" else run_python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{'succeeded'}\n"
    destination, end = done.stderr.splitlines()
    assert destination == "Service: local, in this process. The audio stays on this machine."
    assert end.startswith("voiceprints: 3 of 3 rows (3 succeeded)")
