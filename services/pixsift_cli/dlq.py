"""``pixsift dlq list|redrive``: what could not be decided."""

import json
from typing import Annotated, Any

import typer

from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.aws.sqs import SqsQueue
from pixsift.config import QueueSettings
from pixsift.core.identity import ObjectVersion
from pixsift.operations.reconcile import Reconciler, backfill_bodies
from pixsift.operations.redrive import DeadLetters
from pixsift_cli.common import JsonOption, emit, open_database


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(no_args_is_help=True, help="The dead-letter queue and failed objects.")
    group.command("list")(list_all)
    group.command()(redrive)
    app.add_typer(group, name="dlq")


def list_all(
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many each.")] = 20,
    messages: Annotated[
        bool,
        typer.Option(
            "--messages",
            help="Look into the waiting messages, too. SQS counts each look as a receive, and a "
            "message received too often is given up untried: look a few times at most.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List failed objects with their reason, anomalies, and how many messages the DLQ holds."""
    settings = QueueSettings()
    letters = DeadLetters(SqsQueue(settings.ingest_dlq), SqsQueue(settings.ingest_queue))
    with open_database() as database:
        reconciler = Reconciler(database, S3Objects(), None)
        failed, anomalies = reconciler.failed(), reconciler.anomalies(limit)
    waiting, in_flight = letters.depth()
    facts: dict[str, Any] = {
        "dlq": {
            "waiting": waiting,
            "in_flight": in_flight,
            "messages": letters.peek(limit) if messages else [],
        },
        "failed": failed[:limit],
        "failed_total": len(failed),
        "anomalies": [
            row | {"body": bytes(row["body"])[:500].decode("utf-8", "replace")} for row in anomalies
        ],
    }
    emit(facts, as_json, _text(facts))


def redrive(
    *,
    failed: Annotated[
        bool, typer.Option("--failed", help="Send objects whose outcome is failed once more, too.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most this many DLQ messages: try a few first.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Send the DLQ's messages back to the ingest queue; the same path decides them."""
    settings = QueueSettings()
    queue = SqsQueue(settings.ingest_queue)
    moved = DeadLetters(SqsQueue(settings.ingest_dlq), queue).redrive(limit)
    again = 0
    if failed:
        with open_database() as database:
            rows = Reconciler(database, S3Objects(), None).failed()
        versions = {ObjectVersion(r["bucket"], r["key"], r["version_id"]) for r in rows}
        queue.send(backfill_bodies(sorted(versions, key=lambda v: (v.bucket, v.key))))
        again = len(versions)
    facts = {"messages": moved, "failed_objects": again}
    text = f"{moved} messages back in the ingest queue"
    emit(facts, as_json, text + (f"; {again} failed objects sent once more" if failed else ""))


def _text(facts: dict[str, Any]) -> str:
    dlq = facts["dlq"]
    lines = [f"DLQ: {dlq['waiting']} waiting, {dlq['in_flight']} in flight"]
    for message in dlq["messages"]:
        told = ", ".join(message["objects"]) or f"no object event ({message['anomaly']})"
        lines.append(f"  received {message['receive_count']} x  {told}")
    lines.append(f"failed objects: {facts['failed_total']}")
    for row in facts["failed"]:
        uri = ObjectVersion(row["bucket"], row["key"], row["version_id"]).uri
        lines.append(f"  {row['decided_at']:%Y-%m-%d %H:%M}  {row['reason']}  {uri}")
    lines.append(f"anomalies (newest): {len(facts['anomalies'])}")
    for row in facts["anomalies"]:
        body = json.dumps(row["body"][:80])
        lines.append(f"  {row['received_at']:%Y-%m-%d %H:%M}  {row['reason']}  {body}")
    return "\n".join(lines)
