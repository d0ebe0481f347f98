"""Who may ask: bearer tokens, made, listed, ended and checked; and who changed what.

A token is ``px_<id>_<secret>``. The ledger holds a SHA-256 of the secret: 256 random bits cannot be
guessed, so neither a salt nor a slow hash would add anything.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pixsift.adapters.aws.journal import Obligation
from pixsift.adapters.ledger.access import AccessRows
from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.postgres.database import Database
from pixsift.api import (
    Action,
    ActionPage,
    NewToken,
    Role,
    Token,
    TokenAsk,
    TokenList,
    Turn,
    TurnPage,
)
from pixsift.errors import NotFoundError

_PREFIX = "px"
_DAY_SECONDS = 86_400.0


class RevocationJournal(Protocol):
    """See ``pixsift.operations.obligations.Obligations``."""

    def write_revocation(self, token_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a token belongs to."""

    actor: str
    role: Role
    token_id: str


def create_token(database: Database, ask: TokenAsk, *, actor: str) -> NewToken:
    """Make a token. Its secret is in the answer and nowhere else."""
    token_id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
    row = AccessRows(database).add_token({
        "token_id": token_id, "name": ask.name, "role": ask.role,
        "secret_sha256": _digest(secret), "created_by": actor,
        "expires_seconds": None if ask.expires_days is None else ask.expires_days * _DAY_SECONDS,
    })  # fmt: skip
    record(database, actor, "token_create", detail={"token_id": token_id, "role": ask.role})
    return NewToken(**row, token=f"{_PREFIX}_{token_id}_{secret}")


def list_tokens(database: Database) -> TokenList:
    """Every token, without its secret."""
    return TokenList(tokens=[Token(**row) for row in AccessRows(database).tokens()])


def revoke_token(
    database: Database, token_id: str, *, actor: str, journal: RevocationJournal | None = None
) -> Token:
    """End a token at once, also in a ledger that is restored later.

    journal: None: none is kept. Raises NotFoundError where there is no token of that id, and
    DependencyDownError where the journal cannot be written; the token is revoked then, and revoking
    it again writes the journal.
    """
    row = AccessRows(database).revoke(token_id)
    if row is None:
        raise NotFoundError(f"no token {token_id!r}", code="unknown_token")
    record(database, actor, "token_revoke", detail={"token_id": token_id})
    if journal is not None:
        journal.write_revocation(token_id)
    return Token(**row)


def meet_revocation(database: Database, entry: Obligation) -> bool:
    """End a token in a restored ledger, where it exists."""
    AccessRows(database).revoke(str(entry.facts["token_id"]))
    return True


def caller_of(database: Database, presented: str) -> Caller | None:
    """Who presents this token; None where it is not a valid one: unknown, revoked or expired."""
    prefix, _, rest = presented.partition("_")
    token_id, _, secret = rest.partition("_")
    if prefix != _PREFIX or not token_id.isalnum() or not token_id.isascii() or not secret:
        return None
    rows = AccessRows(database)
    stored = rows.token(token_id)
    matches = hmac.compare_digest(
        _digest(secret), b"" if stored is None else bytes(stored.secret_sha256)
    )
    if stored is None or not matches or stored.is_revoked or stored.is_expired:
        return None
    rows.touch(token_id)
    role: Role = stored.role  # type: ignore[assignment]  # the column's check allows no other
    return Caller(f"{stored.name}#{token_id}", role, token_id)


def record(
    database: Database, actor: str, action: str, *,
    collection: str | None = None, detail: Mapping[str, Any] | None = None,
) -> int:  # fmt: skip
    """Note who changed what, and when."""
    return AccessRows(database).record(actor, action, collection, detail or {})


def actions(
    database: Database, *, collection: str | None, before: int | None, limit: int
) -> ActionPage:
    """Changes, the newest first."""
    rows = AccessRows(database).actions(before=before, collection=collection, limit=limit)
    return ActionPage(actions=[Action(**row) for row in rows])


def turns(database: Database, collection: str, *, before: int | None, limit: int) -> TurnPage:
    """Decision transactions, the newest first. Raises NotFoundError for an unknown collection."""
    found = Collections(database).collection(collection)
    rows = AccessRows(database).turns(found.collection_id, before=before, limit=limit)
    return TurnPage(collection=found.name, turns=[Turn(**row) for row in rows])


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
