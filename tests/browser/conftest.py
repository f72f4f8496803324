"""A real JupyterLab and Notebook 7 with this environment's kernel, and the system's Chromium.

Pictures go to the folder that ``VOICEPRINT_NB_PICTURES`` names, by default to pytest's temporary one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
AXE = REPOSITORY / "tests" / "node_modules" / "axe-core" / "axe.min.js"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DEADLINE_S = 60.0
TRIES = 4
SETTINGS = {  # no news from outside; all cells are drawn, also those out of sight
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
OPTIONS = (
    "--no-browser",
    "--allow-root",
    "--expose-app-in-browser",
    "--ServerApp.ip=127.0.0.1",
    "--ServerApp.port_retries=0",
    "--LabApp.extension_manager=readonly",
)
HAS_KERNEL = """\
async path => {
  const sessions = await (await fetch("/api/sessions")).json();
  const kernel = sessions.find(session => session.path === path)?.kernel;
  return kernel?.connections > 0 && kernel.execution_state === "idle";
}"""
FLAGS = (
    "--no-sandbox",  # which needs rights that containers do not give
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@dataclass(frozen=True)
class Server:
    """A running JupyterLab: notebooks lie in `root`."""

    url: str
    token: str
    root: Path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    _chromium()
    home, root, token = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("lab"), secrets.token_hex()
    log = home / "server.log"
    options = [*OPTIONS, f"--ServerApp.root_dir={root}", f"--ServerApp.port={_free_port()}"]
    command = [sys.executable, "-m", "jupyterlab", *options]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=_environment(home, token), stdout=output, stderr=subprocess.STDOUT
        )
    try:
        url = _await_line(process, log, r"(http://127\.0\.0\.1:\d+)/lab\?token")
        yield Server(url, token, root)
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        process.kill()
        process.wait()


def _free_port() -> int:
    """Chosen here: two servers that start together and look for one themselves take the same."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment(home: Path, token: str) -> dict[str, str]:
    """Nothing of the user's: neither settings nor key nor ledger."""
    for name, values in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "VOICEPRINT", "PYANNOTEAI"))}
    return {
        **kept,
        "HOME": str(home),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTER_TOKEN": token,
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "VOICEPRINT_NB_DATA_DIR": str(home / "user-data"),
    }


def _await_line(process: subprocess.Popen[bytes], log: Path, pattern: str) -> str:
    deadline_s = time.monotonic() + DEADLINE_S
    while not (found := re.search(pattern, log.read_text())):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline_s, log.read_text()
        time.sleep(0.02)
    return found[1]


def _chromium() -> str:
    for name in BROWSERS:
        if (path := shutil.which(name)) is not None:
            return path
    return pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for a module: other tests have loops of their own, which Playwright's would stand in."""
    path = _chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1000, "height": 900})
    context.set_default_timeout(DEADLINE_S * 1000)
    yield context.new_page()
    context.close()


@pytest.fixture
def picture(tmp_path: Path) -> Callable[[Any, str], Path]:
    """Keeps what an element looks like."""
    folder = Path(os.environ.get("VOICEPRINT_NB_PICTURES", tmp_path))

    def take(element: Any, name: str) -> Path:
        path = folder / f"{name}.png"
        element.screenshot(path=path)
        return path

    return take


@pytest.fixture
def faults() -> Callable[[Any], list[str]]:
    """What axe finds serious in an element and below it."""
    if not AXE.exists():
        pytest.skip("no axe-core: npm ci --prefix tests")
    source = AXE.read_text(encoding="utf-8")

    def find(element: Any) -> list[str]:
        page = element.page
        if not page.evaluate("'axe' in window"):
            page.evaluate(source)
        found = element.evaluate("async element => (await axe.run(element)).violations")
        return [
            f"{fault['impact']} {fault['id']}: {fault['help']} {node['html']} {node['failureSummary']}"
            for fault in found
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]
        ]

    return find


class Notebook:
    """A notebook that is open in JupyterLab, or in Notebook 7."""

    def __init__(self, page: Any, server: Server, name: str, *, seven: bool = False) -> None:
        self.page, self.path, self._seven = page, server.root / name, seven
        place = "notebooks" if seven else "lab/tree"
        self._address = f"{server.url}/{place}/{name}?reset&token={server.token}"

    def open(self) -> None:
        self.page.goto(self._address)
        self._wait_until_ready()
        if not self._seven:
            self.page.keyboard.press("Control+b")  # the list of files makes way
            self.page.locator(".jp-FileBrowser").wait_for(state="hidden")

    def reload(self) -> None:
        self.page.reload()
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        from playwright.sync_api import expect

        if self._seven:  # which shows an idle kernel for a moment before it has one, and then drops cells
            self.page.wait_for_function(HAS_KERNEL, arg=self.path.name)
            self.page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").first.wait_for()
            return
        status = self.page.locator("#jp-main-statusbar")
        expect(status).to_contain_text("Python 3 (ipykernel) | Idle", timeout=DEADLINE_S * 1000)

    def cell(self, index: int) -> Any:
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(index)

    def run(self, index: int) -> None:
        """Run a cell, without waiting for its end."""
        self.cell(index).locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")

    def begin(self) -> None:
        """Run the first cell to its end, again where it is dropped: Notebook 7 does so when it is slow."""
        from playwright.sync_api import expect

        prompt = self.cell(0).locator(".jp-InputPrompt").first
        for _ in range(TRIES):
            self.run(0)
            with contextlib.suppress(AssertionError):
                expect(prompt).to_have_text(re.compile(r"\[\d+\]:"), timeout=DEADLINE_S * 1000 / TRIES)
                return
        pytest.fail(f"the first cell does not run: {prompt.inner_text()}")

    def menu(self, *names: str) -> None:
        self.page.get_by_role("menuitem", name=names[0], exact=True).click()
        self.page.get_by_role("menuitem", name=names[1]).first.click()

    def theme(self, name: str) -> None:
        self.page.evaluate(
            "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", name
        )
        dark = "false" if "Dark" in name else "true"
        self.page.wait_for_selector(f"body[data-jp-theme-light={dark}]", state="attached")
        self.page.locator("#jupyterlab-splash").wait_for(state="detached")

    def save(self) -> nbformat.NotebookNode:
        """Save with the keys that people use; the notebook as it then lies on the disk."""
        with self.page.expect_response(
            lambda response: response.request.method == "PUT" and "/api/contents/" in response.url
        ):
            self.page.keyboard.press("Control+s")
        return nbformat.read(self.path, as_version=4)


@pytest.fixture
def open_notebook(page: Any, server: Server) -> Callable[..., Notebook]:
    """Opens a notebook of these cells."""

    def open_(name: str, notebook: nbformat.NotebookNode | list[str], *, seven: bool = False) -> Notebook:
        if isinstance(notebook, list):
            cells = [nbformat.v4.new_code_cell(source) for source in notebook]
            notebook = nbformat.v4.new_notebook(cells=cells)
        notebook.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        path = server.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)
        opened = Notebook(page, server, name, seven=seven)
        opened.open()
        return opened

    return open_
