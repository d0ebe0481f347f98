"""Starts the local loop and leaves it running, repairs it, stops it, and checks its parts. Only
``stop`` without ``keep`` deletes images or the ledger.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pixsift.adapters.postgres.database import Database
from pixsift.answers.local import LoopStopped
from pixsift.errors import ConflictError, Remedy
from pixsift.operations.collections import ensure_default
from pixsift.operations.embedder import ModelChoice
from pixsift.operations.local.loop import (
    LocalLoop,
    LoopRecord,
    Say,
    delete_kept,
    keep_objects,
    read_record,
    restart_services,
    stop_record,
)
from pixsift.operations.local.services import wait_until_ready
from pixsift.operations.local.signals import uninterrupted
from pixsift.operations.local.state_folder import claim, only_one


@dataclass(frozen=True, slots=True)
class Ingredients:
    """The parts that a loop needs."""

    venv: Path
    """Where LocalStack is installed."""
    model: ModelChoice
    connect: Callable[[str], Database]
    """The ledger at a URL."""
    server_port: int
    """Of the server, where it is free; 0: any."""
    actor: str
    shadow_model: str = ""
    """A second consumer embeds with it what the first one decides; empty: there is none."""


def up(state: Path, made_of: Ingredients, say: Say) -> LoopRecord:
    """A running loop: a new one, or the existing one with its dead services restarted. Raises
    ConflictError for a loop that must be stopped first.
    """
    if read_record(state) is None:
        claim(state)
    with only_one(state, "up"):
        record = read_record(state)
        if record is None:
            return _start(state, made_of, say)
        if made_of.shadow_model not in ("", record.shadow.get("PIXSIFT_MODEL", "")):
            raise ConflictError(
                "the local loop that runs has no consumer of that model: a second model is "
                "added when the loop starts",
                remedy=Remedy("restart_loop"),
            )
        return _repair(state, record, say)


def stop(state: Path, *, keep: bool) -> LoopStopped:
    """Stop what runs in ``state``; keep its ledger and objects, or delete both.

    The objects are saved as they are, version ids included, so that the ledger still fits.
    """
    stopped: list[str] = []
    saved: int | None = None
    if read_record(state) is not None:
        with only_one(state, "up"):
            record = read_record(state)
            if record is not None:
                stopped, saved = _stop(state, record, keep=keep)
    deleted = not keep and delete_kept(state)
    return LoopStopped(stopped=stopped, object_versions_saved=saved, deleted=deleted)


def _start(state: Path, made_of: Ingredients, say: Say) -> LoopRecord:
    loop = LocalLoop(state, venv=made_of.venv, prefer_default_port=True,
                     server_port=made_of.server_port,
                     shadow_model=made_of.shadow_model)  # fmt: skip
    try:
        loop.start_infrastructure(say)
        with made_of.connect(loop.database_url) as database:
            collection = ensure_default(
                database, loop.stack.raw_bucket, made_of.model, actor=made_of.actor
            )
        say(f"collection {collection.name!r} judges what lands there")
        wait_until_ready(loop.start_services(say), say)
    except BaseException:
        with uninterrupted():
            loop.stop()
        raise
    record = read_record(loop.state)
    if record is None:
        raise ConflictError(
            f"{loop.state} was deleted while the loop started", remedy=Remedy("start_loop")
        )
    return record


def _repair(state: Path, record: LoopRecord, say: Say) -> LoopRecord:
    """Never deletes images or the ledger."""
    if not record.is_complete():
        raise ConflictError("the local loop's start was cut short", remedy=Remedy("restart_loop"))
    dead = record.dead_stores()
    if dead:
        raise ConflictError(
            f"{' and '.join(dead)} of the local loop died", remedy=Remedy("restart_saved_loop")
        )
    return restart_services(state, record, say)


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
