"""Checks whether everything that pixsift needs answers: one check per dependency, with its remedy
as data. The caller orders the checks and words the remedies; nothing here raises or changes
anything.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pixsift.adapters.aws.journal import Journal
from pixsift.adapters.aws.sqs import SqsQueue
from pixsift.adapters.aws.uploads import FolderUploads
from pixsift.adapters.decode.pool import DecoderPool
from pixsift.adapters.local.localstack import how_to_install
from pixsift.adapters.models.load import STUB, check_model
from pixsift.adapters.postgres.database import Database, Login
from pixsift.adapters.postgres.migrate import pending, server_versions
from pixsift.core.identity import FOLDER
from pixsift.errors import PixsiftError, Remedy
from pixsift.operations.local.loop import read_record
from pixsift.operations.obligations import Obligations

State = Literal["ok", "wrong", "note"]
"""A note is for information only."""


@dataclass(frozen=True, slots=True)
class Check:
    """One dependency: its state, and the remedy if it is wrong."""

    name: str
    state: State
    detail: str
    remedy: Remedy | None = None


def check_python() -> Check:
    """The interpreter's version."""
    return Check("python", "ok", ".".join(map(str, sys.version_info[:3])))


def check_embedder(name: str, *, revision: str) -> Check:
    """Whether the model can be loaded: its files and packages, not its weights' content."""
    if name == STUB:
        return Check(
            "model", "note", "stub: for measurements, it knows nothing of images",
            Remedy("choose_model"),
        )  # fmt: skip
    try:
        check_model(name, revision=revision)
    except PixsiftError as error:
        return Check("model", "wrong", str(error), error.remedy or Remedy("name_model"))
    return Check("model", "ok", name)


def check_sandbox() -> Check:
    """The locks that hold, as a decoder's process reports them from inside."""
    try:
        with DecoderPool(32, workers=1) as decoder:
            locks = decoder.locks()
    except PixsiftError as error:
        return Check("decoder sandbox", "wrong", str(error), Remedy("read_decoder_message"))
    held = ", ".join((*locks, "empty environment", "pipes of its own"))
    if "seccomp" in locks:
        return Check("decoder sandbox", "ok", held)
    missing = (
        "files, TCP ports and signals are out of reach, other system calls are not"
        if "landlock" in locks
        else "the kernel does not keep it from files or the network"
    )
    return Check(
        "decoder sandbox", "note", f"{held}; without seccomp {missing}", Remedy("use_seccomp")
    )


def check_localstack(venv: Path) -> Check:
    """Whether the local loop's AWS is installed."""
    if (venv / "bin" / "python").exists():
        return Check("localstack", "ok", str(venv))
    return Check("localstack", "note", f"{venv} is missing: no local loop",
                 Remedy("install_localstack", {"how": how_to_install()}))  # fmt: skip


def check_loop(state: Path) -> Check:
    """The local loop of a state folder."""
    try:
        record = read_record(state)
    except PixsiftError as error:
        return Check("local loop", "wrong", str(error), Remedy("repair_state"))
    if record is None:
        return Check("local loop", "note", "not running", Remedy("start_loop_or_not"))
    dead = [
        f"{process.name} ended: {process.tail(1) or 'its log is empty'}"
        for process in record.dead_processes()
    ]
    stores = record.dead_stores()
    if "postgresql" in stores:
        dead.append("postgresql ended")
    if stores or not record.is_complete():
        words = "; ".join(dead) or "it is still starting, or its start was interrupted"
        return Check("local loop", "wrong", words, Remedy("restart_saved_loop"))
    if dead:
        return Check("local loop", "wrong", "; ".join(dead), Remedy("restart_services"))
    return Check("local loop", "ok", ", ".join(process.name for process in record.processes))


def check_ledger(find_login: Callable[[], Login]) -> Iterator[Check]:
    """The ledger's server, then its schema. find_login: how to log in, as the settings say."""
    try:
        login = find_login()
        postgres, pgvector = server_versions(login)
        waiting = pending(login)
    except PixsiftError as error:
        yield Check("ledger", "wrong", str(error), error.remedy or Remedy("check_database"))
        return
    yield Check("ledger", "ok", f"PostgreSQL {postgres}, pgvector {pgvector}")
    if waiting:
        yield Check("schema", "wrong", f"{len(waiting)} migrations wait", Remedy("migrate"))
    else:
        yield Check("schema", "ok", "up to date")


def check_journal(
    journal: Journal, open_database: Callable[[], AbstractContextManager[Database]]
) -> Check:
    """The journal of obligations, and whether the ledger has met all of it."""
    try:
        there = f"{journal.place}: {sum(1 for _ in journal.entries())} entries"
    except PixsiftError as error:
        remedy = Remedy("check_aws", {"variable": "PIXSIFT_JOURNAL_BUCKET"})
        return Check("journal", "wrong", str(error), error.remedy or remedy)
    try:
        with open_database() as database:
            waiting = len(Obligations(database, journal).waiting())
    except PixsiftError:
        return Check("journal", "note", f"{there}; the ledger does not respond")
    if waiting:
        return Check(
            "journal", "note", f"{there}, {waiting} not met by this ledger: a consumer or curator "
            "meets them when it starts, and before it decides",
        )  # fmt: skip
    return Check("journal", "ok", f"{there}, all met")


def check_queue(label: str, name: str, variable: str, connect: Callable[[str], SqsQueue]) -> Check:
    """A queue and its depth. variable: the setting that names it; connect: finds it by name."""

    def question() -> str:
        visible, in_flight = connect(name).depth()
        return f"{name}: {visible} waiting, {in_flight} in flight"

    return _ask(label, variable, question)


def check_bucket(
    label: str, name: str, variable: str, connect: Callable[[], FolderUploads]
) -> Check:
    """A bucket that pixsift writes to. variable: the setting that names it; connect: S3."""

    def question() -> str:
        connect().check(name)
        return name

    return _ask(label, variable, question)


def check_versioning(
    buckets: Iterable[str], connect: Callable[[], FolderUploads]
) -> Iterator[Check]:
    """A note for each source bucket that keeps no versions, with the remedy, or does not say.

    connect: S3.
    """
    for bucket in dict.fromkeys(b for b in buckets if not b.startswith(FOLDER)):
        label = f"versions of {bucket}"
        try:
            if connect().is_versioned(bucket):
                yield Check(label, "ok", "kept")
                continue
            remedy = Remedy("enable_versioning", {"bucket": bucket})
            detail = "not kept: overwritten and deleted images cannot be copied or read again"
            yield Check(label, "note", detail, remedy)
        except PixsiftError as error:
            yield Check(label, "note", f"not known: {error}")


def _ask(label: str, variable: str, question: Callable[[], str]) -> Check:
    try:
        return Check(label, "ok", question())
    except PixsiftError as error:
        return Check(label, "wrong", str(error), Remedy("check_aws", {"variable": variable}))
