"""``pixsift migrate``."""

import typer

from pixsift.operations.migrate import migrate as run_migrations
from pixsift.operations.migrate import pending
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, emit


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(migrate)


def migrate(
    check: bool = typer.Option(False, "--check", help="Only list what would be applied."),
    as_json: JsonOption = False,
) -> None:
    """Apply the ledger's schema migrations."""
    login = wiring.database_login()
    names = pending(login) if check else run_migrations(login)
    verb = "pending" if check else "applied"
    emit({verb: names}, as_json, [f"{verb} {name}" for name in names] or "up to date")
