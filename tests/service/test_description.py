from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_schema_validator import OAS30Validator

from tests.shared_contract import contract_path
from voiceprint_nb.contract import InvalidRequest, MediaRequest, VoiceprintRequest
from voiceprint_nb.service.description import describe

CONTRACT_PATHS = {
    "/v1/test",
    "/v1/media/input",
    "/v1/media/output",
    "/v1/voiceprint",
    "/v1/jobs/{jobId}",
    "/v2/jobs",
    "/v1/jobs",
}
OTHER_JOBS = {"IdentifyJob", "DiarizationJob", "IdentificationJobOutput", "DiarizationJobOutput"}
FACTS = {"type", "nullable", "format", "default", "pattern", "minLength", "maxLength", "minimum", "maximum"}
Json = dict[str, Any]


def operations(document: Json) -> Iterator[Json]:
    for methods in document["paths"].values():
        yield from methods.values()


def walked(node: object) -> Iterator[Json]:
    """Every object of a document."""
    if isinstance(node, dict):
        yield node
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in children:
        yield from walked(child)


def resolved(node: Json, document: Json) -> Json:
    while "$ref" in node:
        target: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


# --- against the contract -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def contract() -> Json:
    """The contract's document, without what only the hosted service has."""
    if not contract_path().exists():
        pytest.skip("the contract file is not at hand")
    document: Json = json.loads(contract_path().read_text())
    for operation in operations(document):
        del operation["responses"]["402"]  # nothing is paid here
    del document["paths"]["/v1/test"]["get"]["responses"]["403"]  # it takes no permission
    item = document["components"]["schemas"]["JobListItem"]
    item["properties"] = {name: item["properties"][name] for name in item["required"]}
    for node in walked(document):
        if "anyOf" in node:
            node["anyOf"] = [one for one in node["anyOf"] if one["$ref"].rpartition("/")[2] not in OTHER_JOBS]
    return document


def structure(schema: Json, document: Json) -> Json:
    """A schema without words and references."""
    schema = resolved(schema, document)
    for several in ("allOf", "anyOf"):
        if branches := [structure(branch, document) for branch in schema.get(several, [])]:
            return branches[0] if len(branches) == 1 else {several: branches}
    kept: Json = {name: value for name, value in schema.items() if name in FACTS}
    if "enum" in schema:
        kept["enum"] = {value for value in schema["enum"] if value is not None}  # nullable tells it
    if "items" in schema:
        kept["items"] = structure(schema["items"], document)
    if "properties" in schema:
        parts = schema["properties"].items()
        kept["properties"] = {name: structure(part, document) for name, part in parts}
        kept["required"] = set(schema.get("required", []))
    return kept


def contents(node: Json, document: Json) -> Json:
    content = resolved(node, document).get("content", {})
    return {kind: structure(media["schema"], document) for kind, media in content.items()}


def shape(operation: Json, document: Json) -> Json:
    """All that a client can trip over."""
    schemes = document["components"]["securitySchemes"]
    security = operation.get("security", document["security"])
    parameters = [resolved(one, document) for one in operation.get("parameters", [])]
    events = [event for named in operation.get("callbacks", {}).values() for event in named.items()]
    answers = {status: resolved(one, document) for status, one in operation["responses"].items()}
    return {
        "id": operation.get("operationId"),
        "deprecated": operation.get("deprecated", False),
        "security": [(schemes[name]["type"], schemes[name]["scheme"]) for one in security for name in one],
        "body": contents(operation.get("requestBody", {}), document),
        "parameters": {
            (one["in"], one["name"]): (one["required"], structure(one["schema"], document))
            for one in parameters
        },
        "events": [(address, shape(event["post"], document)) for address, event in events],
        "answers": {status: contents(one, document) for status, one in answers.items()},
        "headers": {status: set(one.get("headers", {})) for status, one in answers.items()},
        "links": [answer["links"] for answer in answers.values() if answer.get("links")],
    }


@pytest.mark.parametrize("path", sorted(CONTRACT_PATHS))
def test_operations_are_those_of_the_contract(path: str, contract: Json) -> None:
    ours = describe(plain_webhooks=True)
    assert ours["paths"][path].keys() == contract["paths"][path].keys()
    for method, operation in ours["paths"][path].items():
        assert shape(operation, ours) == shape(contract["paths"][path][method], contract)


