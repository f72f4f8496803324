from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from openapi_schema_validator import OAS30Validator, oas30_format_checker

from tests.service.parts import Bureau, Receiver
from tests.shared_contract import contract_path
from voiceprint_nb.service.local import LocalService

Clip = Callable[..., Path]


@pytest.fixture(scope="session")
def conforms() -> Callable[[httpx.Response, str], None]:
    """Checks an answer against what the contract declares for an operation and status."""
    path = contract_path()
    if not path.exists():
        pytest.skip("the contract file is not at hand")
    document = json.loads(path.read_text())

    def check(answer: httpx.Response, operation: str) -> None:
        method, route = operation.split()
        declared = document["paths"][route][method.lower()]["responses"][str(answer.status_code)]
        if "$ref" in declared:
            declared = document["components"]["responses"][declared["$ref"].rpartition("/")[2]]
        schema = declared["content"]["application/json"]["schema"]
        schema = {"allOf": [schema], "components": document["components"]}
        OAS30Validator(schema, format_checker=oas30_format_checker).validate(answer.json())

    return check


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    """Writes a short clip that sounds: harmonics of a voice's pitch under a syllable-like envelope."""

    def write(
        name: str = "clip.wav", *, duration_s: float = 1.0, pitch_hz: float = 130.0, **options: Any
    ) -> Path:
        rate_hz = 16_000
        t = np.arange(round(duration_s * rate_hz)) / rate_hz
        voice = sum(np.sin(2 * np.pi * pitch_hz * k * t) / k for k in range(1, 12))
        noise = np.random.default_rng(7).normal(size=len(t))
        samples = 0.1 * (voice + 0.2 * noise) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * t))
        path = tmp_path / name
        soundfile.write(path, samples, rate_hz, **options)
        return path

    return write


@pytest.fixture(scope="session")
def service() -> Iterator[LocalService]:
    with LocalService(threads=1) as local:
        yield local


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        yield server


@pytest.fixture
def bureau(tmp_path: Path, receiver: Receiver) -> Iterator[Bureau]:
    """Desks, closed before the receiver is."""
    desks = Bureau(tmp_path)
    yield desks
    desks.close()
