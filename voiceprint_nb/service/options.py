"""What ``voiceprint-nb serve`` can be told, and what does not fit."""

from __future__ import annotations

import ipaddress
import math
import os
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from voiceprint_nb.contract import READS_PER_WINDOW, WRITES_PER_WINDOW
from voiceprint_nb.engine.model import Model
from voiceprint_nb.errors import UsageError
from voiceprint_nb.settings import default_data_dir, is_loopback

_MAX_PORT = 65_535
_MAX_WORKERS = 256


@dataclass(frozen=True)
class Options:
    """The options with their defaults; ``voiceprint-nb serve --help`` describes them."""

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int | None = None
    compute: str | None = None
    model: str = Model.DEFAULT
    tls_cert: Path | None = None
    tls_key: Path | None = None
    behind_proxy: Sequence[str] = ()
    public_url: str | None = None
    allow_host: Sequence[str] = ()
    plain_webhooks: bool = False
    writes_per_minute: int = WRITES_PER_WINDOW
    reads_per_minute: int = READS_PER_WINDOW
    max_waiting: int = 10_000
    shutdown_s: float = 30.0

    def refuse_misfits(self, *, has_keys: bool) -> None:
        """Raise `UsageError` for what cannot be served."""
        if not (has_keys or is_loopback(self.host)):
            raise UsageError(
                f"Without keys only this machine is served, and {self.host} is open to others: make a key "
                "with 'voiceprint-nb keys add', or serve on 127.0.0.1."
            )
        if self.behind_proxy and not has_keys:
            raise UsageError("A proxy lets others in: make a key with 'voiceprint-nb keys add' first.")
        if self.compute is not None:
            from voiceprint_nb.service.cluster import scheduler_address

            scheduler_address(self.compute)
        self._refuse_numbers()
        self._refuse_names()
        self._refuse_tls()

    def _refuse_numbers(self) -> None:
        bounds = {
            "--port": (self.port, 0, _MAX_PORT),
            "--workers": (self.workers, 1, _MAX_WORKERS),
            "--max-waiting": (self.max_waiting, 1, math.inf),
            "--writes-per-minute": (self.writes_per_minute, 0, math.inf),
            "--reads-per-minute": (self.reads_per_minute, 0, math.inf),
            "--shutdown-s": (self.shutdown_s, 0, 86_400),
        }
        for name, (value, least, most) in bounds.items():
            if value is not None and not least <= value <= most:
                bound = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
                raise UsageError(f"{name} needs a number {bound}.")

    def _refuse_names(self) -> None:
        for name in self.allow_host:
            if not re.fullmatch(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]", name):
                raise UsageError(
                    f"--allow-host takes a host's name or address, without scheme and port: {name!r}."
                )
        for address in self.behind_proxy:
            if not _is_network(address):
                raise UsageError(f"--behind-proxy takes an address or network of the proxy: {address!r}.")
        if self.public_url is not None and not _is_base_url(self.public_url):
            raise UsageError(f"{self.public_url!r} is no http or https address.")

    def _refuse_tls(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("TLS needs both --tls-cert and --tls-key.")
        if self.tls_cert is None or self.tls_key is None:
            return
        for path in (self.tls_cert, self.tls_key):
            if not path.is_file():
                raise UsageError(f"{str(path)!r} is not a file: name the PEM file.")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.tls_cert, self.tls_key)
        except OSError as error:  # ssl.SSLError is one
            raise UsageError(f"The TLS files cannot be used: {error.strerror or error}.") from error


def service_folder(data_dir: Path | None) -> Path:
    """Where a served service keeps jobs, media and keys."""
    return default_data_dir(os.environ) / "service" if data_dir is None else data_dir.expanduser()


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _is_base_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return bool(
            re.fullmatch("https?://[!-~]+", text)
            and parts.hostname
            and (parts.port is None or parts.port > 0)
            and not (parts.query or parts.fragment or parts.username)
        )
    except ValueError:
        return False
