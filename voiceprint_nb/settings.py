"""Settings of a call: argument, else environment, else default; frozen, and never showing the key."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from voiceprint_nb.errors import UsageError

HOSTED_URL = "https://api.pyannote.ai"
KEY_VARIABLE = "PYANNOTEAI_API_KEY"
SERVICE_VARIABLE = "VOICEPRINT_NB_SERVICE"
DATA_DIR_VARIABLE = "VOICEPRINT_NB_DATA_DIR"


@dataclass(frozen=True)
class Settings:
    """Where a call goes and what it may use.

    Attributes
    ----------
    service : str
        ``"local"`` or the base address of a server of the contract.
    api_key : str or None
        Bearer key; never in a repr.
    data_dir : Path
        Folder of the ledger.
    model : str or None
        Model name sent with each request; None leaves it to the service.
    """

    service: str
    api_key: str | None = field(default=None, repr=False)
    data_dir: Path = field(default_factory=lambda: default_data_dir(os.environ))
    model: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether the service runs inside this process."""
        return self.service == "local"

    @property
    def is_loopback(self) -> bool:
        """Whether the service's address is on this machine."""
        return self.is_local or is_loopback(urlsplit(self.service).hostname or "")

    @property
    def destination(self) -> str:
        """One sentence: which service runs and where the audio goes."""
        if self.is_local:
            return "Service: local, in this process. The audio stays on this machine."
        host = urlsplit(self.service).netloc
        return f"Service: {host}. Clips that are files or in memory are uploaded there."


def resolve(
    *,
    service: str | None = None,
    api_key: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    model: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Settings from arguments, then environment, then defaults.

    Parameters
    ----------
    service : str, optional
        ``"local"``, ``"pyannoteai"`` or an address. Unset: ``VOICEPRINT_NB_SERVICE``, else the hosted
        service when there is a key, else local.
    api_key : str, optional
        Unset: ``PYANNOTEAI_API_KEY``.
    data_dir : Path, optional
        Unset: ``VOICEPRINT_NB_DATA_DIR``, else the platform's folder for user data.
    model : str, optional
        Model name to request.
    environ : mapping
        The environment to read.

    Raises
    ------
    UsageError
        Unknown service, a key of another service, or a key that would travel unencrypted.
    """
    key = (api_key if api_key is not None else environ.get(KEY_VARIABLE, "")).strip() or None
    if key and key.startswith("hf_"):
        raise UsageError(
            "The key starts with 'hf_': that is a Hugging Face token. Create a pyannoteAI key at "
            f"https://dashboard.pyannote.ai and pass it as api_key= or in {KEY_VARIABLE}."
        )
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise UsageError("The key holds characters that no key has: copy it again.")
    wanted = service if service is not None else environ.get(SERVICE_VARIABLE) or None
    address = _address(wanted, has_key=key is not None)
    settings = Settings(
        service=address,
        api_key=None if address == "local" else key,
        data_dir=Path(data_dir).expanduser() if data_dir is not None else default_data_dir(environ),
        model=model,
    )
    if address == HOSTED_URL and key is None:
        raise UsageError(
            f"The hosted service needs a key: pass api_key= or set {KEY_VARIABLE}; "
            "service='local' works without one."
        )
    if settings.api_key and address.startswith("http://") and not settings.is_loopback:
        raise UsageError("The key would travel unencrypted to that http:// address: use https://.")
    return settings


def _address(service: str | None, *, has_key: bool) -> str:
    if service is None:
        return HOSTED_URL if has_key else "local"
    if service == "local":
        return service
    if service == "pyannoteai":
        return HOSTED_URL
    try:
        parts = urlsplit(service.strip())
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        parts, port = urlsplit(""), ""
    if parts.username is not None or parts.password is not None:
        raise UsageError("The service's address holds a name or password: leave it out and pass api_key=.")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(
            f"Unknown service {service!r}: use 'local', 'pyannoteai' or an address such as "
            "http://localhost:8000."
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/').removesuffix('/v1').rstrip('/')}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """Folder for what must outlive the process: the variable, else the platform's user data folder."""
    if chosen := environ.get(DATA_DIR_VARIABLE):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("voiceprint_nb", appauthor=False))
