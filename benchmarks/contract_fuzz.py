"""Thousands of requests made from the descriptions of the API; every answer must keep to them.

::

    python -m benchmarks.contract_fuzz [--cases 2000] [--seed 1]

Does what ``tests/service/test_schemathesis.py`` does with few cases: serves, then runs all phases and checks
of schemathesis, first from the shared contract where it is at hand, then from the own description.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from tests.fuzzing import OPTIONS, Fuzzed, fuzz, with_known
from tests.served import Served, serving
from tests.shared_contract import contract_path, implemented


def descriptions(served: Served) -> dict[str, dict[str, Any]]:
    """The documents to test against, by name."""
    documents = {"shared contract": implemented()} if contract_path().exists() else {}
    own = httpx.get(f"{served.base_url}/openapi.json").raise_for_status().json()
    documents |= {"own description": own}
    return {name: with_known(document, served) for name, document in documents.items()}


def until(n_cases: int, document: dict[str, Any], served: Served, folder: Path, *, seed: int) -> list[Fuzzed]:
    """Runs of one seed after another until so many requests were sent."""
    per_operation = -(-n_cases // len(document["paths"]))
    runs: list[Fuzzed] = []
    while sum(run.cases for run in runs) < n_cases:
        number = len(runs)
        target = folder / str(number)
        runs.append(fuzz(document, served, target, max_examples=per_operation, seed=seed + number))
        if runs[-1].findings:
            print(runs[-1].text)
            break
    return runs


def main() -> int:
    """Run and print; exit status 1 when something was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=2000, help="requests for each description")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    n_findings = 0
    with (
        tempfile.TemporaryDirectory() as temporary,
        serving(Path(temporary) / "data", *OPTIONS) as served,
    ):
        for name, document in descriptions(served).items():
            folder = Path(temporary) / name.replace(" ", "-")
            folder.mkdir()
            runs = until(arguments.cases, document, served, folder, seed=arguments.seed)
            found = [finding for run in runs for finding in run.findings]
            n_cases, duration_s = sum(run.cases for run in runs), sum(run.duration_s for run in runs)
            print(f"{name}: {n_cases} requests, {len(found)} findings, {duration_s:.0f} s", flush=True)
            n_findings += len(found)
    return 1 if n_findings else 0


if __name__ == "__main__":
    sys.exit(main())
