"""``pixsift up`` and ``pixsift down``: the local loop, left running between commands."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from pixsift.errors import ConflictError, RequestError
from pixsift.operations.collections import ensure_default
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, emit
from pixsift_cli.local.loop import (
    LocalLoop,
    LoopRecord,
    delete_kept,
    exports,
    has_kept,
    keep_objects,
    localstack_venv,
    read_record,
    restart_services,
    stop_record,
)
from pixsift_cli.local.services import wait_until_ready
from pixsift_cli.local.signals import stopped_by_signals, uninterrupted
from pixsift_cli.local.state_folder import claim, only_one, state_folder
from pixsift_cli.terminal import confirm, say


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(up)
    app.command()(down)


def up(as_json: JsonOption = False) -> None:
    """Start the local loop and leave it running: AWS, ledger, consumer, curator, server.

    Of a loop that runs already, only a service that died is started again.
    """
    state = state_folder()
    if read_record(state) is None:
        claim(state)
    with only_one(state, "up"):
        record = read_record(state)
        if record is None:
            with stopped_by_signals():
                record = _start()
        else:
            record = _mend(record)
    facts = {"environment": record.environment, "state": str(state)}
    emit(facts, as_json, _how_to_use(record))


def down(
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete the ledger and all objects as well.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without a question.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Stop the local loop, and keep its ledger and objects for the next one.

    The objects are saved as they are, version ids included, so that the ledger still fits.
    """
    state = state_folder()
    if delete and not yes:
        _ask(state)
    stopped: list[str] = []
    saved: int | None = None
    if read_record(state) is not None:
        with only_one(state, "up"):
            record = read_record(state)
            if record is not None:
                stopped, saved = _stop(state, record, keep=not delete)
    deleted = delete_kept(state) if delete else False
    facts = {"stopped": stopped, "object_versions_saved": saved, "deleted": deleted}
    emit(facts, as_json, _told(state, stopped, saved, deleted))


def _start() -> LoopRecord:
    loop = LocalLoop(state_folder(), venv=localstack_venv(), prefer_default_port=True)
    try:
        loop.start_infrastructure(_say)
        with wiring.database_at(loop.database_url) as database:
            collection = ensure_default(
                database, loop.stack.raw_bucket, wiring.model(), actor=wiring.ACTOR
            )
        _say(f"collection {collection.name!r} judges what lands there")
        wait_until_ready(loop.start_services(_say), _say)
    except BaseException:
        with uninterrupted():
            loop.stop()
        raise
    record = read_record(loop.state)
    if record is None:
        raise ConflictError(
            f"{loop.state} was deleted while the loop started: run pixsift up again"
        )
    return record


def _mend(record: LoopRecord) -> LoopRecord:
    """Never deletes images or the ledger: only ``down`` does."""
    if not record.is_complete():
        raise ConflictError(
            "the local loop's start was cut short: run pixsift down, and then pixsift up"
        )
    dead = record.dead_stores()
    if dead:
        raise ConflictError(
            f"{' and '.join(dead)} of the local loop died: run pixsift down, and then pixsift up, "
            "which brings back the objects as the last pixsift down saved them"
        )
    return restart_services(state_folder(), record, _say)


def _stop(state: Path, record: LoopRecord, *, keep: bool) -> tuple[list[str], int | None]:
    """What was stopped, and how many object versions were saved."""
    saved: list[int | None] = []
    stopped = stop_record(
        record, before_stores=lambda: saved.append(keep_objects(state, record)) if keep else None
    )
    for name in ("loop.json", "env"):
        (state / name).unlink(missing_ok=True)
    shutil.rmtree(state / "localstack", ignore_errors=True)
    return stopped, saved[0] if saved else None


def _ask(state: Path) -> None:
    """Raises typer.Abort unless the person says yes; RequestError without a terminal."""
    if read_record(state) is None and not has_kept(state):
        return
    if not sys.stdin.isatty():
        raise RequestError("--delete asks for confirmation, which needs a terminal: add --yes")
    confirm(f"Delete the ledger and all objects of the local loop in {state}?", abort=True)


def _told(state: Path, stopped: list[str], saved: int | None, deleted: bool) -> list[str]:
    lines = [f"stopped {', '.join(stopped)}" if stopped else "nothing was running"]
    if deleted:
        lines.append("deleted the ledger and all objects")
    elif saved is not None:
        lines.append(f"kept the ledger and {saved} object versions in {state}: pixsift up goes on "
                     "with them, pixsift down --delete deletes them")  # fmt: skip
    elif stopped:
        lines.append("kept the ledger; the objects are those of the last pixsift down, as "
                     "LocalStack was not there to be asked: pixsift reconcile tells what is "
                     "missing")  # fmt: skip
    return lines


def _say(line: str) -> None:
    say(line, err=True)


def _server_lines(record: LoopRecord) -> list[str]:
    url = record.environment.get("PIXSIFT_SERVER_URL")
    return [f"# the HTTP API: {url} (its description: {url}/v1/openapi.json)"] if url else []


def _how_to_use(record: LoopRecord) -> list[str]:
    endpoint = record.environment["AWS_ENDPOINT_URL"]
    lines = state_folder() / "env"
    return [
        *exports(record.environment).splitlines(),
        f"# the same lines are in {lines}; use them with: . {shlex.quote(str(lines))}",
        *_server_lines(record),
        f"# aws --endpoint-url {endpoint} s3 cp photo.jpg s3://pixsift-raw/robot-1/cam/photo.jpg",
        "# pixsift status; pixsift down stops everything and keeps it for the next pixsift up",
    ]
