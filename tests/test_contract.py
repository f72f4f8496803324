"""The wire types against the contract's own schemas, test vectors and rules."""

from __future__ import annotations

import base64
import json
import os
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_schema_validator import OAS30Validator, oas30_format_checker

from voiceprint_nb import contract
from voiceprint_nb.errors import ProtocolError, UsageError

EXAMPLES = settings(max_examples=100, deadline=None, database=None)
VISIBLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60)
WEB_URLS = st.builds("{}://{}".format, st.sampled_from(["http", "https"]), VISIBLE)
MEDIA_KEYS = st.text(string.ascii_letters + string.digits + "-_./", min_size=1, max_size=200).map(
    "media://{}".format
)
TEXTS = st.text(max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def is_valid() -> Callable[[object, str], bool]:
    """Whether a value is what a schema of the contract allows."""
    named = os.environ.get("VOICEPRINT_NB_CONTRACT")
    root = Path(__file__).resolve().parents[1]
    path = Path(named) if named else root.parent / "shared" / "contract" / "openapi.json"
    if not path.exists():
        pytest.skip("the contract file is not at hand")
    document = json.loads(path.read_text())
    validators = {
        name: OAS30Validator(
            {"$ref": f"#/components/schemas/{name}", "components": document["components"]},
            format_checker=oas30_format_checker,
        )
        for name in document["components"]["schemas"]
    }
    return lambda value, schema: validators[schema].is_valid(value) and not _ends_a_line(value)


def _ends_a_line(body: object) -> bool:
    """Whether a text ends in a newline, which Python's ``$`` overlooks and JSON Schema's does not."""
    return isinstance(body, dict) and any(
        isinstance(body.get(key), str) and body[key].endswith("\n") for key in ("url", "webhook")
    )


# --- requests -------------------------------------------------------------------------------------------

REQUESTS = st.builds(
    contract.VoiceprintRequest,
    url=WEB_URLS | MEDIA_KEYS,
    model=st.none() | st.sampled_from(contract.VOICEPRINT_MODELS),
    webhook=st.none() | WEB_URLS,
    webhook_status_only=st.booleans(),
)


@given(request=REQUESTS)
@EXAMPLES
def test_voiceprint_requests_survive_the_wire(
    is_valid: Callable[[object, str], bool], request: contract.VoiceprintRequest
) -> None:
    body = json.loads(json.dumps(request.to_wire()))
    assert is_valid(body, "VoiceprintRequest")
    assert contract.VoiceprintRequest.from_wire(body, plain_webhooks=True) == request
    assert request.url not in repr(request)


ODD_URLS = st.one_of(
    TEXTS,
    WEB_URLS,
    MEDIA_KEYS,
    st.sampled_from(
        ["http://", "https:///", "ftp://host/a", "http://a b", "media://", "http://ä.de/", "http://x\n"]
    ),
    st.integers(4080, 4110).map(lambda n: "http://x".ljust(n, "y")),
    st.integers(2040, 2060).map(lambda n: "https://x".ljust(n, "y")),
)


@given(
    body=st.fixed_dictionaries(
        {},
        optional={
            "url": ODD_URLS | JSON,
            "model": st.sampled_from([None, *contract.VOICEPRINT_MODELS, "precision-1", 2, ["precision-2"]]),
            "webhook": ODD_URLS | st.integers(),
            "webhookStatusOnly": st.booleans() | st.none() | st.sampled_from(["true", 0, 1]),
            "unknown": JSON,
        },
    )
)
@settings(EXAMPLES, max_examples=300)
def test_the_contract_and_the_code_refuse_the_same_requests(
    is_valid: Callable[[object, str], bool], body: dict[str, Any]
) -> None:
    declared = {
        key: value for key, value in body.items() if (key, value) != ("model", None)
    }  # "null or absent"
    try:
        contract.VoiceprintRequest.from_wire(body, plain_webhooks=True)
    except contract.InvalidRequest as error:
        assert not is_valid(declared, "VoiceprintRequest")
        assert is_valid(error.to_wire(), "ValidationErrorResponse")
        assert {entry.field for entry in error.errors} <= {"url", "model", "webhook", "webhookStatusOnly"}
    else:
        assert is_valid(declared, "VoiceprintRequest")


@given(url=ODD_URLS | JSON | st.integers(250, 260).map(lambda n: "media://".ljust(n, "k")))
@EXAMPLES
def test_the_contract_and_the_code_refuse_the_same_media_keys(
    is_valid: Callable[[object, str], bool], url: object
) -> None:
    body = {"url": url}
    try:
        request = contract.MediaRequest.from_wire(body)
    except contract.InvalidRequest as error:
        assert not is_valid(body, "GetMediaUrl")
        assert error.to_wire()["errors"] == [{"field": "url", "message": "Invalid URL"}]
    else:
        assert is_valid(body, "GetMediaUrl")
        assert request.to_wire() == body


@pytest.mark.parametrize(("length", "allowed"), [(2048, True), (2049, False)])
def test_webhooks_have_their_own_length(length: int, allowed: bool) -> None:
    body = {"url": "https://host/" + "a" * 4000, "webhook": "https://host/".ljust(length, "a")}
    if allowed:
        assert contract.VoiceprintRequest.from_wire(body, plain_webhooks=True).webhook == body["webhook"]
    else:
        with pytest.raises(contract.InvalidRequest) as caught:
            contract.VoiceprintRequest.from_wire(body, plain_webhooks=True)
        assert [error.field for error in caught.value.errors] == ["webhook"]


def test_every_field_at_fault_is_named() -> None:
    body = {"url": "nowhere", "model": "gpt", "webhook": "ftp://x", "webhookStatusOnly": "yes"}
    with pytest.raises(contract.InvalidRequest) as caught:
        contract.VoiceprintRequest.from_wire(body, plain_webhooks=True)
    assert [error.field for error in caught.value.errors] == ["url", "model", "webhook", "webhookStatusOnly"]


@pytest.mark.parametrize("body", [None, [], "text", 1, [{"url": "https://host/a"}]])
def test_a_body_must_be_an_object(body: object) -> None:
    for request in (contract.VoiceprintRequest, contract.MediaRequest):
        with pytest.raises(contract.InvalidRequest) as caught:
            request.from_wire(body)
        assert caught.value.to_wire()["errors"][0]["field"] == "body"


# --- answers --------------------------------------------------------------------------------------------

TIMES = st.just("2026-01-01T00:00:00.000Z")
OUTPUTS = st.fixed_dictionaries({"voiceprint": st.text(min_size=1, max_size=40)}, optional={"warning": TEXTS})
JOBS = st.builds(
    contract.Job,
    job_id=st.uuids().map(str),
    status=st.sampled_from(contract.JOB_STATUSES),
    created_at=TIMES,
    updated_at=st.none() | TIMES,
    output=st.none() | OUTPUTS,
)
PAGES = st.builds(
    contract.JobPage,
    items=st.lists(
        st.builds(contract.JobListItem, st.uuids().map(str), st.sampled_from(contract.JOB_STATUSES), TIMES),
        max_size=5,
    ).map(tuple),
    next_cursor=st.none() | TEXTS,
)


@given(job=JOBS, page=PAGES, ticket=st.builds(contract.MediaTicket, WEB_URLS))
@EXAMPLES
def test_answers_survive_the_wire(
    job: contract.Job, page: contract.JobPage, ticket: contract.MediaTicket
) -> None:
    assert contract.Job.from_wire(json.loads(json.dumps(job.to_wire()))) == job
    assert contract.JobPage.from_wire(json.loads(json.dumps(page.to_wire()))) == page
    assert contract.MediaTicket.from_wire(ticket.to_wire()) == ticket
    assert ticket.url not in repr(ticket)
    if job.voiceprint and len(job.voiceprint) > 8:
        assert job.voiceprint not in repr(job)


def test_halves_of_surrogate_pairs_do_not_come_in() -> None:
    half, whole = "half \ud83d", "whole \U0001f600 \u00fc"
    created = contract.JobCreated.from_wire({"jobId": half, "status": "created", "warning": half})
    assert (created.job_id, created.warning) == ("half ?", "half ?")
    told = {"jobId": "a", "status": "succeeded", "output": {"voiceprint": half, "error": whole}}
    job = contract.Job.from_wire(told)
    assert (job.voiceprint, job.error) == ("half ?", whole)


@given(
    created=st.builds(
        contract.JobCreated,
        st.uuids().map(str),
        st.sampled_from(contract.JOB_STATUSES),
        st.none() | TEXTS,
    ),
    page=PAGES,
)
@EXAMPLES
def test_answers_are_what_the_contract_declares(
    is_valid: Callable[[object, str], bool], created: contract.JobCreated, page: contract.JobPage
) -> None:
    assert is_valid(created.to_wire(), "JobCreated")
    assert contract.JobCreated.from_wire(created.to_wire()) == created
    assert is_valid(page.to_wire(), "GetJobsResponseV2")
    assert is_valid(contract.ApiError("id", "message").to_wire(), "ApiError")


@given(
    body=JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(("jobId", "status", "items", "url"), JSON))
)
@EXAMPLES
def test_no_answer_breaks_a_reader(body: object) -> None:
    for kind in (contract.Job, contract.JobPage, contract.JobCreated, contract.MediaTicket):
        try:
            kind.from_wire(body)
        except ProtocolError as error:
            assert str(error).endswith(".")


