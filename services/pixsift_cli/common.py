"""What every command needs: settings, and facts printed for people or as JSON."""

import json
from typing import Annotated, Any

import typer

from pixsift.config import DatabaseSettings
from pixsift.errors import UserError

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def database_url() -> str:
    """The ledger's URL from the settings. Raises UserError when there is none."""
    url = DatabaseSettings().database_url.get_secret_value()
    if not url:
        raise UserError("no ledger: set PIXSIFT_DATABASE_URL, or start the local loop: pixsift up")
    return url


def emit(facts: Any, as_json: bool, text: str) -> None:
    """Print ``facts`` as JSON, or ``text`` for people."""
    typer.echo(json.dumps(facts, indent=2, default=str) if as_json else text)
