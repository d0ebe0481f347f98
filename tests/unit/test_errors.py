from pixsift.errors import PermanentError


def test_permanent_error__says_reason_and_detail() -> None:
    assert str(PermanentError("truncated", "at byte 512")) == "truncated: at byte 512"
    assert str(PermanentError("empty")) == "empty"
