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
    if check:
        waiting = pending(login)
        emit(waiting, as_json, [f"pending {name}" for name in waiting.pending] or "up to date")
    else:
        done = run_migrations(login)
        emit(done, as_json, [f"applied {name}" for name in done.applied] or "up to date")
