"""The shared description of the batch API, cut down to what the service implements."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

ABSENT = ("/v1/identify", "/v1/diarize", "/v1/live")
_ABSENT_JOBS = ("#/components/schemas/IdentifyJob", "#/components/schemas/DiarizationJob")


def contract_path() -> Path:
    """Where the shared ``openapi.json`` is, if it is at hand."""
    named = os.environ.get("VOICEPRINT_NB_CONTRACT")
    root = Path(__file__).resolve().parents[1]
    return Path(named) if named else root.parent / "shared" / "contract" / "openapi.json"


def implemented() -> dict[str, Any]:
    """The document without identification, diarization and streaming."""
    document: dict[str, Any] = json.loads(contract_path().read_text())
    document["paths"] = {
        path: item for path, item in document["paths"].items() if not path.startswith(ABSENT)
    }
    answer = document["paths"]["/v1/jobs/{jobId}"]["get"]["responses"]["200"]["content"]["application/json"]
    branches = answer["schema"]["anyOf"]
    answer["schema"]["anyOf"] = [branch for branch in branches if branch["$ref"] not in _ABSENT_JOBS]
    for name in ("identifySucceeded", "diarizeSucceeded"):
        del answer["examples"][name]
    # The contract takes null for the model, and says so by "nullable", but its enum lacks the null; read
    # strictly, OpenAPI 3.0.3 then forbids it.
    model = document["components"]["schemas"]["VoiceprintRequest"]["properties"]["model"]
    model["enum"] = [*model["enum"], None]
    return document
