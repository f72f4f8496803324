"""Settings of a call: argument, else environment, else default; frozen, and never showing the key.

The hosted service's key may also lie in Colab's secrets or in the keyring: they are asked by a call that may
use it, never at import, and not when another service was chosen.
"""

from __future__ import annotations

import importlib
import importlib.util
import ipaddress
import os
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from voiceprint_nb.errors import UsageError

HOSTED_URL = "https://api.pyannote.ai"
KEY_VARIABLE = "PYANNOTEAI_API_KEY"
SERVICE_VARIABLE = "VOICEPRINT_NB_SERVICE"
DATA_DIR_VARIABLE = "VOICEPRINT_NB_DATA_DIR"
KEYRING_SERVICE = "voiceprint_nb"

_KEYRING_S = 60.0  # for a person to unlock it; where nobody sees the question, a run must go on


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
    key_place : str
        Where the key was found, unless the call or the environment gave it.
    """

    service: str
    api_key: str | None = field(default=None, repr=False)
    data_dir: Path = field(default_factory=lambda: default_data_dir(os.environ))
    model: str | None = None
    key_place: str = ""

    @property
    def is_local(self) -> bool:
        """Whether the service runs inside this process."""
        return self.service == "local"

    @property
    def is_loopback(self) -> bool:
        """Whether the service's address is on this machine."""
        return self.is_local or is_loopback(urlsplit(self.service).hostname or "")

    @property
    def asked_model(self) -> str | None:
        """The model that requests name; those to the local service name none, it has one."""
        return None if self.is_local else self.model

    @property
    def destination(self) -> str:
        """One sentence: which service runs and where the audio goes."""
        if self.is_local:
            return "Service: local, in this process. The audio stays on this machine."
        host = urlsplit(self.service).netloc
        key = f", with the key from {self.key_place}" if self.key_place else ""
        return f"Service: {host}{key}. Clips that are files or in memory are uploaded there."


def resolve(
    *,
    service: str | None = None,
    api_key: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    model: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Settings from arguments, then environment, then, for the key, what keeps secrets here, then defaults.

    Parameters
    ----------
    service : str, optional
        ``"local"``, ``"pyannoteai"`` or an address. Unset: ``VOICEPRINT_NB_SERVICE``, else the hosted
        service when there is a key, else local.
    api_key : str, optional
        Unset: ``PYANNOTEAI_API_KEY``. If that is unset too, and the service is unset or the hosted one:
        Colab's secret of this name, else the keyring's (if the package ``keyring`` is installed) for
        ``voiceprint_nb`` under this name. A key that is kept there goes to no other service. Empty: no key.
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
    wanted = service if service is not None else environ.get(SERVICE_VARIABLE) or None
    address = None if wanted is None else _address(wanted)
    kept = _Kept()
    key, place = api_key, "api_key="
    if key is None:
        key, place = environ.get(KEY_VARIABLE, ""), f"the variable {KEY_VARIABLE}"
        if not key.strip() and address in (None, HOSTED_URL):
            kept = _kept_key()
            key, place = kept.key, kept.place
    key = key.strip()
    _refuse_key(key, place)
    if address is None:
        address = HOSTED_URL if key else "local"
    settings = Settings(
        service=address,
        api_key=None if address == "local" else key or None,
        data_dir=Path(data_dir).expanduser() if data_dir is not None else default_data_dir(environ),
        model=model,
        key_place=kept.place,
    )
    if address == HOSTED_URL and not key:
        told = " ".join(
            [
                f"The hosted service needs a key: pass api_key=, set {KEY_VARIABLE}, or keep it under this "
                "name in Colab's secrets or the keyring; service='local' works without one.",
                *kept.troubles,
            ]
        )
        raise UsageError(told)
    if settings.api_key and address.startswith("http://") and not settings.is_loopback:
        raise UsageError("The key would travel unencrypted to that http:// address: use https://.")
    return settings


def _refuse_key(key: str, place: str) -> None:
    if key.startswith("hf_"):
        raise UsageError(
            f"The key from {place} starts with 'hf_': that is a Hugging Face token. Create a pyannoteAI key "
            "at https://dashboard.pyannote.ai and put it there instead."
        )
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise UsageError(f"The key from {place} holds characters that no key has: copy it again.")


# --- what keeps secrets ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kept:
    """The key that was found, where, and in sentences why others could not be read."""

    key: str = field(default="", repr=False)
    place: str = ""
    troubles: tuple[str, ...] = ()


def _kept_key() -> _Kept:
    """Look where this notebook or system keeps secrets; what cannot be read holds nothing up."""
    troubles = []
    places: tuple[tuple[str, Callable[[], object], Callable[[str], str]], ...] = (
        (f"Colab's secret {KEY_VARIABLE}", _in_colab, _colab_trouble),
        ("the keyring", _in_keyring, _keyring_trouble),
    )
    for place, look, trouble in places:
        try:
            key = look()
        except Exception as error:  # of whatever backend; its text may hold anything
            if told := trouble(type(error).__name__):
                troubles.append(told)
            continue
        if isinstance(key, str) and key.strip():
            return _Kept(key.strip(), place)
    return _Kept(troubles=tuple(troubles))


def _in_colab() -> object:
    """Colab's secret; only its own kernels have the module loaded, and elsewhere it would wait for ever."""
    if "google.colab" not in sys.modules:
        return None
    return importlib.import_module("google.colab.userdata").get(KEY_VARIABLE)


def _colab_trouble(error: str) -> str:
    if error == "SecretNotFoundError":
        return ""
    if error == "NotebookAccessError":
        return (
            f"Colab has a secret {KEY_VARIABLE}, but this notebook may not read it: switch its access on, "
            "under the key at the left."
        )
    return f"Colab's secrets could not be read ({error}): open the notebook in Colab's own page."


def _in_keyring() -> object:
    if importlib.util.find_spec("keyring") is None:
        return None
    import keyring

    answer: Future[str | None] = Future()

    def ask() -> None:
        try:
            answer.set_result(keyring.get_password(KEYRING_SERVICE, KEY_VARIABLE))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=ask, name="voiceprint-keyring", daemon=True).start()
    return answer.result(_KEYRING_S)


def _keyring_trouble(error: str) -> str:
    if error == "NoKeyringError":  # the package is there, but nothing that keeps secrets
        return ""
    return f"The keyring could not be read ({error}): unlock it."


# --- addresses ------------------------------------------------------------------------------------------


def _address(service: str) -> str:
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
            "Unknown service: use 'local', 'pyannoteai' or an address such as http://localhost:8000."
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