@pytest.mark.parametrize("status", [*contract.JOB_STATUSES, "paused", ""])
def test_only_three_statuses_are_final(status: str) -> None:
    assert contract.is_terminal(status) == (status in ("succeeded", "failed", "canceled"))


@given(
    body=st.one_of(
        JSON, st.fixed_dictionaries({"message": JSON, "errors": JSON}), st.binary(), st.builds(object)
    )
)
@EXAMPLES
def test_error_text_of_anything_is_a_text(body: object) -> None:
    assert isinstance(contract.error_text(body), str)


def test_error_text_tells_message_and_fields() -> None:
    invalid = contract.InvalidRequest(
        contract.FieldError("url", "Invalid URL"), contract.FieldError("model", "Unknown")
    )
    assert contract.error_text(invalid.to_wire()) == "Invalid request (url: Invalid URL; model: Unknown)"
    assert contract.error_text({"requestId": "1", "message": "No credit"}) == "No credit"
    assert contract.error_text({"errors": [{"message": "Odd"}, {"field": 3}, None]}) == "(Odd)"
    assert contract.error_text({}) == contract.error_text("<html>") == contract.error_text(None) == ""


# --- rate limit headers ---------------------------------------------------------------------------------


def test_rate_headers_in_seconds() -> None:
    headers = {
        "x-ratelimit-limit": "100",
        "X-RateLimit-Remaining": "7",
        "X-RATELIMIT-RESET": "42",
        "retry-after": "3",
    }
    facts = contract.RateFacts.from_headers(headers, now_unix_s=1_767_225_600.0)
    assert facts == contract.RateFacts(100, 7, 42.0, 3.0)


