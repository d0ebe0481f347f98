"""What every command needs: settings, and facts printed for people or as JSON."""

import json
from typing import Annotated, Any

import typer

from pixsift.adapters.postgres import Database
from pixsift.config import DatabaseSettings
from pixsift.core.identity import S3Uri
from pixsift.errors import UserError

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def database_url() -> str:
    """The ledger's URL from the settings. Raises UserError when there is none."""
    url = DatabaseSettings().database_url.get_secret_value()
    if not url:
        raise UserError("no ledger: set PIXSIFT_DATABASE_URL, or start the local loop: pixsift up")
    return url


def open_database() -> Database:
    """The ledger's database; a context manager."""
    return Database(database_url(), max_connections=4, session={"statement_timeout": "10min"})


def s3_uri(text: str) -> S3Uri:
    """``s3://bucket/key?versionId=...``; raises UserError for anything else."""
    try:
        return S3Uri.parse(text)
    except ValueError as error:
        raise UserError(f"{text!r} {error}") from error


def emit(facts: Any, as_json: bool, text: str) -> None:
    """Print ``facts`` as JSON, or ``text`` for people."""
    typer.echo(json.dumps(facts, indent=2, default=str) if as_json else text)
