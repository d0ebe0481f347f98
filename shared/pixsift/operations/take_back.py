"""Takes back the decision about one object: the order of the steps is the protocol.

Kept and duplicate are decided again from their stored vectors; rejected, failed and gone are sent
through the ingest queue once more. The queue must answer before anything is taken back, and the
duplicates of a remembered object are decided again before any step that can fail.
"""

from collections.abc import Iterable
from typing import Protocol

from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.ledger.generation_rows import named_outcomes
from pixsift.adapters.ledger.rejudge import Rejudge
from pixsift.adapters.postgres.database import Database
from pixsift.answers.decisions import TakenBack
from pixsift.core.identity import S3Uri
from pixsift.errors import NotFoundError
from pixsift.operations.reconcile import backfill_bodies


class Ingest(Protocol):
    """What leads to another judgement: the ingest queue, or, of a folder, its next run."""

    def depth(self) -> tuple[int, int]:
        """Raise DependencyDownError or TransientError unless it answers."""
        ...

    def send(self, bodies: Iterable[str]) -> int:
        """Send these objects to be judged again."""
        ...


class NextRun:
    """The next run over a folder judges every file without an outcome."""

    def depth(self) -> tuple[int, int]:
        """Always available."""
        return 0, 0

    def send(self, bodies: Iterable[str]) -> int:
        """Nothing to send."""
        return 0


def take_back(
    database: Database, queue: Ingest, collection: str, uri: S3Uri, *, actor: str = "pixsift"
) -> TakenBack:
    """Take back what ``collection`` decided about the object (every version, or the one named).

    Raises NotFoundError for an unknown collection or object.
    """
    rejudge = Rejudge(database, actor=actor)
    found_collection = Collections(database).collection(collection)
    found = rejudge.find(uri.bucket, uri.key, uri.version_id)
    if not found:
        raise NotFoundError(
            f"the ledger knows no object {uri.location} that is not erased",
            code="unknown_object",
        )
    ids = [known.object_id for known in found]
    queue.depth()  # it must answer before a decision is taken back
    undone = set(rejudge.take_back(found_collection, ids))
    # Before any step that can fail: duplicates of a remembered object that was taken back.
    changed = rejudge.again(found_collection, ids, why="undo")
    queue.send(backfill_bodies([k.version for k in found if k.object_id in undone]))
    with database.connection() as connection:
        decided_again = named_outcomes(connection, changed)
    return TakenBack(
        sent_again=[k.version.uri for k in found if k.object_id in undone],
        decided_again=decided_again,
        unchanged=len(found) - len(undone) - len([c for c in changed if c.object_id in ids]),
    )
