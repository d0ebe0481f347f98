"""``pixsift up`` and ``pixsift down``: the local loop, left running between commands."""

import shlex
import shutil
from pathlib import Path

import typer

from pixsift.errors import ConflictError
from pixsift.operations.collections import ensure_default
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, emit
from pixsift_cli.local.loop import (
    LocalLoop,
    LoopRecord,
    exports,
    localstack_venv,
    read_record,
    restart_services,
    stop_record,
)
from pixsift_cli.local.services import wait_until_ready
from pixsift_cli.local.signals import stopped_by_signals, uninterrupted
from pixsift_cli.local.state_folder import claim, only_one, state_folder


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(up)
    app.command()(down)


def up(as_json: JsonOption = False) -> None:
    """Start the local loop and leave it running: AWS, ledger, consumer and curator.

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


def down(as_json: JsonOption = False) -> None:
    """Stop the local loop, and forget its ledger: LocalStack forgets its objects likewise."""
    stopped = []
    if read_record(state_folder()) is not None:
        with only_one(state_folder(), "up"):
            record = read_record(state_folder())
            stopped = _stop(record) if record is not None else []
    text = f"stopped {', '.join(stopped)}" if stopped else "nothing was running"
    emit({"stopped": stopped}, as_json, text)


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
    """Never at the price of images or ledger: whoever wants to lose them says ``down``."""
    if not record.is_complete():
        raise ConflictError(
            "the local loop's start was cut short: pixsift down, which deletes the loop's "
            "images and ledger, and then pixsift up"
        )
    dead = record.dead_stores()
    if dead:
        raise ConflictError(
            f"{' and '.join(dead)} of the local loop died, and the loop's images and ledger go "
            "with it: pixsift down, which deletes them, and then pixsift up"
        )
    return restart_services(state_folder(), record, _say)


def _stop(record: LoopRecord) -> list[str]:
    stopped = stop_record(record)
    shutil.rmtree(Path(record.postgres), ignore_errors=True)
    for name in ("loop.json", "env"):
        (state_folder() / name).unlink(missing_ok=True)
    shutil.rmtree(state_folder() / "localstack", ignore_errors=True)
    return stopped


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _how_to_use(record: LoopRecord) -> str:
    endpoint = record.environment["AWS_ENDPOINT_URL"]
    lines = state_folder() / "env"
    return (
        f"{exports(record.environment)}"
        f"# the same lines are in {lines}; use them with: . {shlex.quote(str(lines))}\n"
        f"# aws --endpoint-url {endpoint} s3 cp photo.jpg s3://pixsift-raw/robot-1/cam/photo.jpg\n"
        "# pixsift status; pixsift down stops everything"
    )
