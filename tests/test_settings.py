"""Argument, else environment, else default; the key goes where it must and is shown nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import keyring
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, NoKeyringError

from voiceprint_nb import settings as module
from voiceprint_nb.errors import UsageError
from voiceprint_nb.settings import HOSTED_URL, Settings, resolve

KEY = "sk_0123456789abcdef"
KEPT = "sk_fedcba9876543210"


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


# --- what keeps secrets ---------------------------------------------------------------------------------


class Keys(KeyringBackend):
    """A keyring that holds one key, or fails as it is told."""

    priority = 1  # type: ignore[assignment]  # keyring's own backends say it so, too

    def __init__(self, answer: Callable[[], str | None]) -> None:
        super().__init__()
        self.answer = answer
        self.asked: list[tuple[str, str]] = []

    def get_password(self, service: str, username: str) -> str | None:
        self.asked.append((service, username))
        return self.answer()

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError


@pytest.fixture
def kept() -> Iterator[Callable[[Callable[[], str | None]], Keys]]:
    """Puts a backend of its own into the keyring."""
    before = keyring.get_keyring()

    def put(answer: Callable[[], str | None]) -> Keys:
        keyring.set_keyring(keys := Keys(answer))
        return keys

    yield put
    keyring.set_keyring(before)


def fails(error: Exception) -> Callable[[], str | None]:
    def answer() -> str | None:
        raise error

    return answer


Put = Callable[[Callable[[], str | None]], Keys]


def test_a_key_in_the_keyring_means_the_hosted_service(kept: Put) -> None:
    keys = kept(lambda: f" {KEPT}\n")
    for service in (None, "pyannoteai", "https://api.pyannote.ai/v1"):
        found = resolve(service=service, environ={})
        assert (found.service, found.api_key) == (HOSTED_URL, KEPT)
        assert "api.pyannote.ai, with the key from the keyring. Clips" in found.destination
        assert KEPT not in f"{found!r}{found.destination}"
    assert keys.asked == [("voiceprint_nb", "PYANNOTEAI_API_KEY")] * 3


def test_argument_and_environment_win_over_the_keyring(kept: Put) -> None:
    keys = kept(lambda: KEPT)
    for found in (resolve(api_key=KEY, environ={}), resolve(environ={"PYANNOTEAI_API_KEY": KEY})):
        assert (found.api_key, found.key_place) == (KEY, "")
    assert resolve(api_key="", environ={}).is_local
    assert keys.asked == []


@pytest.mark.parametrize(
    "service", ["local", "http://localhost:8000", "https://voices.example", "http://10.0.0.7:8000"]
)
def test_a_kept_key_goes_to_no_other_service(kept: Put, service: str) -> None:
    keys = kept(lambda: KEPT)
    assert resolve(service=service, environ={}).api_key is None
    assert resolve(environ={"VOICEPRINT_NB_SERVICE": service}).api_key is None
    assert keys.asked == []


@pytest.mark.parametrize("answer", [lambda: None, lambda: "", lambda: " \n", fails(NoKeyringError("none"))])
def test_an_empty_keyring_is_none(kept: Put, answer: Callable[[], str | None]) -> None:
    kept(answer)
    assert resolve(environ={}).is_local
    with pytest.raises(UsageError, match=r"set PYANNOTEAI_API_KEY, or keep it .* works without one\.$"):
        resolve(service="pyannoteai", environ={})


@pytest.mark.parametrize("error", [KeyringLocked(KEPT), RuntimeError(KEPT), OSError(KEPT)])
def test_a_keyring_that_fails_breaks_no_local_run_and_is_told_where_it_is_missed(
    kept: Put, error: Exception
) -> None:
    kept(fails(error))
    assert resolve(environ={}).is_local
    told = rf"works without one\. The keyring could not be read \({type(error).__name__}\): unlock it\.$"
    with pytest.raises(UsageError, match=told) as caught:
        resolve(service="pyannoteai", environ={})
    assert KEPT not in repr(caught.value)
    assert caught.value.__context__ is None


def test_a_keyring_that_never_answers_ends_nothing(kept: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEYRING_S", 0.01)
    released = threading.Event()
    kept(lambda: str(released.wait()))
    try:
        assert resolve(environ={}).is_local
        with pytest.raises(UsageError, match=r"could not be read \(TimeoutError\)"):
            resolve(service="pyannoteai", environ={})
    finally:
        released.set()
        for thread in threading.enumerate():
            if thread.name == "voiceprint-keyring":
                thread.join()


def test_without_the_package_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert resolve(environ={}).is_local
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "keyring", None)  # as after a broken installation
    assert resolve(environ={}).is_local


@pytest.mark.parametrize(
    ("call", "place"),
    [
        ({"api_key": "hf_abcdef"}, "api_key="),
        ({"environ": {"PYANNOTEAI_API_KEY": "hf_abcdef"}}, "the variable PYANNOTEAI_API_KEY"),
        ({}, "the keyring"),
    ],
)
def test_the_place_of_a_wrong_token_is_named(kept: Put, call: dict[str, object], place: str) -> None:
    kept(lambda: "hf_abcdef")
    with pytest.raises(UsageError, match=f"The key from {place} starts with 'hf_'") as caught:
        resolve(**{"environ": {}, **call})  # type: ignore[arg-type]
    assert "hf_abcdef" not in str(caught.value)
    kept(lambda: "sk one")
    if place == "the keyring":
        with pytest.raises(UsageError, match="The key from the keyring holds characters"):
            resolve(environ={})


COLAB = """
class SecretNotFoundError(Exception): pass
class NotebookAccessError(Exception): pass
class TimeoutException(Exception): pass

