import pytest

from pixsift.config import CuratorSettings, ModelSettings
from pixsift.errors import UserError
from pixsift_curator import main as curator


def test_settings__a_wrong_value_is_a_users_mistake_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIXSIFT_MAX_BATCH", "abc")
    with pytest.raises(UserError, match="PIXSIFT_MAX_BATCH='abc'"):
        ModelSettings()


def test_settings__a_log_level_in_any_case_and_none_that_logging_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIXSIFT_LOG_LEVEL", "debug")
    assert CuratorSettings().log_level == "debug"
    monkeypatch.setenv("PIXSIFT_LOG_LEVEL", "verbose")
    with pytest.raises(UserError, match="PIXSIFT_LOG_LEVEL='verbose'"):
        CuratorSettings()


def test_curator__a_wrong_setting_is_one_line_and_exit_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIXSIFT_SHARD_BYTES", "abc")
    with pytest.raises(SystemExit) as end:
        curator.main([])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
