"""Requests that schemathesis makes from a description, sent to a served instance; all checks, all phases.

Run as a script, it is the schemathesis command with one thing added: nothing that a job or webhook of these
requests names is on the network.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.served import DEADLINE_S, Served
from voiceprint_nb.contract import TERMINAL_STATUSES, is_job_url, is_webhook_url

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = ("--plain-webhooks", "--writes-per-minute", "0", "--reads-per-minute", "0")
PHASES = ("examples", "coverage", "fuzzing", "stateful")
RAN = ("success", "failure")  # of a phase that was not skipped
MOST_S = 1800.0
KNOWN = {"url": "media://known.wav"}
NOWHERE = "127.0.0.1:9/"  # the discard port: nobody listens


@dataclass(frozen=True)
class Fuzzed:
    """What came of a run.

    Attributes
    ----------
    cases : int
        Requests sent.
    findings : list of str
        Failed checks and errors; empty when all is well.
    unaccepted : list of str
        Operations of which no valid request was accepted.
    text : str
        What schemathesis printed, with a request for each finding that shows it again.
    """

    cases: int
    findings: list[str]
    unaccepted: list[str]
    duration_s: float
    text: str = field(repr=False)


def with_known(document: dict[str, Any], served: Served) -> dict[str, Any]:
    """Make an upload and a finished job, and name them in the document's examples."""
    clip = (ROOT / "data" / "samples" / "ada-1.wav").read_bytes()
    with httpx.Client(base_url=served.base_url, headers={"Authorization": f"Bearer {served.key}"}) as client:
        httpx.put(client.post("/v1/media/input", json=KNOWN).json()["url"], content=clip).raise_for_status()
        job_id = client.post("/v1/voiceprint", json=KNOWN).json()["jobId"]
        deadline_s = time.monotonic() + DEADLINE_S
        while client.get(f"/v1/jobs/{job_id}").json()["status"] not in TERMINAL_STATUSES:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
    document = copy.deepcopy(document)
    for path in ("/v1/media/output", "/v1/voiceprint"):
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        content.setdefault("examples", {})["known"] = {"value": KNOWN}
    (parameter,) = document["paths"]["/v1/jobs/{jobId}"]["get"]["parameters"]
    parameter["example"] = job_id
    return document


def fuzz(
    document: dict[str, Any], served: Served, folder: Path, *, max_examples: int, seed: int = 1
) -> Fuzzed:
    """Run all phases with so many examples for each operation; `folder` takes what schemathesis writes."""
    folder.mkdir(mode=0o700)
    (folder / "openapi.json").write_text(json.dumps(document))
    (folder / "schemathesis.toml").write_text(_settings(document, served.key))
    command = [sys.executable, "-m", "tests.fuzzing", "--config-file", str(folder / "schemathesis.toml")]
    command += ["run", str(folder / "openapi.json"), "--url", served.base_url, "--no-color"]
    command += ["--checks", "all", "--phases", ",".join(PHASES), "--continue-on-failure"]
    command += ["--max-examples", str(max_examples), "--seed", str(seed), "--report", "json"]
    command += ["--report-json-path", str(folder / "report.json")]
    environment = os.environ | {"HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis")}
    ran = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=MOST_S, check=False
    )
    text = ran.stdout + ran.stderr
    assert (folder / "report.json").exists(), text
    return _read(json.loads((folder / "report.json").read_text()), text)


def _settings(document: dict[str, Any], key: str) -> str:
    (scheme,) = document["components"]["securitySchemes"]
    return f"""
suppress-health-check = ["all"]
auth.openapi.{json.dumps(scheme)}.bearer = {json.dumps(key)}
cache.enabled = false
generation.database = "none"
phases.examples.fill-missing = true
"""


def _read(report: dict[str, Any], text: str) -> Fuzzed:
    findings = [f"{found['title']}: {', '.join(found['operations'])}" for found in report["failures"]]
    findings += [error["title"] for error in report["errors"]]
    told = {name: (report["phases"] or {}).get(name, {}) for name in PHASES}
    findings += [f"{name}: {said}" for name, said in told.items() if said.get("status") not in RAN]
    if report["exit_code"] and not findings:
        findings = [f"schemathesis ended with {report['exit_code']}"]
    accepted = {
        operation
        for operation, phases in report["valid_rates"].items()
        if any(counts["accepted"] for counts in phases.values())
    }
    unaccepted = sorted(report["valid_rates"].keys() - accepted)
    return Fuzzed(report["test_cases"]["generated"], findings, unaccepted, report["running_time"], text)


def to_nowhere(address: str) -> str:
    """The address with its host replaced, as long as before and as valid."""
    scheme, _, rest = address.partition("://")
    return address if scheme == "media" else f"{scheme}://{NOWHERE}{rest[len(NOWHERE) :]}"


def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Send accepted addresses nowhere: the service would fetch a stranger's URL and call his webhook."""
    if not isinstance(case.body, dict):
        return
    for name, is_accepted in (("url", is_job_url), ("webhook", is_webhook_url)):
        address = case.body.get(name)
        if isinstance(address, str) and is_accepted(address):
            case.body = {**case.body, name: to_nowhere(address)}


def main() -> None:
    """Run the schemathesis command with the hook."""
    import schemathesis
    from schemathesis.cli import schemathesis as command

    schemathesis.hook(before_call)
    command()


if __name__ == "__main__":
    main()
