"""Messages and objects that could not be decided: shows them, and sends them again."""

from psycopg.rows import dict_row

from pixsift.adapters.aws.sqs import MAX_BATCH, Message, SqsQueue
from pixsift.adapters.postgres.database import Database
from pixsift.answers.queues import (
    Anomaly,
    DeadLetter,
    DeadLetterQueue,
    FailedVersion,
    Redriven,
    Undecided,
)
from pixsift.core.events import parse_notification
from pixsift.core.identity import ObjectVersion
from pixsift.operations.reconcile import backfill_bodies
from pixsift.sql import statements

_SQL = statements("reconcile")
_PEEK_SECONDS = 5
"""How long a message stays hidden from the consumer after it was shown."""
_SHOWN_BYTES = 500
"""Of an anomaly's body."""


def undecided(database: Database, dlq: SqsQueue, *, limit: int, messages: bool) -> Undecided:
    """Failed objects, anomalies and the DLQ, at most ``limit`` of each.

    messages: look into the waiting messages as well. SQS counts each look as a receive, and the
    slow lane allows only a few before it gives a message up.
    """
    failed = failed_versions(database)
    newest = anomalies(database, limit)
    waiting, in_flight = dlq.depth()
    return Undecided(
        dlq=DeadLetterQueue(
            waiting=waiting, in_flight=in_flight, messages=peek(dlq, limit) if messages else []
        ),
        failed=failed[:limit],
        failed_total=len(failed),
        anomalies=newest,
    )


def redrive(
    database: Database | None, dlq: SqsQueue, source: SqsQueue, *, limit: int | None = None
) -> Redriven:
    """Send the DLQ's messages back to the queue they came from, ``limit`` at most.

    database: also send the objects whose outcome is ``failed`` again; None: do not.
    """
    moved = _move(dlq, source, limit)
    again = 0
    if database is not None:
        versions = {ObjectVersion(r.bucket, r.key, r.version_id) for r in failed_versions(database)}
        source.send(backfill_bodies(sorted(versions, key=lambda v: (v.bucket, v.key))))
        again = len(versions)
    return Redriven(messages=moved, failed_objects=again)


def failed_versions(database: Database) -> list[FailedVersion]:
    """Versions whose outcome is ``failed``, with the reason."""
    with database.connection() as connection:
        cursor = connection.cursor(row_factory=dict_row)
        rows = cursor.execute(_SQL["failed_versions"]).fetchall()
    return [FailedVersion(**row) for row in rows]


def anomalies(database: Database, limit: int) -> list[Anomaly]:
    """The newest messages that were not object events."""
    with database.connection() as connection:
        cursor = connection.cursor(row_factory=dict_row)
        rows = cursor.execute(_SQL["recent_anomalies"], {"limit": limit}).fetchall()
    return [
        Anomaly(**row | {"body": bytes(row["body"])[:_SHOWN_BYTES].decode("utf-8", "replace")})
        for row in rows
    ]


def peek(dlq: SqsQueue, limit: int) -> list[DeadLetter]:
    """The objects of up to ``limit`` messages; the messages are given back at once."""
    seen: dict[str, Message] = {}
    while len(seen) < limit:
        batch = _receive(dlq, min(MAX_BATCH, limit - len(seen)), _PEEK_SECONDS)
        fresh = [message for message in batch if message.message_id not in seen]
        if not fresh:
            break
        seen |= {message.message_id: message for message in fresh}
    dlq.release(list(seen.values()))
    return [_letter(message) for message in seen.values()]


def _move(dlq: SqsQueue, source: SqsQueue, limit: int | None) -> int:
    """A message is deleted here only after it was sent there: interrupted in between, it is in
    both, and the second delivery finds its outcome."""
    moved = 0
    while limit is None or moved < limit:
        room = MAX_BATCH if limit is None else min(MAX_BATCH, limit - moved)
        batch = _receive(dlq, room, 60)
        if not batch:
            break
        source.send(message.body for message in batch)
        dlq.ack(batch)
        moved += len(batch)
    return moved


def _receive(dlq: SqsQueue, room: int, seconds: int) -> list[Message]:
    return dlq.receive(room, wait_seconds=1, visibility_timeout_seconds=seconds)


def _letter(message: Message) -> DeadLetter:
    parsed = parse_notification(message.body)
    return DeadLetter(
        message_id=message.message_id,
        receive_count=message.receive_count,
        sent_at=message.sent_at,
        objects=[f"s3://{r.bucket}/{r.key}" for r in parsed.records],
        anomaly=parsed.anomaly,
    )
