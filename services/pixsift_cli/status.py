"""``pixsift status``: what is in the ledger and what is still on its way."""

import time
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live

from pixsift.answers.collections import CollectionStatus, StatusReport
from pixsift.answers.queues import QueueDepth
from pixsift.core.arrival_health import GrowingShare
from pixsift.core.outcomes import OUTCOMES
from pixsift.operations.status import status as report
from pixsift.words import in_words, words_and_code
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, emit_json
from pixsift_cli.terminal import cell, console

_IGNORED = (
    "what no rule accepts is not recorded: pixsift reconcile --dry-run counts it, "
    "pixsift explain names the rule"
)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(status)


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between refreshes.")] = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Show outcomes per collection, the backlog, the DLQ and anomalies."""
    with wiring.database() as database:
        queues = wiring.queues()

        def look() -> StatusReport:
            return report(database, queues)

        found = look()
        if as_json:
            emit_json(found)
        elif not watch:
            console().print(_screen(found), soft_wrap=True)
        else:
            _watch(found, look, every)


def _watch(first: StatusReport, look: Callable[[], StatusReport], every: float) -> None:
    try:
        with Live(_screen(first), console=console(), auto_refresh=False) as live:
            while True:
                time.sleep(every)
                live.update(_screen(look()), refresh=True)
    except KeyboardInterrupt:
        return


def _screen(found: StatusReport) -> Group:
    """Lines rather than a table: a narrow terminal breaks them, and cuts no figure."""
    lines: list[str] = []
    for row in found.collections:
        lines += _collection_lines(row)
    if not lines:
        lines = ["no collections yet: pixsift collection create NAME --source s3://bucket/"]
    else:
        lines.append(_line("ignored", _IGNORED))
    lines += [_line(name, _depth_text(depth)) for name, depth in found.queues.items()]
    lines += [
        _line("anomaly", f"{a.messages} x {words_and_code(a.reason)}") for a in found.anomalies
    ]
    return Group(*(cell(line) for line in lines))


def _collection_lines(row: CollectionStatus) -> list[str]:
    newest = row.newest_decision
    pace = f", the newest at {newest:%H:%M:%S}" if newest else ""
    return [
        _line(row.name, f"generation {row.generation}, seq {row.seq}"),
        _line("", ", ".join(f"{row.outcomes[outcome]} {outcome}" for outcome in OUTCOMES)),
        _line("", f"{row.decisions_last_minute} decided in the last minute{pace}"),
        *_rule_lines(row),
        *_flag_lines(row),
        *(_line("", f"attention: {_growth(growing)}") for growing in row.growing),
    ]


def _rule_lines(row: CollectionStatus) -> list[str]:
    if row.calibrated:
        return []
    line = (
        f"rule not calibrated: epsilon {row.epsilon:g} was not measured with {row.model}; "
        "pixsift calibrate does that on your images"
    )
    return [_line("", line)]


def _flag_lines(row: CollectionStatus) -> list[str]:
    """Of the kept images: those of the others are of no use to anyone who chooses."""
    flags = [f"{c.objects} {in_words(c.flag)}" for c in row.flags if c.outcome == "kept"]
    return [_line("", f"flags of kept images: {', '.join(flags)}")] if flags else []


def _growth(growing: GrowingShare) -> str:
    return (
        f"{growing.share:.1%} of the newest {growing.newest} decisions are "
        f"{words_and_code(growing.reason)}, up from {growing.before:.1%}"
    )


def _line(about: str, text: str) -> str:
    return f"{about:<18} {text}"


def _depth_text(depth: QueueDepth) -> str:
    if depth.error:
        return f"does not respond: {depth.error}"
    return f"{depth.waiting} waiting, {depth.in_flight} in flight"
