"""Brings the ledger's schema up to date."""

from pixsift.adapters.postgres import migrate as migrations
from pixsift.adapters.postgres.database import Login


def migrate(login: Login) -> list[str]:
    """Apply what is missing, one process at a time; the names of what was applied, in order."""
    return migrations.migrate(login)


def pending(login: Login) -> list[str]:
    """The names of the migrations that would be applied now."""
    return migrations.pending(login)