asked = []

def get(key):
    asked.append(key)
    {does}
"""
IN_COLAB = """
import sys
{loads}
from voiceprint_nb.errors import UsageError
from voiceprint_nb.settings import resolve
assert "google.colab.userdata" not in sys.modules or not sys.modules["google.colab.userdata"].asked
for service in {services}:
    try:
        found = resolve(service=service, environ={{}})
        print(found.service, found.api_key, found.key_place)
    except UsageError as error:
        print(error)
"""


@pytest.fixture
def in_colab(tmp_path: Path) -> Callable[..., list[str]]:
    """What `resolve` says for each service in a process that has Colab's module."""

    def run(does: str, *services: str | None, loads: str = "import google.colab") -> list[str]:
        folder = tmp_path / "google" / "colab"
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder / "userdata.py").write_text(COLAB.format(does=does))
        code = IN_COLAB.format(services=services, loads=loads)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], env={**os.environ, "PYTHONPATH": str(tmp_path)},
            cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    return run


def test_colab_s_secret_is_the_key_of_the_hosted_service_only(in_colab: Callable[..., list[str]]) -> None:
    place = "Colab's secret PYANNOTEAI_API_KEY"
    told = in_colab(f"return {KEPT!r} if key == 'PYANNOTEAI_API_KEY' else ''", None, "pyannoteai", "local")
    assert told == [f"{HOSTED_URL} {KEPT} {place}", f"{HOSTED_URL} {KEPT} {place}", "local None "]


def test_a_token_in_colab_s_secrets_is_refused(in_colab: Callable[..., list[str]]) -> None:
    (told,) = in_colab("return 'hf_abcdef'", None)
    assert told.startswith("The key from Colab's secret PYANNOTEAI_API_KEY starts with 'hf_'")


@pytest.mark.parametrize(
    ("does", "why"),
    [
        ("raise SecretNotFoundError(key)", ""),
        ("return ''", ""),
        ("raise NotebookAccessError(key)", "may not read it: switch its access on"),
        ("raise TimeoutException(key)", "(TimeoutException): open the notebook in Colab's own page"),
    ],
)
def test_secrets_that_colab_does_not_give(in_colab: Callable[..., list[str]], does: str, why: str) -> None:
    local, refused = in_colab(does, None, "pyannoteai")
    assert local == "local None "
    if why:
        assert why in refused
    else:
        assert refused.endswith("works without one.")


def test_colab_s_package_elsewhere_is_not_asked(in_colab: Callable[..., list[str]]) -> None:
    """It would wait for a front end that is not there."""
    assert in_colab(f"return {KEPT!r}", None, loads="") == ["local None "]
