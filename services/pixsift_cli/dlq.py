"""``pixsift dlq list|redrive``: messages and objects that could not be decided."""

import json
from contextlib import nullcontext
from typing import Annotated

import typer

from pixsift.answers.queues import Undecided
from pixsift.core.identity import ObjectVersion
from pixsift.operations.redrive import redrive as send_again
from pixsift.operations.redrive import undecided
from pixsift.words import words_and_code
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, emit


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(
        no_args_is_help=True, help="List and redrive the dead-letter queue and failed objects."
    )
    group.command("list")(list_all)
    group.command()(redrive)
    app.add_typer(group, name="dlq")


def list_all(
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many of each.")] = 20,
    messages: Annotated[
        bool,
        typer.Option(
            "--messages",
            help="Also show the waiting messages. SQS counts each look as a receive, and a message "
            "received too often is recorded as failed without a try: do this a few times at most.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List what could not be decided, and why.

    Failed objects with their reason, anomalies, and how many messages the DLQ holds.
    """
    with wiring.database() as database:
        found = undecided(database, wiring.dead_letters(), limit=limit, messages=messages)
    emit(found, as_json, _text(found))


def redrive(
    *,
    failed: Annotated[
        bool, typer.Option("--failed", help="Also send the objects whose outcome is failed.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Move at most this many DLQ messages.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Send the DLQ's messages to the ingest queue again."""
    with wiring.database() if failed else nullcontext() as database:
        done = send_again(
            database,
            wiring.dead_letters(),
            wiring.queue(wiring.queue_settings().ingest_queue),
            limit=limit,
        )
    text = f"{done.messages} messages sent back to the ingest queue"
    if failed:
        text += f"; {done.failed_objects} failed objects sent to the queue again"
    emit(done, as_json, text)


def _text(found: Undecided) -> list[str]:
    lines = [f"DLQ: {found.dlq.waiting} waiting, {found.dlq.in_flight} in flight"]
    for message in found.dlq.messages:
        about = ", ".join(message.objects) or f"not an S3 event ({message.anomaly})"
        lines.append(f"  received {message.receive_count} times  {about}")
    lines.append(f"failed objects: {found.failed_total}")
    for row in found.failed:
        uri = ObjectVersion(row.bucket, row.key, row.version_id).uri
        lines.append(f"  {row.decided_at:%Y-%m-%d %H:%M}  {words_and_code(row.reason)}  {uri}")
    lines.append(f"anomalies (newest): {len(found.anomalies)}")
    for anomaly in found.anomalies:
        body = json.dumps(anomaly.body[:80])
        why = words_and_code(anomaly.reason)
        lines.append(f"  {anomaly.received_at:%Y-%m-%d %H:%M}  {why}  {body}")
    return lines
