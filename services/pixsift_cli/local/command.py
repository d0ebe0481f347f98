"""``pixsift up`` and ``pixsift down``: the local loop, left running between commands."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from pixsift.answers.local import LoopFacts, LoopStopped
from pixsift.errors import RequestError
from pixsift.operations.local import up_down as operation
from pixsift.operations.local.loop import LoopRecord, exports, has_kept, read_record
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, emit
from pixsift_cli.local.signals import stopped_by_signals
from pixsift_cli.terminal import confirm, say


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(up)
    app.command()(down)


def up(
    shadow: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="Also run a consumer of this model on a queue of its own, as SNS would feed it.",
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Start the local loop and leave it running: AWS, ledger, consumer, curator, server.

    Of a loop that runs already, only a service that died is started again.
    """
    state = wiring.state_folder()
    with stopped_by_signals():
        record = operation.up(state, wiring.loop_ingredients(shadow), _say)
    facts = LoopFacts(environment=record.environment, state=str(state))
    emit(facts, as_json, _how_to_use(record, state))


def down(
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete the ledger and all objects as well.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Stop the local loop, and keep its ledger and objects for the next one.

    The objects are saved as they are, version ids included, so that the ledger still fits.
    """
    state = wiring.state_folder()
    if delete and not yes:
        _ask(state)
    done = operation.stop(state, keep=not delete)
    emit(done, as_json, _lines(state, done))


def _ask(state: Path) -> None:
    """Ask. Raises typer.Abort unless the answer is yes; RequestError without a terminal."""
    if read_record(state) is None and not has_kept(state):
        return
    if not sys.stdin.isatty():
        raise RequestError("--delete asks for confirmation, which needs a terminal: add --yes")
    confirm(f"Delete the ledger and all objects of the local loop in {state}?", abort=True)


def _lines(state: Path, done: LoopStopped) -> list[str]:
    lines = [f"stopped {', '.join(done.stopped)}" if done.stopped else "nothing was running"]
    if done.deleted:
        lines.append("deleted the ledger and all objects")
    elif done.object_versions_saved is not None:
        lines.append(
            f"kept the ledger and {done.object_versions_saved} object versions in {state}: "
            "pixsift up goes on with them, pixsift down --delete deletes them"
        )
    elif done.stopped:
        lines.append(
            "kept the ledger; the objects are those of the last pixsift down, as LocalStack was "
            "not there to be asked: pixsift reconcile tells what is missing"
        )
    return lines


def _say(line: str) -> None:
    say(line, err=True)


def _server_lines(record: LoopRecord) -> list[str]:
    url = record.environment.get("PIXSIFT_SERVER_URL")
    return [f"# the HTTP API: {url} (its description: {url}/v1/openapi.json)"] if url else []


def _how_to_use(record: LoopRecord, state: Path) -> list[str]:
    endpoint = record.environment["AWS_ENDPOINT_URL"]
    lines = state / "env"
    return [
        *exports(record.environment).splitlines(),
        f"# the same lines are in {lines}; use them with: . {shlex.quote(str(lines))}",
        *_server_lines(record),
        f"# aws --endpoint-url {endpoint} s3 cp photo.jpg s3://pixsift-raw/robot-1/cam/photo.jpg",
        "# pixsift status; pixsift down stops everything and keeps it for the next pixsift up",
    ]
