"""Older ipykernels and ipywidgets, each in a real kernel with packages of its own: queues, stops, clicks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernels import Kernel, opened_kernel

TRIES = 3  # the best one counts: the machine may be busy with other tests


def installed(folder: Path, *requirements: str) -> Path:
    """Packages beside the environment's own, found before them."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*command, "--target", str(folder), *requirements], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"{requirements[0]} cannot be installed here: {done.stderr[-200:]}")
    return folder


@pytest.fixture(scope="module", params=["6.31.0", "7.1.0"])
def old_kernel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    place = installed(tmp_path_factory.mktemp("ipykernel"), f"ipykernel=={request.param}")
    with opened_kernel(tmp_path_factory.mktemp("kernel"), {**os.environ, "PYTHONPATH": str(place)}) as kernel:
        told = kernel.run("import ipykernel; print(ipykernel.__version__)").text()
        assert told == f"{request.param}\n"
        yield kernel


def test_queued_cells_all_run(old_kernel: Kernel) -> None:
    old_kernel.forget()
    ids = [old_kernel.send("out = vp.voiceprints(noises(40, 1), service='local', data_dir=place)")]
    ids += [old_kernel.send(f"print('cell', {n}, len(out))") for n in range(9)]
    cells = old_kernel.collect(ids)
    assert [cell.text() for cell in cells[1:]] == [f"cell {n} 40\n" for n in range(9)]
    assert "40 of 40 rows" in old_kernel.said("update_display_data")[-1]["content"]["data"]["text/html"]
    assert old_kernel.open_widgets() == set()


def test_interrupt_within_half_a_second(old_kernel: Kernel) -> None:
    took_s = []
    for seed in range(TRIES):
        old_kernel.forget()
        running = old_kernel.send(
            f"vp.voiceprints(noises(400, {seed + 20}), service='local', data_dir=place)"
        )
        old_kernel.until(old_kernel.shows_work)
        old_kernel.manager.interrupt_kernel()
        (cell,) = old_kernel.collect([running])
        assert cell.ename == "KeyboardInterrupt"
        took_s.append(cell.took_s)
        assert "voiceprint_nb" not in old_kernel.run("print(tasks())").text()
    assert min(took_s) < 0.5


def test_click_on_cancel_is_handled_at_once_while_no_cell_runs(old_kernel: Kernel) -> None:
    took_s = []
    for seed in range(TRIES):
        old_kernel.forget()
        old_kernel.run(
            f"run = vp.submit(noises(400, {seed + 40}), service='local', data_dir=place)\n"
            "heard, real = [], run._session.tally.stop\n"
            "run._session.tally.stop = lambda said: (heard.append(time.time()), real(said))\n"
        )
        old_kernel.until(old_kernel.shows_work)
        clicked_at = time.time()
        old_kernel.click("Cancel")
        old_kernel.until(lambda: bool(old_kernel.said("update_display_data")))
        old_kernel.run("run.result(timeout_s=9)")
        took_s.append(float(old_kernel.run("print(heard[0])").text()) - clicked_at)
    assert min(took_s) < 0.1


def test_the_ipywidgets_that_colab_has(tmp_path: Path) -> None:
    place = installed(tmp_path / "packages", "ipywidgets==7.7.1", "ipython_genutils")
    with opened_kernel(tmp_path, {**os.environ, "PYTHONPATH": str(place)}) as kernel:
        assert kernel.run("import ipywidgets; print(ipywidgets.__version__)").text() == "7.7.1\n"
        kernel.run("run = vp.submit(noises(400, 60), service='local', data_dir=place)")
        kernel.until(kernel.shows_work)
        kernel.click("Cancel")
        kernel.until(lambda: "Retry failed" in kernel.buttons())
        kernel.run(
            "picker = vp.Picker()\n"
            "for n in (1, 2):\n"
            "    sent = {'metadata': [{'name': 'a.wav'}], 'data': [memoryview(b'RIFF')], '_counter': n}\n"
            "    picker._view.upload.set_state(sent)\n"
        )
        told = kernel.run("print(picker.frame[['audio', 'name']].values.tolist())").text()
        assert told == "[[b'RIFF', 'a.wav'], [b'RIFF', 'a.wav']]\n"