# --- in itself ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"metrics": True}, {"keyed": False, "limits": (None, None)}])
def test_the_document_is_sound(options: Json) -> None:
    document = json.loads(json.dumps(describe(**options)))
    for node in walked(document):
        assert resolved(node, document) is not None
    for schema in document["components"]["schemas"].values():
        OAS30Validator.check_schema(schema)
    ids = [operation["operationId"] for operation in operations(document)]
    assert len(set(ids)) == len(ids)
    links = [link for node in walked(document) for link in node.get("links", {}).values()]
    assert {link["operationId"] for link in links} == {"getJobById"} <= set(ids)
    used = {node["$ref"] for node in walked(document) if "$ref" in node}
    for kind in ("schemas", "headers", "parameters"):
        assert {f"#/components/{kind}/{name}" for name in document["components"][kind]} <= used


def test_it_names_the_paths_that_there_are() -> None:
    assert describe()["paths"].keys() == {*CONTRACT_PATHS, "/health", "/openapi.json"}
    paths = describe(metrics=True)["paths"]
    assert paths.keys() == {*CONTRACT_PATHS, "/health", "/openapi.json", "/metrics"}
    answers = paths["/metrics"]["get"]["responses"]
    assert list(answers["200"]["content"]) == ["text/plain"]
    assert {"401", "403"} < answers.keys()
    assert paths["/health"]["get"]["security"] == paths["/openapi.json"]["get"]["security"] == []


def test_an_open_service_refuses_nobody() -> None:
    document = describe(keyed=False, metrics=True)
    assert "securitySchemes" not in document["components"]
    for operation in operations(document):
        assert operation["responses"].keys().isdisjoint({"401", "403"})
    assert not any("security" in node or "x-permission" in node for node in walked(document))


def test_limits_are_told_where_they_are() -> None:
    none = describe(limits=(None, None))
    refusing = [one["operationId"] for one in operations(none) if "429" in one["responses"]]
    assert refusing == ["voiceprint"]  # too many jobs may wait
    assert list(none["components"]["headers"]) == ["Retry-After"]
    assert not any("x-rate-limit" in operation for operation in operations(none))
    limited = {
        one["operationId"]: one["x-rate-limit"]["requests"]
        for one in operations(describe(limits=(7, 9)))
        if "x-rate-limit" in one
    }
    reads = {"getJobById", "getJobsByTeam", "getJobsByTeamV2"}
    assert limited.keys() - reads == {"testKey", "voiceprint", "getMediaUploadURL", "getMediaDownloadURL"}
    assert all(limit == (9 if name in reads else 7) for name, limit in limited.items())


def test_the_address_is_told_only_if_known() -> None:
    assert "servers" not in describe()
    assert describe(base_url="https://voices.example/")["servers"] == [{"url": "https://voices.example"}]


# --- description and validation agree -------------------------------------------------------------------

URLS = [
    "media://a", "media://A-z_0/9.wav", "media://" + "a" * 247, "media://" + "a" * 248, "media://",
    "media://a b", "http://a", "https://a/b?c#d", "http://", "ftp://a/b", "https://a b", "https://\u00e9",
    "https://a/" + "b" * 4086, "https://a/" + "b" * 4087, "file:///etc/passwd", "", 5, None, ["media://a"],
]  # fmt: skip
BODIES = [
    {},
    *({"url": url} for url in URLS),
    *({"url": "media://a", "model": model} for model in ("precision-2", "precision-3", None, "other", 1, [])),
    *({"url": "media://a", "webhookStatusOnly": value} for value in (True, False, None, 1, "true")),
    *({"url": "media://a", "webhook": url} for url in URLS),
    *({"url": "media://a", "webhook": "https://a/" + "b" * count} for count in (2038, 2039)),
]


@pytest.mark.parametrize("plain_webhooks", [False, True])
@pytest.mark.parametrize("name", ["GetMediaUrl", "VoiceprintRequest"])
def test_what_is_described_is_what_is_accepted(name: str, plain_webhooks: bool) -> None:
    document = describe(plain_webhooks=plain_webhooks)
    validator = OAS30Validator(document["components"]["schemas"][name])

    def accepted(body: object) -> bool:
        try:
            if name == "GetMediaUrl":
                MediaRequest.from_wire(body)
            else:
                VoiceprintRequest.from_wire(body, plain_webhooks=plain_webhooks)
        except InvalidRequest:
            return False
        return True

    described = [validator.is_valid(body) for body in BODIES]
    assert described == [accepted(body) for body in BODIES]
    assert {True, False} == set(described)
