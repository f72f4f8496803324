"""Argument, else environment, else default; the key goes where it must and is shown nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceprint_nb.errors import UsageError
from voiceprint_nb.settings import HOSTED_URL, Settings, resolve

KEY = "sk_0123456789abcdef"


def test_without_anything_the_service_is_local() -> None:
    found = resolve(environ={})
    assert (found.service, found.api_key, found.model) == ("local", None, None)
    assert found.is_local and found.is_loopback
    assert "stays on this machine" in found.destination


def test_a_key_means_the_hosted_service() -> None:
    for found in (resolve(api_key=KEY, environ={}), resolve(environ={"PYANNOTEAI_API_KEY": f" {KEY}\n"})):
        assert (found.service, found.api_key) == (HOSTED_URL, KEY)
        assert not found.is_local and not found.is_loopback
        assert "api.pyannote.ai" in found.destination


def test_arguments_win_over_the_environment_over_defaults(tmp_path: Path) -> None:
    environ = {
        "PYANNOTEAI_API_KEY": "sk_environment",
        "VOICEPRINT_NB_SERVICE": "https://environment.example",
        "VOICEPRINT_NB_DATA_DIR": str(tmp_path / "environment"),
    }
    found = resolve(environ=environ)
    assert found == Settings("https://environment.example", "sk_environment", tmp_path / "environment")
    found = resolve(
        service="https://argument.example", api_key=KEY, data_dir=tmp_path / "argument", environ=environ
    )
    assert found == Settings("https://argument.example", KEY, tmp_path / "argument")
    assert resolve(service="local", environ=environ).service == "local"
    assert resolve(api_key="", service="https://a.example", environ=environ).api_key is None


def test_the_local_service_gets_no_key() -> None:
    assert resolve(service="local", api_key=KEY, environ={}).api_key is None


def test_empty_variables_count_as_unset() -> None:
    names = ("PYANNOTEAI_API_KEY", "VOICEPRINT_NB_SERVICE", "VOICEPRINT_NB_DATA_DIR")
    found = resolve(environ=dict.fromkeys(names, ""))
    assert found.service == "local"
    assert found.data_dir.is_absolute() and found.data_dir.name == "voiceprint_nb"


def test_a_data_folder_may_start_with_a_tilde() -> None:
    assert resolve(data_dir="~/prints", environ={}).data_dir == Path.home() / "prints"


@pytest.mark.parametrize(
    ("given_key", "remedy"),
    [
        ("hf_abcdefghijklmnop", "Hugging Face"),
        ("sk_with\nbreak", "copy it again"),
        ("Bearer sk_abc", "copy it again"),
        ("sk_ключ", "copy it again"),
        ("sk_\x00", "copy it again"),
    ],
)
def test_what_is_no_key_is_refused_and_not_repeated(given_key: str, remedy: str) -> None:
    for call in ({"api_key": given_key}, {"environ": {"PYANNOTEAI_API_KEY": given_key}}):
        with pytest.raises(UsageError, match=remedy) as caught:
            resolve(**{"environ": {}, **call})  # type: ignore[arg-type]
        assert given_key not in str(caught.value)


def test_the_key_is_shown_nowhere() -> None:
    found = resolve(api_key=KEY, environ={})
    assert KEY not in f"{found!r} {found} {found.destination}"


@pytest.mark.parametrize("service", ["pyannoteai", "https://api.pyannote.ai", "https://API.pyannote.ai/v1/"])
def test_the_hosted_service_needs_a_key(service: str) -> None:
    with pytest.raises(UsageError, match="service='local' works without"):
        resolve(service=service, environ={})
    assert resolve(service=service, api_key=KEY, environ={}).service == HOSTED_URL


@pytest.mark.parametrize(
    ("service", "address"),
    [
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://localhost:8000/", "http://localhost:8000"),
        ("http://localhost:8000/v1", "http://localhost:8000"),
        ("https://host.example/v1/", "https://host.example"),
        ("https://host.example/prints/v1", "https://host.example/prints"),
        ("https://host.example/v10", "https://host.example/v10"),
        ("  HTTPS://Host.Example:444//  ", "https://host.example:444"),
        ("http://[::1]:8000/v1", "http://[::1]:8000"),
    ],
)
def test_addresses_are_brought_into_one_form(service: str, address: str) -> None:
    assert resolve(service=service, environ={}).service == address


@pytest.mark.parametrize(
    "service", ["", "lokal", "localhost:8000", "ftp://host", "http://", "https:host", "http://[::1", "http://h:x",
                "http://h:99999", "https://host/?key=1"]
)  # fmt: skip
def test_unknown_services_are_refused_with_examples(service: str) -> None:
    with pytest.raises(UsageError, match="'local', 'pyannoteai' or an address such as"):
        resolve(service=service, api_key=KEY, environ={})


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match="api_key=") as caught:
        resolve(service="https://me:secret@host.example", environ={})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("service", ["http://host.example", "HTTP://host.example", "http://10.0.0.7:8000"])
def test_a_key_never_travels_unencrypted(service: str) -> None:
    with pytest.raises(UsageError, match="https://"):
        resolve(service=service, api_key=KEY, environ={})
    assert resolve(service=service, environ={}).api_key is None
    assert resolve(service=service.lower().replace("http", "https"), api_key=KEY, environ={}).api_key == KEY


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "[::1]", "LOCALHOST"])
def test_on_this_machine_a_key_may_travel(host: str) -> None:
    found = resolve(service=f"http://{host}:8000", api_key=KEY, environ={})
    assert found.is_loopback and found.api_key == KEY


@given(service=st.text() | st.text().map("http://{}".format), key=st.text())
@settings(max_examples=200, deadline=None, database=None)
def test_nothing_but_a_usage_error_comes_out(service: str, key: str) -> None:
    try:
        found = resolve(service=service, api_key=key, environ={})
    except UsageError:
        return
    assert found.is_local or found.service.startswith(("http://", "https://"))
    assert resolve(service=found.service, environ={}).service == found.service
