"""Private objects, signed for a real S3 server, and offline for the other storages."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
import storage
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from voiceprint_nb.batch.inspecting import Inspector
from voiceprint_nb.batch.outcomes import Request
from voiceprint_nb.errors import RowError
from voiceprint_nb.intake import cloud, sources
from voiceprint_nb.intake.clips import Clip

WAV = (Path(__file__).resolve().parents[2] / "data" / "samples" / "ada-1.wav").read_bytes()
KEYS = ["a.wav", "a b/c.wav", "ü/日本.wav", "a+b%20c.wav", "~t!*()'#?&=;.wav", "1:2/$@,.wav"]


@pytest.fixture(scope="module")
def s3() -> Iterator[storage.Guard]:
    with storage.serving() as guard:
        yield guard


@pytest.fixture(autouse=True)
def environment(s3: storage.Guard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", storage.KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", storage.SECRET)
    monkeypatch.setenv("AWS_REGION", storage.REGION)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.url)
    s3.later = timedelta()
    s3.asked.clear()


def source_of(address: str) -> sources.CloudSource:
    source = sources.parse(address)
    assert isinstance(source, sources.CloudSource)
    return source


def clip_of(address: str, **options: Any) -> tuple[Clip, bytes | None]:
    async def main() -> tuple[Clip, bytes | None]:
        async with Inspector(Request(), **options) as inspector, inspector.clip(source_of(address)) as clip:
            return clip, clip.file.read_bytes() if clip.file else None

    return asyncio.run(main())


def refusal(address: str, **options: Any) -> RowError:
    with pytest.raises(RowError) as caught:
        clip_of(address, **options)
    sentence = str(caught.value)
    assert ": " in sentence and sentence.endswith(".")
    assert "X-Amz" not in sentence and storage.SECRET not in sentence
    return caught.value


# --- Amazon S3 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_a_private_object_is_looked_at_by_its_signed_link(s3: storage.Guard, key: str) -> None:
    address = s3.put(key, WAV)
    assert httpx.get(f"{s3.url}/voices/{quote(key)}").status_code == 403
    s3.asked.clear()
    clip, data = clip_of(address, passes_on=lambda _: True)
    assert (clip.duration_s, clip.n_bytes, data) == (3.66, len(WAV), None)
    assert clip.url is not None and httpx.get(clip.url).content == WAV
    assert len(s3.asked) == 2  # the look, and the line above


def test_an_object_is_copied_where_the_service_cannot_reach_the_storage(s3: storage.Guard) -> None:
    clip, data = clip_of(s3.put("a.wav", WAV))
    assert (clip.url, data) == (None, WAV)


def test_the_identity_is_the_object_s_not_the_signature_s(s3: storage.Guard) -> None:
    address = s3.put("a.wav", WAV)
    digests = {
        clip_of(address, passes_on=lambda _: True, sign=sign)[0].digest for sign in (None, signed(60.0))
    }
    other = clip_of(s3.put("b.wav", WAV), passes_on=lambda _: True)[0].digest
    changed = clip_of(s3.put("a.wav", WAV[:-4] + bytes(4)), passes_on=lambda _: True)[0].digest
    assert len(digests) == 1 and len(digests | {other, changed}) == 3


def signed(lifetime_s: float) -> Callable[[str], str]:
    return lambda address: cloud.Signer(lifetime_s=lifetime_s)(source_of(address))


@pytest.mark.parametrize("address", ["s3://voices/none.wav", "s3://voices/A.wav", "s3://other-bucket/a.wav"])
def test_objects_that_are_not_there(s3: storage.Guard, address: str) -> None:
    s3.put("a.wav", WAV)
    error = refusal(address, passes_on=lambda _: True)
    assert (error.code, refusal(address).code) == ("url_not_found", "url_not_found")
    assert "upper and lower case" in str(error)


def test_a_link_outlasts_the_queue_and_then_expires(s3: storage.Guard) -> None:
    address = s3.put("a.wav", WAV)
    clip, _ = clip_of(address, passes_on=lambda _: True)
    assert clip.url is not None
    s3.later = timedelta(hours=23.9)
    assert httpx.get(clip.url).status_code == 200
    s3.later = timedelta(hours=24.1)
    assert httpx.get(clip.url).status_code == 403
    assert refusal(address, passes_on=lambda _: True).code == "url_refused"
    long, _ = clip_of(address, passes_on=lambda _: True, sign=signed(6 * 86_400.0))
    assert long.url is not None and "X-Amz-Expires=518400&" in long.url


def test_credentials_that_do_not_match(s3: storage.Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    error = refusal(s3.put("a.wav", WAV))
    assert error.code == "url_refused" and "credentials" in str(error)


def test_the_profile_s_keys_and_region(
    s3: storage.Guard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)
    folder = tmp_path / ".aws"
    folder.mkdir()
    (folder / "config").write_text(f"[default]\nregion = nowhere\n[profile ada]\nregion = {storage.REGION}\n")
    keys = f"[ada]\naws_access_key_id = {storage.KEY_ID}\naws_secret_access_key = {storage.SECRET}\n"
    (folder / "credentials").write_text(keys)
    monkeypatch.setenv("AWS_PROFILE", "ada")
    address = s3.put("a.wav", WAV)
    assert clip_of(address)[1] == WAV
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "broken"))
    (tmp_path / "broken").write_text("no section = 1\n")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")  # no instance answers here
    error = refusal(address)
    assert error.code == "url_refused" and "AWS_PROFILE" in str(error) and "sign=" in str(error)


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
def test_plain_http_only_on_this_machine(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    monkeypatch.setenv(variable, "http://storage.example")
    error = refusal("s3://voices/a.wav")
    assert error.code == "url_refused" and "https" in str(error)
    monkeypatch.setenv(variable, "https://storage.example")
    assert cloud.Signer()(source_of("s3://voices/a.wav")).startswith(
        "https://storage.example/voices/a.wav?X-"
    )
    monkeypatch.delenv(variable)
    url = cloud.Signer()(source_of("s3://voices/a.wav"))
    assert urlsplit(url).hostname == f"s3.{storage.REGION}.amazonaws.com"


@pytest.mark.parametrize("key", ["a//b.wav", "/a.wav", "a/../b.wav", "./a.wav"])
def test_keys_that_obstore_would_change(key: str) -> None:
    assert refusal(f"s3://voices/{key}").code == "unsupported_cell"


def test_without_obstore_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    error = refusal("s3://voices/a.wav")
    assert error.code == "unsupported_scheme" and "voiceprint_nb[cloud]" in str(error)


def test_signed_links_are_shown_nowhere(s3: storage.Guard, caplog: pytest.LogCaptureFixture) -> None:
    address = s3.put("a.wav", WAV)
    caplog.set_level(logging.DEBUG)
    clip, _ = clip_of(address, passes_on=lambda _: True)
    refusal("s3://voices/none.wav", passes_on=lambda _: True)
    servers = ("werkzeug", "moto", "botocore")
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(servers)]
    assert any("HTTP Request" in said for said in ours)
    for said in (*ours, repr(clip), repr(source_of(address)), repr(cloud.Signer())):
        assert (
            "X-Amz" not in said and "a.wav" not in said.replace("none.wav", "") and storage.SECRET not in said
        )


# --- the user's own way ---------------------------------------------------------------------------------


def test_sign_is_asked_with_the_address(s3: storage.Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    address = s3.put("a b+ü.wav", WAV)
    url = cloud.Signer()(source_of(address))
    monkeypatch.setitem(sys.modules, "obstore", None)  # is not needed
    asked: list[str] = []
    clip, _ = clip_of(address, passes_on=lambda _: True, sign=lambda address: asked.append(address) or url)
    assert (clip.url, asked) == (url, [address])


@pytest.mark.parametrize(
    "answer",
    [None, 1, "", "s3://b/a.wav", "http://storage.example/a", "https://a b", "https://h/" + "a" * 5000],
)
def test_sign_must_give_an_https_link(answer: Any) -> None:
    assert refusal("s3://voices/a.wav", sign=lambda _: answer).code == "url_unreachable"


def test_what_sign_raises_becomes_a_row_error_without_its_text() -> None:
    def sign(address: str) -> str:
        raise LookupError(f"https://storage.example/{address}?X-Amz-Signature=1")

    error = refusal("gs://voices/a.wav", sign=sign)
    assert error.code == "url_refused" and "LookupError" in str(error) and "storage.example" not in str(error)


# --- the other storages sign offline --------------------------------------------------------------------


def test_google_links(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {"type": "service_account", "client_email": "ada@example.org", "private_key_id": "1",
               "private_key": key.decode(), "token_uri": "https://oauth2.googleapis.com/token"}  # fmt: skip
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
    url = urlsplit(cloud.Signer()(source_of("gs://voices/a b.wav")))
    assert (url.hostname, url.path) == ("storage.googleapis.com", "/voices/a%20b.wav")
    assert parse_qs(url.query)["X-Goog-Expires"] == ["86400"]


def test_azure_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "ada")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "bm9ib2R5")
    url = urlsplit(cloud.Signer()(source_of("az://voices/a b.wav")))
    assert (url.hostname, url.path) == ("ada.blob.core.windows.net", "/voices/a%20b.wav")
    assert {"sig", "se", "sp"} <= set(parse_qs(url.query))


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_no_credentials_are_told_by_their_variables(scheme: str) -> None:
    error = refusal(f"{scheme}://voices/a.wav")
    assert error.code == "url_refused" and {"gs": "GOOGLE_", "az": "AZURE_"}[scheme] in str(error)
