"""``pixsift status``: what is in the ledger and what is still on its way."""

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from pixsift.adapters.aws.sqs import SqsQueue
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.ledger.overview import OUTCOMES, Overview
from pixsift.adapters.postgres.database import Database
from pixsift.config import QueueSettings
from pixsift.errors import PixsiftError
from pixsift_cli.common import JsonOption, emit, open_database

Facts = dict[str, Any]
Queues = Mapping[str, SqsQueue | str]
"""By its name here; or why this shell's AWS settings lead to none."""


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
            Console().print(_screen(facts), soft_wrap=True)
        else:
            _watch(database, queues, facts, every)


def _watch(database: Database, queues: Queues, facts: Facts, every: float) -> None:
    try:
        with Live(_screen(facts), auto_refresh=False) as live:
            while True:
                time.sleep(every)
                live.update(_screen(_facts(database, queues)), refresh=True)
    except KeyboardInterrupt:
        return


def _facts(database: Database, queues: Queues) -> Facts:
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


def _queues() -> Queues:
    settings = QueueSettings()
    names = {
        "ingest": settings.ingest_queue,
        "ingest_dlq": settings.ingest_dlq,
        "snapshot_requests": settings.snapshot_queue,
    }
    return {name: _queue(name_or_url) for name, name_or_url in names.items()}


def _queue(name_or_url: str) -> SqsQueue | str:
    try:
        return SqsQueue(name_or_url)
    except PixsiftError as error:
        return str(error)


def _depth(queue: SqsQueue | str) -> Facts:
    """The ledger's half of the picture is worth showing even when the queues do not answer."""
    if isinstance(queue, str):
        return {"waiting": None, "in_flight": None, "error": queue}
    try:
        waiting, in_flight = queue.depth()
    except PixsiftError as error:
        return {"waiting": None, "in_flight": None, "error": str(error)}
    return {"waiting": waiting, "in_flight": in_flight, "error": None}


def _screen(facts: Facts) -> Group:
    """Lines rather than a table: a narrow terminal breaks them, and cuts no figure."""
    lines: list[str] = []
    for row in facts["collections"]:
        lines += _collection_lines(row)
    if not lines:
        lines = ["no collections yet: pixsift collection create NAME --source s3://bucket/"]
    lines += [_line(name, _told(depth)) for name, depth in facts["queues"].items()]
    lines += [_line("anomaly", f"{a['messages']} x {a['reason']}") for a in facts["anomalies"]]
    return Group(*(Text(line) for line in lines))


def _collection_lines(row: Facts) -> list[str]:
    newest = row["newest_decision"]
    pace = f", the newest at {newest:%H:%M:%S}" if newest else ""
    return [
        _line(row["name"], f"generation {row['generation']}, seq {row['seq']}"),
        _line("", ", ".join(f"{row['outcomes'][outcome]} {outcome}" for outcome in OUTCOMES)),
        _line("", f"{row['decisions_last_minute']} decided in the last minute{pace}"),
    ]


def _line(about: str, told: str) -> str:
    return f"{about:<18} {told}"


def _told(depth: Facts) -> str:
    if depth["error"]:
        return f"does not answer: {depth['error']}"
    return f"{depth['waiting']} waiting, {depth['in_flight']} in flight"
