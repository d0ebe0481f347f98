"""Brings the ledger's schema up to date."""

from pixsift.adapters.postgres import migrate as migrations
from pixsift.adapters.postgres.database import Login
from pixsift.answers.deployment import AppliedMigrations, PendingMigrations


def migrate(login: Login) -> AppliedMigrations:
    """Apply the missing migrations, one process at a time; returns their names in order."""
    return AppliedMigrations(applied=migrations.migrate(login))


def pending(login: Login) -> PendingMigrations:
    """The names of the migrations that would be applied now."""
    return PendingMigrations(pending=migrations.pending(login))
