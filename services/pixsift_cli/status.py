"""``pixsift status``: what is in the ledger and what is still on its way."""

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pixsift.adapters.ledger import Ledger
from pixsift.adapters.overview import OUTCOMES, Overview
from pixsift.adapters.postgres import Database
from pixsift.adapters.sqs import SqsQueue
from pixsift.config import QueueSettings
from pixsift.errors import PixsiftError
from pixsift_cli.common import JsonOption, emit, open_database

Facts = dict[str, Any]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(status)


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between refreshes.")] = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Show outcomes per collection, the backlog, the DLQ and anomalies."""
    queues = _queues()
    with open_database() as database:
        facts = _facts(database, queues)
        if as_json:
            emit(facts, True, "")
        elif not watch:
            Console().print(_screen(facts))
        else:
            _watch(database, queues, facts, every)


def _watch(database: Database, queues: Mapping[str, SqsQueue], facts: Facts, every: float) -> None:
    try:
        with Live(_screen(facts), auto_refresh=False) as live:
            while True:
                time.sleep(every)
                live.update(_screen(_facts(database, queues)), refresh=True)
    except KeyboardInterrupt:
        return


def _facts(database: Database, queues: Mapping[str, SqsQueue]) -> Facts:
    overview = Overview(database)
    collections = [
        {
            "name": collection.name,
            "epsilon": collection.epsilon,
            "generation": collection.generation,
            "seq": collection.seq,
        }
        | overview.counts(collection)
        for collection in Ledger(database).collections()
    ]
    return {
        "collections": collections,
        "queues": {name: _depth(queue) for name, queue in queues.items()},
        "anomalies": overview.anomalies(),
    }


def _queues() -> dict[str, SqsQueue]:
    settings = QueueSettings()
    names = {
        "ingest": settings.ingest_queue,
        "ingest_dlq": settings.ingest_dlq,
        "snapshot_requests": settings.snapshot_queue,
    }
    queues = {}
    for name, queue in names.items():
        try:
            queues[name] = SqsQueue(queue)
        except ValueError:  # botocore: no region or a malformed endpoint; told as unreachable
            continue
    return queues


def _depth(queue: SqsQueue) -> Facts:
    """The ledger's half of the picture is worth showing even when the queues do not answer."""
    try:
        waiting, in_flight = queue.depth()
    except PixsiftError as error:
        return {"waiting": None, "in_flight": None, "error": str(error)}
    return {"waiting": waiting, "in_flight": in_flight, "error": None}


def _screen(facts: Facts) -> Group:
    table = Table("collection", "generation", "seq", *OUTCOMES, "last minute", "newest")
    for row in facts["collections"]:
        newest = row["newest_decision"]
        table.add_row(
            row["name"], str(row["generation"]), str(row["seq"]),
            *(str(row["outcomes"][outcome]) for outcome in OUTCOMES),
            str(row["decisions_last_minute"]), f"{newest:%H:%M:%S}" if newest else "-",
        )  # fmt: skip
    parts: list[Table | Text] = [table]
    if not facts["collections"]:
        parts = [Text("no collections yet: pixsift collection create NAME --source s3://bucket/")]
    for name, depth in facts["queues"].items():
        parts.append(Text(f"{name:<18} {_told(depth)}"))
    for row in facts["anomalies"]:
        parts.append(Text(f"{'anomaly':<18} {row['messages']} x {row['reason']}"))
    return Group(*parts)


def _told(depth: Facts) -> str:
    if depth["error"]:
        return f"does not answer: {depth['error']}"
    return f"{depth['waiting']} waiting, {depth['in_flight']} in flight"
