"""What the service offers, as an OpenAPI 3.0.3 document: the contract's batch part in the service's words.

Bounds, patterns and enumerations are those that `contract` validates with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from voiceprint_nb import contract

HEALTH_PATH = "/health"
METRICS_PATH = "/metrics"
DESCRIPTION_PATH = "/openapi.json"

Json = dict[str, Any]


def describe(
    *,
    base_url: str | None = None,
    plain_webhooks: bool = False,
    limits: tuple[int | None, int | None] = (contract.WRITES_PER_WINDOW, contract.READS_PER_WINDOW),
    keyed: bool = True,
    metrics: bool = False,
) -> Json:
    """Build the document.

    Parameters
    ----------
    base_url : str, optional
        Where the service is reached; by default where the document was.
    plain_webhooks : bool
        Whether events may go to ``http://`` addresses.
    limits : tuple of int or None
        Writes and reads per minute for a team and an operation; None for no limit.
    keyed : bool
        Whether callers need a key.
    metrics : bool
        Whether there are figures for Prometheus.

    Examples
    --------
    >>> describe(base_url="https://voices.example")["servers"]
    [{'url': 'https://voices.example'}]
    """
    paths: Json = {}
    for operation in _OPERATIONS:
        limit = None if operation.rate is None else limits[operation.rate]
        if metrics or operation.path != METRICS_PATH:
            paths[operation.path] = {operation.method: operation.to_json(limit=limit, keyed=keyed)}
    purpose = "Upload a clip of one voice or link to it, submit a job, read its voiceprint or have it sent."
    document: Json = {
        "openapi": "3.0.3",
        "info": {
            "title": "voiceprint_nb service",
            "version": version("voiceprint_nb"),
            "description": purpose,
        },
        "paths": paths,
        "components": _components(plain_webhooks=plain_webhooks, limited=limits != (None, None)),
    }
    if base_url is not None:
        document["servers"] = [{"url": base_url.rstrip("/")}]
    if keyed:
        key = {"type": "http", "scheme": "bearer", "description": "A key of the caller's team."}
        document["components"]["securitySchemes"] = {"key": key}
        document["security"] = [{"key": []}]
    return document


# --- pieces ---------------------------------------------------------------------------------------------


def _ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def _schema(name: str) -> Json:
    return _ref("schemas", name)


def _text(description: str = "", **facts: Any) -> Json:
    return {"type": "string", **({"description": description} if description else {}), **facts}


def _object(required: str, **properties: Json) -> Json:
    """An object of these properties; `required` names those that are always there."""
    described = {"type": "object", "properties": properties}
    return described | ({"required": required.split()} if required else {})


def _array(name: str) -> Json:
    return {"type": "array", "items": _schema(name)}


def _json(name: str) -> Json:
    return {"application/json": {"schema": _schema(name)}}


def _sent(where: str, name: str, schema: Json, description: str, *, required: bool = False) -> Json:
    facts = {"in": where, "name": name, "schema": schema, "description": description}
    return facts | {"required": required}


# --- operations -----------------------------------------------------------------------------------------

_WRITES, _READS = 0, 1  # positions in the pair of limits
_COUNT = {"type": "integer", "minimum": 0}
_RATE_HEADERS = {
    "X-RateLimit-Limit": "Requests that one window of time allows.",
    "X-RateLimit-Remaining": "Requests that are left in this window.",
    "X-RateLimit-Reset": "Seconds until the next window begins.",
}
_RETRY_HEADER = {"Retry-After": "Seconds to wait before the next try."}
_REFUSALS = {
    400: ("BadRequest", "The request breaks the rules; `errors` names every field at fault."),
    401: ("NoKey", "No key, or an unknown one."),
    403: ("NotPermitted", "The key lacks the permission for this operation."),
    404: ("NotFound", "The team has nothing of this name."),
    413: ("TooLarge", "The body has too many bytes."),
    415: ("NotJson", "The body is not declared as JSON."),
    429: ("TooMany", "Too many requests, or too many jobs that wait."),
    500: ("Fault", "The service is at fault: its log tells more under the request id."),
    503: ("Down", "The service must be started again."),
}


@dataclass(frozen=True)
class _Operation:
    """One row of the table below; `refusals` adds to those that follow from the rest."""

    method: str
    path: str
    id: str
    summary: str
    content: Json
    permission: str | None = None
    rate: int | None = _WRITES
    status: int = 200
    body: str | None = None
    open: bool = False
    parameters: tuple[Json, ...] = ()
    refusals: tuple[int, ...] = ()
    links: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self, *, limit: int | None, keyed: bool) -> Json:
        accepted: Json = {"description": "Done.", "content": self.content, "links": self.links}
        described: Json = {"operationId": self.id, "summary": self.summary, **self.more}
        if limit is not None:
            accepted["headers"] = {name: _ref("headers", name) for name in _RATE_HEADERS}
            described["x-rate-limit"] = {"requests": limit, "seconds": int(contract.RATE_WINDOW_S)}
        if keyed and self.permission:
            described["x-permission"] = self.permission
        if keyed and self.open:
            described["security"] = []
        if self.body:
            described["requestBody"] = {"required": True, "content": _json(self.body)}
        refused = sorted(self._refusals(limited=limit is not None, keyed=keyed))
        refs = {str(status): _ref("responses", _REFUSALS[status][0]) for status in refused}
        responses = {str(self.status): accepted, **refs}
        return described | {"parameters": list(self.parameters), "responses": responses}

    def _refusals(self, *, limited: bool, keyed: bool) -> set[int]:
        statuses = {400, 500, *self.refusals}
        statuses |= {413, 415} if self.body else set()
        statuses |= {401} if keyed and not self.open else set()
        statuses |= {403} if keyed and self.permission else set()
        return statuses | ({429} if limited else set())


_PAGE_ITEMS = {"type": "integer", "minimum": 1, "maximum": contract.MAX_PAGE_ITEMS} | {
    "default": contract.DEFAULT_PAGE_ITEMS
}
_JOB_ID = _text(minLength=1, maxLength=100, pattern="^[A-Za-z0-9_-]+$")
_BY_ID = _sent("path", "jobId", _JOB_ID, "From the submission.", required=True)
_IN_STATUS = _sent("query", "status", _schema("JobStatus"), "Only jobs of this status.")
_BY_CURSOR = (
    _sent("query", "limit", _PAGE_ITEMS, "Jobs on a page."),
    _sent("query", "cursor", _text(format="uuid"), "`nextCursor` of the page before."),
    _IN_STATUS,
)
_BY_POSITION = (
    _sent("query", "take", _PAGE_ITEMS, "Jobs on a page."),
    _sent("query", "skip", _COUNT, "Newer jobs to leave out."),
    _IN_STATUS,
)
_ANY_JOB = {"application/json": {"schema": {"anyOf": [_schema("VoiceprintJob"), _schema("FailedJob")]}}}
_FIGURES = {"text/plain": {"schema": _text()}}
_TO_JOB = {"getJob": {"operationId": "getJobById", "parameters": {"jobId": "$response.body#/jobId"}}}
_DELAYS = ", ".join(f"{delay_s:g} s" for delay_s in contract.WEBHOOK_RETRY_DELAYS_S)
_EVENT = {
    "summary": "The job has ended",
    "description": f"Without a 2xx answer in {contract.WEBHOOK_TIMEOUT_S:g} s, after at most "
    f"{contract.WEBHOOK_MAX_REDIRECTS} redirects, it is sent again: {_DELAYS} after the failure before.",
    "parameters": [_ref("parameters", f"Event{part}") for part in ("Signature", "Time", "Retry", "Reason")],
    "requestBody": {"required": True, "content": _json("WebhookPayload")},
    "responses": {"2XX": {"description": "The event has arrived."}},
}
_CALLBACK = {"callbacks": {"jobEnded": {"{$request.body#/webhook}": {"post": _EVENT}}}}

# fmt: off
_OPERATIONS = (
    _Operation("get", contract.TEST_PATH, "testKey", "Find out whether a key works", _json("TestResponse")),
    _Operation("post", contract.MEDIA_INPUT_PATH, "getMediaUploadURL", "Get a link that takes an upload",
               _json("MediaResponse"), "media:write", status=201, body="GetMediaUrl"),
    _Operation("post", contract.MEDIA_OUTPUT_PATH, "getMediaDownloadURL", "Get a link to an upload",
               _json("MediaResponse"), "media:read", status=201, body="GetMediaUrl", refusals=(404,)),
    _Operation("post", contract.VOICEPRINT_PATH, "voiceprint", "Submit a clip of one voice",
               _json("JobCreated"), "jobs:write", body="VoiceprintRequest", links=_TO_JOB, more=_CALLBACK,
               refusals=(429,)),  # of too many jobs that wait, whatever the limit
    _Operation("get", contract.JOB_PATH.replace("{job_id}", "{jobId}"), "getJobById", "Read a job",
               _ANY_JOB, "jobs:read", _READS, parameters=(_BY_ID,), refusals=(404,)),
    _Operation("get", contract.JOBS_PATH, "getJobsByTeamV2", "List the team's jobs, the newest first",
               _json("GetJobsResponseV2"), "jobs:read", _READS, parameters=_BY_CURSOR),
    _Operation("get", contract.OLD_JOBS_PATH, "getJobsByTeam", "List the team's jobs by position",
               _json("GetJobsResponse"), "jobs:read", _READS, parameters=_BY_POSITION,
               more={"deprecated": True}),
    _Operation("get", HEALTH_PATH, "getHealth", "Find out whether the service works", _json("Health"),
               rate=None, open=True, refusals=(503,)),
    _Operation("get", DESCRIPTION_PATH, "getDescription", "Read this document", _json("Description"),
               rate=None, open=True),
    _Operation("get", METRICS_PATH, "getMetrics", "Read figures for Prometheus", _FIGURES, "metrics:read",
               rate=None),
)
# fmt: on


# --- components -----------------------------------------------------------------------------------------


def _components(*, plain_webhooks: bool, limited: bool) -> Json:
    headers = {**(_RATE_HEADERS if limited else {}), **_RETRY_HEADER}
    bodies = {400: "ValidationErrorResponse", 503: "Health"}
    responses: Json = {
        name: {"description": description, "content": _json(bodies.get(status, "ApiError"))}
        for status, (name, description) in _REFUSALS.items()
    }
    responses["TooMany"]["headers"] = {name: _ref("headers", name) for name in headers}
    return {
        "schemas": {**_requests(plain_webhooks), **_jobs(), **_other_answers()},
        "responses": responses,
        "headers": {
            name: {"description": description, "schema": {"type": "integer"}}
            for name, description in headers.items()
        },
        "parameters": _event_headers(),
    }


def _event_headers() -> Json:
    signed = "Lowercase hex of HMAC-SHA256, keyed with the team's secret, over `v0:TIMESTAMP:` and the body."
    retry = {"type": "integer", "minimum": 1, "maximum": len(contract.WEBHOOK_RETRY_DELAYS_S)}
    reason = _text(enum=list(contract.WEBHOOK_RETRY_REASONS))
    seconds = _text(pattern="^[0-9]+$")
    return {
        "EventSignature": _sent("header", "X-Signature", _text(), signed, required=True),
        "EventTime": _sent("header", "X-Request-Timestamp", seconds, "Unix time in seconds.", required=True),
        "EventRetry": _sent("header", "x-retry-num", retry, "Not in the first attempt."),
        "EventReason": _sent("header", "x-retry-reason", reason, "How the attempt before failed."),
    }


def _requests(plain_webhooks: bool) -> Json:
    webhook = contract.WEBHOOK_PATTERN.pattern
    key = _text(
        "A name for the clip, `media://` and what you like; other teams do not see it.",
        minLength=len("media://") + 1,
        maxLength=contract.MAX_MEDIA_KEY_CHARS,
        pattern=f"^{contract.MEDIA_KEY_PATTERN.pattern}$",
    )
    clip = _text(
        "Link to the clip, which anybody may follow, or the name of an upload.",
        minLength=len("http://") + 1,
        maxLength=contract.MAX_URL_CHARS,
        pattern=f"^{contract.JOB_URL_PATTERN.pattern}$",
    )
    model = _text(
        "For clients of the hosted service: there is one engine here.",
        nullable=True,
        default=contract.DEFAULT_MODEL,
        enum=[*contract.VOICEPRINT_MODELS, None],
    )
    address = _text(
        "Where to send the event of the job's end.",
        maxLength=contract.MAX_WEBHOOK_CHARS,
        pattern=f"^{webhook if plain_webhooks else webhook.replace('https?', 'https')}$",
    )
    bare = {"type": "boolean", "default": False, "description": "Leave the output out of the event."}
    return {
        "GetMediaUrl": _object("url", url=key),
        "VoiceprintRequest": _object("url", url=clip, model=model, webhook=address, webhookStatusOnly=bare),
    }


def _jobs() -> Json:
    status, begun = _schema("JobStatus"), _text(format="date-time")
    dates = {"createdAt": begun, "updatedAt": _text(format="date-time", nullable=True)}
    remarks = {"warning": _text(), "error": _text("Why there is no voiceprint.")}
    result, ended = _schema("VoiceprintJobResults"), [contract.FAILED, contract.CANCELED]
    told = _text(enum=[contract.SUCCEEDED, *ended])
    cursor, always = _text("null on the last page", nullable=True), "jobId status createdAt"
    return {
        "JobStatus": _text(enum=list(contract.JOB_STATUSES)),
        "JobCreated": _object("jobId status", jobId=_text(), status=status, warning=_text(nullable=True)),
        "VoiceprintJobResults": _object("voiceprint", voiceprint=_text("Opaque text."), **remarks),
        "VoiceprintJob": _object(always, jobId=_text(), status=status, **dates, output=result),
        "FailedJob": _object(
            always, jobId=_text(), status=_text(enum=ended), **dates, output=_object("", **remarks)
        ),
        "JobListItem": _object("id status createdAt", id=_text(), status=status, createdAt=begun),
        "GetJobsResponse": _object("items", items=_array("JobListItem"), total=_COUNT),
        "GetJobsResponseV2": _object("items nextCursor", items=_array("JobListItem"), nextCursor=cursor),
        "WebhookPayload": _object("jobId status", jobId=_text(), status=told, output=result),
    }


def _other_answers() -> Json:
    link = _text("Good for an hour, without a key: keep it secret.")
    errors = _array("ValidationError")
    return {
        "TestResponse": _object("status message", status=_text(), message=_text()),
        "MediaResponse": _object("url", url=link),
        "Health": _object("status", status=_text()),
        "Description": _object(""),
        "ValidationError": _object("field message", field=_text(), message=_text()),
        "ValidationErrorResponse": _object("message errors", message=_text(), errors=errors),
        "ApiError": _object("requestId message", requestId=_text(), message=_text()),
    }
