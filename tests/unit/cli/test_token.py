"""``pixsift token``: made once, listed without its secret, ended."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from ledger_world import rows
from pixsift.adapters.postgres.database import Database
from pixsift.errors import NotFoundError, RequestError
from pixsift.operations.access import caller_of
from pixsift_cli.main import app


def token(*arguments: str) -> Any:
    result = CliRunner().invoke(app, ["token", *arguments, "--json"])
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout)


def test_token__lives_from_create_to_revoke(
    database_url: str, monkeypatch: pytest.MonkeyPatch, curated: str
) -> None:
    monkeypatch.setenv("PIXSIFT_DATABASE_URL", database_url)
    made = token("create", "ann", "--role", "reviewer", "--expires", "never")
    with Database(database_url) as database:
        caller = caller_of(database, made["token"])
        assert caller is not None and caller.role == "reviewer"
        (listed,) = token("list")["tokens"]
        assert "token" not in listed and listed["expires_at"] is None
        assert token("revoke", made["token_id"])["revoked_at"] is not None
        assert caller_of(database, made["token"]) is None
    assert rows(database_url, "SELECT kind FROM obligation") == [("revoked_token",)]
    with pytest.raises(NotFoundError, match="no token 'nope'"):
        token("revoke", "nope")


@pytest.mark.parametrize(
    "wrong", [("a", "--role", "king"), ("a", "--expires", "soon"), ("a", "--expires", "0"), ("",)]
)
def test_token__mistakes_are_named(wrong: tuple[str, ...]) -> None:
    with pytest.raises(RequestError):
        token("create", *wrong)
