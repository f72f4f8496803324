"""The service keeps to the shared contract and to its own description, whatever is sent to it."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tests.fuzzing import NOWHERE, OPTIONS, before_call, fuzz, to_nowhere, with_known
from tests.served import Served, serving
from tests.shared_contract import contract_path, implemented
from voiceprint_nb.contract import is_job_url, is_webhook_url


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("fuzzed") / "data", *OPTIONS) as served:
        yield served


def shared(served: Served) -> dict[str, Any]:
    if not contract_path().exists():
        pytest.skip("the contract file is not at hand")
    return implemented()


def own(served: Served) -> dict[str, Any]:
    document: dict[str, Any] = httpx.get(f"{served.base_url}/openapi.json").raise_for_status().json()
    return document


@pytest.mark.parametrize("description", [shared, own])
def test_answers_keep_to_the_description(
    served: Served, tmp_path: Path, description: Callable[[Served], dict[str, Any]]
) -> None:
    document = with_known(description(served), served)
    fuzzed = fuzz(document, served, tmp_path / "run", max_examples=8)
    assert not fuzzed.findings, fuzzed.text
    assert fuzzed.cases > 200
    assert not fuzzed.unaccepted
    assert re.search("[1-9][0-9]* covered", fuzzed.text)


@pytest.mark.parametrize("rest", ["a", "203.0.113.7", "203.0.113.7/clip.wav", "h" * 4088])
def test_nothing_of_these_requests_is_on_the_network(rest: str) -> None:
    for accepts, address in ((is_job_url, f"https://{rest}"), (is_webhook_url, f"http://{rest[:2041]}")):
        assert accepts(address)
        assert accepts(to_nowhere(address))
        assert to_nowhere(address).partition("://")[2].startswith(NOWHERE)


def test_only_accepted_addresses_are_replaced() -> None:
    kept = {"webhook": "http://203.0.113.7 b", "n": "http://203.0.113.7/"}
    case = SimpleNamespace(body=kept | {"url": "http://203.0.113.7/"})
    before_call(None, case, {})
    assert case.body == kept | {"url": f"http://{NOWHERE}"}
    for body in ({"url": "media://a.wav"}, {"url": 5}, ["http://203.0.113.7/"], None):
        case = SimpleNamespace(body=copy.copy(body))
        before_call(None, case, {})
        assert case.body == body
