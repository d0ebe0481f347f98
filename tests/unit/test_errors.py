import pickle

import pytest

from pixsift.errors import (
    AccessDeniedError,
    ConflictError,
    DependencyDownError,
    DeviceLostError,
    NotFoundError,
    ObjectGoneError,
    PermanentError,
    PixsiftError,
    Remedy,
    RequestError,
    SettingError,
    TransientError,
    UserError,
)


def test_permanent_error__says_reason_and_detail() -> None:
    assert str(PermanentError("truncated", "at byte 512")) == "truncated: at byte 512"
    assert str(PermanentError("empty")) == "empty"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingError("x"), "wrong_setting"),
        (NotFoundError("x"), "not_found"),
        (NotFoundError("x", code="unknown_collection"), "unknown_collection"),
        (ConflictError("x"), "conflict"),
        (RequestError("x"), "bad_request"),
        (PermanentError("too_large", "9 bytes"), "too_large"),
        (ObjectGoneError("deleted"), "deleted"),
        (TransientError("x"), "try_again"),
        (TransientError("x", reason="access_denied"), "access_denied"),
        (DependencyDownError("x"), "dependency_down"),
        (AccessDeniedError("x"), "access_denied"),
        (DeviceLostError("x"), "device_lost"),
    ],
)
def test_code__is_stable_and_survives_another_process(error: PixsiftError, code: str) -> None:
    """Programs rely on these words: a change here breaks scripts."""
    assert error.code == code
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes of a moment ago
    assert (type(copy), str(copy), copy.code) == (type(error), str(error), code)


def test_user_error__is_one_of_four_kinds() -> None:
    kinds = {SettingError, NotFoundError, ConflictError, RequestError}
    assert set(UserError.__subclasses__()) == kinds


def test_remedy__is_data_beside_the_message() -> None:
    error = ConflictError("generation 3 is being built", remedy=Remedy("take_over"))
    assert error.remedy == Remedy("take_over")
    assert "--" not in str(error)