@pytest.mark.parametrize(
    ("reset", "wanted"), [("1767225630", 30.0), ("1767225000", 0.0), ("1000000000", 1e9)]
)
def test_a_large_reset_is_unix_time(reset: str, wanted: float) -> None:
    facts = contract.RateFacts.from_headers({"X-RateLimit-Reset": reset}, now_unix_s=1_767_225_600.0)
    assert facts.reset_s == wanted


@pytest.mark.parametrize("bad", ["", "soon", "nan", "inf", "-1", "1e999", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_malformed_rate_headers_are_absent(bad: str) -> None:
    names = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After")
    facts = contract.RateFacts.from_headers(dict.fromkeys(names, bad), now_unix_s=0.0)
    assert facts == contract.RateFacts()


@given(
    headers=st.dictionaries(st.sampled_from(["Retry-After", "x-ratelimit-reset", "X-RateLimit-Limit"]), TEXTS)
)
@EXAMPLES
def test_no_header_breaks_the_reader(headers: dict[str, str]) -> None:
    facts = contract.RateFacts.from_headers(headers, now_unix_s=1e9)
    assert facts.retry_after_s is None or facts.retry_after_s >= 0


# --- webhooks -------------------------------------------------------------------------------------------

SECRET, TIMESTAMP = "whsec_test_0123456789", "1767225600"
VECTORS = [
    (
        b'{"jobId":"5b1f3f0e-52f1-4e0e-9a63-0d4c7f0d7a10","status":"succeeded","output":{"voiceprint":"Zm9v"}}',
        "81a532691744dd8f99914608a626ec776502c9a6c1005a535dffdc864434284f",
        "gaUyaRdE3Y+ZkUYIpibsd2UCyabBAFpTXf/chkQ0KE8=",
    ),
    (
        b'{"jobId":"7f9d0c2a-6a63-4b0d-8a26-0f3f8b7e0c55","status":"failed"}',
        "5c95722005e1c6d47414e7b24fc26f226d2ae7ad84513e014773a46fc20e9845",
        "XJVyIAXhxtR0FOeyT8JvIm0q562EUT4BR3Okb8IOmEU=",
    ),
]


def verify(
    signature: str, body: bytes, *, secret: str = SECRET, timestamp: str = TIMESTAMP, age_s: float = 0
) -> None:
    contract.verify_webhook(secret, timestamp, signature, body, now_unix_s=int(TIMESTAMP) + age_s)


@pytest.mark.parametrize(("body", "as_hex", "as_base64"), VECTORS)
def test_webhook_vectors(body: bytes, as_hex: str, as_base64: str) -> None:
    assert contract.sign_webhook(SECRET, TIMESTAMP, body) == as_hex
    for signature in (as_hex, as_base64, "v0=" + as_hex, "v0=" + as_base64, f" {as_hex} "):
        verify(signature, body)
        verify(signature, body, age_s=299)
        verify(signature, body, age_s=-299)


@pytest.mark.parametrize(("body", "as_hex", "as_base64"), VECTORS)
def test_webhooks_of_others_are_refused(body: bytes, as_hex: str, as_base64: str) -> None:
    for signature in (as_hex, as_base64):
        for change in (
            {"secret": "whsec_other"},
            {"timestamp": "1767225601"},
            {"age_s": 301.0},
            {"age_s": -301.0},
        ):
            with pytest.raises(contract.BadSignature):
                verify(signature, body, **change)  # type: ignore[arg-type]
        with pytest.raises(contract.BadSignature):
            verify(signature, body + b" ")


@pytest.mark.parametrize(
    "timestamp", ["", "now", "1767225600.0", "-1767225600", "١٧٦٧٢٢٥٦٠٠", "\ud800", "9" * 40]
)
def test_a_timestamp_that_is_no_number_is_refused_even_if_signed(timestamp: str) -> None:
    signature = contract.sign_webhook(SECRET, timestamp, b"{}") if timestamp.isascii() else VECTORS[0][1]
    with pytest.raises(contract.BadSignature):
        verify(signature, b"{}", timestamp=timestamp)


@given(signature=st.text(st.characters()), timestamp=st.text(st.characters(), max_size=12), body=st.binary())
@EXAMPLES
def test_no_signature_text_breaks_the_check(signature: str, timestamp: str, body: bytes) -> None:
    with pytest.raises(contract.BadSignature):
        verify(signature, body, timestamp=timestamp)


# --- voiceprint text ------------------------------------------------------------------------------------

FINGERPRINT = "00112233445566778899aabbccddeeff"
VECTOR = np.linspace(-1, 1, 256, dtype="<f4").tobytes()
TEXT = contract.encode_voiceprint(FINGERPRINT, VECTOR)


@given(fingerprint=st.binary(min_size=16, max_size=16), n_values=st.integers(1, 600), data=st.data())
@EXAMPLES
def test_voiceprints_survive_their_text(fingerprint: bytes, n_values: int, data: st.DataObject) -> None:
    vector = data.draw(st.binary(min_size=4 * n_values, max_size=4 * n_values))
    text = contract.encode_voiceprint(fingerprint.hex(), vector)
    assert contract.decode_voiceprint(text) == contract.VoiceprintRecord(fingerprint.hex(), vector)
    assert text.isascii() and " " not in text


def test_a_local_voiceprint_fits_the_contract_and_shows_no_value() -> None:
    assert len(TEXT) <= contract.MAX_VOICEPRINT_CHARS
    assert repr(contract.decode_voiceprint(TEXT)) == f"VoiceprintRecord(fingerprint='{FINGERPRINT}')"


@pytest.mark.parametrize(
    "text", ["", "hello", "Zm9v", "ünïcode", "\ud800", base64.b64encode(bytes(900)).decode()]
)
def test_opaque_voiceprints_are_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(UsageError, match=r"opaque.*service='local'"):
        contract.decode_voiceprint(text)


@given(cut=st.integers(1, len(base64.b64decode(TEXT)) - 4))
@EXAMPLES
def test_cut_voiceprints_are_damaged(cut: int) -> None:
    text = base64.b64encode(base64.b64decode(TEXT)[:-cut]).decode()
    with pytest.raises(UsageError, match=r"damaged.*make it again"):
        contract.decode_voiceprint(text)


def test_a_newer_format_is_named_whatever_follows() -> None:
    for rest in (base64.b64decode(TEXT)[5:], b"", b"something new"):
        text = base64.b64encode(b"VPNB\x02" + rest).decode()
        with pytest.raises(UsageError, match="version 2; upgrade"):
            contract.decode_voiceprint(text)


@given(
    text=st.text(st.characters()) | st.binary().map(lambda data: base64.b64encode(b"VPNB" + data).decode())
)
@EXAMPLES
def test_no_text_breaks_the_reader(text: str) -> None:
    try:
        contract.decode_voiceprint(text)
    except UsageError as error:
        assert text not in str(error) or len(text) < 20


@pytest.mark.parametrize(
    ("fingerprint", "vector"),
    [
        (FINGERPRINT, b""),
        (FINGERPRINT, b"123"),
        (FINGERPRINT, bytes(4 * 65_536)),
        ("ab" * 15, VECTOR),
        ("z" * 32, VECTOR),
    ],
)
def test_what_is_no_voiceprint_is_not_encoded(fingerprint: str, vector: bytes) -> None:
    with pytest.raises(ValueError, match="32 hex digits"):
        contract.encode_voiceprint(fingerprint, vector)
