"""Signed links to private objects in Amazon S3, Google Cloud Storage and Azure Blob Storage."""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from voiceprint_nb import contract
from voiceprint_nb.errors import RowError
from voiceprint_nb.intake.sources import CloudSource
from voiceprint_nb.settings import is_loopback

if TYPE_CHECKING:
    from obstore import SignCapableStore
    from obstore.store import ClientConfig, RetryConfig, S3Config

SIGNED_FOR_S = 24 * 3600.0
"""How long a link lives: longer than a queue of 100,000 jobs at 100 a minute (17 h)."""

_CLIENT: ClientConfig = {"connect_timeout": "2s", "timeout": "10s"}  # for credentials; signing asks nobody
_RETRY: RetryConfig = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_REASONS = {
    "url_not_found": "The bucket or the object is not there: check the address, upper and lower case too.",
    "url_refused": "The storage refuses the signed link: the credentials may not read the object, have ended "
    "or expired, or belong to another endpoint.",
    "url_unreachable": "The storage cannot be reached or answers oddly: try later, and for S3 check that "
    "AWS_REGION is the bucket's region.",
}


class Signer:
    """Makes links that open private objects for a while; may be called in threads.

    Parameters
    ----------
    sign : callable, optional
        Takes the address (``s3://bucket/key``) and returns an https link; by default obstore signs, with the
        credentials of the usual places: environment, the AWS profile's keys, service account file, web
        identity, container, instance. AWS profiles that log in (SSO) or assume a role are not read: export
        their keys into the environment.
    lifetime_s : float
        Seconds that a link of obstore's lives. No storage grants more than 7 days, and a link signed with
        temporary credentials (session token, role, instance) ends with these, often after 1 to 12 h.
    """

    def __init__(self, sign: Callable[[str], str] | None = None, *, lifetime_s: float = SIGNED_FOR_S) -> None:
        self._sign = sign
        self._lifetime = timedelta(seconds=lifetime_s)
        self._stores: dict[tuple[str, str], SignCapableStore] = {}  # they keep temporary credentials

    def __call__(self, source: CloudSource) -> str:
        """A link to the object; a secret.

        Raises
        ------
        RowError
            ``url_refused`` if nothing can sign, ``unsupported_scheme`` without obstore, ``unsupported_cell``
            for keys that obstore does not take, ``url_unreachable`` for a link that is none.
        """
        if self._sign is None:
            return self._by_obstore(source)
        try:
            url = self._sign(source.address)
        except Exception as error:  # of whatever library signs; its text may hold the link
            raise RowError(
                "url_refused",
                f"sign= failed for this object ({type(error).__name__}): try it on the address.",
            ) from None
        if not isinstance(url, str) or not contract.is_job_url(url) or not _is_safe(url):
            raise RowError("url_unreachable", "sign= gave no https link for this object: correct it.")
        return url

    def _by_obstore(self, source: CloudSource) -> str:
        try:
            import obstore
        except ImportError:
            raise RowError(
                "unsupported_scheme",
                f"{source.scheme}:// addresses need obstore: install voiceprint_nb[cloud], or pass sign=.",
            ) from None
        if any(part in ("", ".", "..") for part in source.key.split("/")):  # obstore drops or refuses them
            raise RowError(
                "unsupported_cell", "The key has an empty or dot part: rename the object, or pass sign=."
            )
        name = (source.scheme, source.bucket)
        try:
            store = self._stores.get(name) or self._stores.setdefault(name, _store(*name))
            return obstore.sign(store, "GET", source.key, self._lifetime)
        except RowError:
            raise
        except Exception as error:  # obstore's texts hold the requests for credentials
            raise RowError(
                "url_refused",
                f"No link to the object could be signed ({type(error).__name__}): set the credentials "
                f"({_CREDENTIALS[source.scheme]}), or pass sign=.",
            ) from None


def explained(error: RowError) -> RowError:
    """The error of a signed link, told of the object."""
    return RowError(error.code, _REASONS[error.code]) if error.code in _REASONS else error


def _store(scheme: str, bucket: str) -> SignCapableStore:
    from obstore.store import AzureStore, GCSStore, S3Store

    if scheme == "gs":
        return GCSStore(bucket, client_options=_CLIENT, retry_config=_RETRY)
    if scheme == "az":
        return AzureStore(bucket, client_options=_CLIENT, retry_config=_RETRY)
    config = _aws_profile(dict(os.environ))
    if endpoint := next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None):
        config["endpoint"] = endpoint
        if not _is_safe(endpoint):
            raise RowError("url_refused", "The S3 endpoint is neither https nor on this machine: correct it.")
    options: ClientConfig = {**_CLIENT, "allow_http": endpoint is not None}
    return S3Store(bucket, config=cast("S3Config", config), client_options=options, retry_config=_RETRY)


def _is_safe(url: str) -> bool:
    """Whether a link is https, or leads to this machine."""
    on_this_machine = is_loopback(urlsplit(url).hostname or "")
    return url.startswith("https://") or (url.startswith("http://") and on_this_machine)


def _aws_profile(environment: dict[str, str]) -> dict[str, str]:
    """Keys and region of the AWS profile, less what the environment says already."""
    name = environment.get("AWS_PROFILE", "default")
    values: dict[str, str] = {}
    for variable, file, section in (
        ("AWS_CONFIG_FILE", "config", "default" if name == "default" else f"profile {name}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", name),
    ):
        parser = configparser.RawConfigParser()
        try:
            parser.read(
                Path(environment.get(variable) or Path("~/.aws", file)).expanduser(), encoding="utf-8"
            )
        except (configparser.Error, OSError, ValueError, RuntimeError):
            continue
        values |= dict(parser[section]) if section in parser else {}
    keys = {"aws_access_key_id", "aws_secret_access_key", "aws_session_token"}
    wanted = set() if "AWS_ACCESS_KEY_ID" in environment else keys
    if not {"AWS_REGION", "AWS_DEFAULT_REGION"} & set(environment):
        wanted |= {"region"}
    return {key.removeprefix("aws_"): values[key] for key in wanted & set(values)}
