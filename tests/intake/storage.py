"""An S3 server on loopback: moto, behind a guard that checks signatures and their age, as moto does not."""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import httpx
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.server import ThreadedMotoServer

KEY_ID, SECRET, REGION = "AKIDEXAMPLE", "s3cr3t-of-nobody", "eu-west-3"
BUCKET = "voices"


@dataclass
class Guard:
    """Refuses wrong and expired signatures, as S3 does; ``later`` is how far its clock is ahead."""

    app: Callable[..., Iterable[bytes]]
    later: timedelta = timedelta()
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        url = f"http://{environ['HTTP_HOST']}{environ['REQUEST_URI']}"
        self.asked.append(url)
        query = dict(parse_qsl(urlsplit(url).query))
        if "X-Amz-Signature" in query and not self.is_valid(url, query):
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code></Error>"]
        return self.app(environ, start_response)

    def is_valid(self, url: str, query: dict[str, str]) -> bool:
        made = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if made + timedelta(seconds=int(query["X-Amz-Expires"])) < datetime.now(UTC) + self.later:
            return False
        auth = S3SigV4QueryAuth(Credentials(KEY_ID, SECRET), "s3", REGION)
        bare, _, signature = url.partition("&X-Amz-Signature=")
        request = AWSRequest("GET", bare)
        request.context["timestamp"] = query["X-Amz-Date"]
        told = auth.string_to_sign(request, auth.canonical_request(request))
        return hmac.compare_digest(auth.signature(told, request), signature)

    def put(self, key: str, data: bytes) -> str:
        """Store a private object in the bucket; its address."""
        signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=moto/20260101/eu-west-3/s3/aws4_request"}
        httpx.put(f"{self.url}/{BUCKET}/{quote(key)}", content=data, headers=signed).raise_for_status()
        return f"s3://{BUCKET}/{key}"


@contextlib.contextmanager
def serving() -> Iterator[Guard]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    assert server._server is not None
    guard = server._server.app = Guard(server._server.app)
    guard.url = "http://{}:{}".format(*server.get_host_and_port())
    place = f"<LocationConstraint>{REGION}</LocationConstraint>"
    wanted = f"<CreateBucketConfiguration>{place}</CreateBucketConfiguration>"
    httpx.put(f"{guard.url}/{BUCKET}", content=wanted).raise_for_status()
    yield guard
    server.stop()
    server._server.server_close()
