"""The example for systemd is sound and fits the command."""

from __future__ import annotations

import argparse
import configparser
import shlex
import shutil
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

from voiceprint_nb import command

UNIT = Path(__file__).resolve().parents[1] / "deploy" / "voiceprint-nb.service"


@pytest.fixture(scope="module")
def service() -> configparser.SectionProxy:
    """The ``[Service]`` section; a setting that is there twice is an error."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return parser["Service"]


@pytest.fixture(scope="module")
def arguments(service: configparser.SectionProxy) -> argparse.Namespace:
    """What the command understands of the unit."""
    return command._parser().parse_args(shlex.split(service["ExecStart"])[1:])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_it(tmp_path: Path) -> None:
    text = UNIT.read_text()
    binary = "\nExecStart=/opt/voiceprint-nb/bin/voiceprint-nb "
    assert text.count(binary) == 1
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace(binary, f"\nExecStart={sys.executable} "))  # one that there is
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if UNIT.name in line]  # other units may have faults
    assert (done.returncode, said) == (0, [])


def test_the_command_takes_its_arguments(
    arguments: argparse.Namespace, service: configparser.SectionProxy
) -> None:
    assert arguments.command == "serve"
    assert arguments.data_dir == Path("/var/lib") / service["StateDirectory"]
    assert ip_address(arguments.host).is_loopback
    assert all(ip_address(proxy).is_loopback for proxy in arguments.behind_proxy)


def test_it_may_end_in_its_own_time(
    arguments: argparse.Namespace, service: configparser.SectionProxy
) -> None:
    """The service ends by itself before systemd kills it."""
    assert service["KillSignal"] == "SIGTERM"
    assert int(service["TimeoutStopSec"]) > arguments.shutdown_s + 10


def test_data_is_for_its_user_only_and_numeric_libraries_work(service: configparser.SectionProxy) -> None:
    assert (service["StateDirectoryMode"], service["UMask"], service["DynamicUser"]) == (
        "0700",
        "0077",
        "yes",
    )
    assert not {"MemoryDenyWriteExecute", "ProcSubset"} & set(service)
