"""The error tree is what its docstring draws, and every code leads to a status that is documented."""

from __future__ import annotations

import pickle
import re

import pytest

from voiceprint_nb import errors

STATUSES = {"invalid", "failed", "canceled", "pending"}


@pytest.mark.parametrize("code", errors.ROW_CODES)
def test_every_code_has_a_status_and_a_meaning(code: str) -> None:
    status, meaning = errors.ROW_CODES[code]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)
    assert status in STATUSES
    assert meaning and meaning[0].islower() and not meaning.endswith(".")
    error = errors.RowError(code, "A sentence.")
    assert (error.code, error.status, str(error), error.facts) == (code, status, "A sentence.", None)


def test_an_undocumented_code_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError):
        errors.RowError("no_such_code", "A sentence.")


def test_the_tree_is_as_drawn() -> None:
    assert issubclass(errors.MissingExtra, errors.UsageError)
    assert issubclass(errors.MissingExtra, ImportError)
    assert issubclass(errors.UsageError, ValueError)
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    exported = {name for name in errors.__all__ if name[0].isupper() and name != "ROW_CODES"}
    assert {"VoiceprintError", *drawn} == exported
    for name in exported:
        assert issubclass(getattr(errors, name), errors.VoiceprintError)


@pytest.mark.parametrize(
    ("error", "retryable", "code"),
    [
        (errors.KeyRefused("k", status=401), False, "key_refused"),
        (errors.NoCredit("n", status=402), False, "no_credit"),
        (errors.RequestRefused("r", status=400), False, "request_refused"),
        (errors.RateLimited("r", retry_after_s=3.0), True, "service_unavailable"),
        (errors.ServiceUnavailable("s", status=503), True, "service_unavailable"),
        (errors.ProtocolError("p"), False, "bad_answer"),
    ],
)
def test_service_errors_say_whether_to_try_again(
    error: errors.ServiceError, retryable: bool, code: str
) -> None:
    assert (error.retryable, error.code) == (retryable, code)
    assert error.partial is None and not error.concerns_all_rows


def test_what_an_error_carries() -> None:
    assert errors.RateLimited("r", retry_after_s=3.0).retry_after_s == 3.0
    assert errors.RateLimited("r", retry_after_s=3.0).status == 429
    assert errors.ServiceUnavailable("s").sent
    assert not errors.ServiceUnavailable("s", sent=False).sent


@pytest.mark.parametrize(
    "error",
    [
        errors.RowError("too_long", "Cut it."),
        errors.RateLimited("Wait.", retry_after_s=3.0),
        errors.KeyRefused("Check it.", status=401),
        errors.ServiceUnavailable("Later.", sent=False),
        errors.UsageError("Do this."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - made one line above
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.__dict__ == error.__dict__
