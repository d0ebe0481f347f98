"""``pixsift doctor``: does everything pixsift needs answer, and if not, what to do about it."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Literal

import typer

from pixsift.adapters.decode.pool import DecoderPool
from pixsift.adapters.local.localstack import how_to_install
from pixsift.adapters.models.load import STUB, check_model
from pixsift.adapters.postgres.migrate import pending, server_versions
from pixsift.errors import PixsiftError
from pixsift.remedies import in_words
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, emit
from pixsift_cli.local.loop import localstack_venv, read_record
from pixsift_cli.local.state_folder import state_folder

State = Literal["ok", "wrong", "note"]
"""A note is worth knowing, and stops nothing."""
_MARKS: dict[State, str] = {"ok": "ok   ", "wrong": "WRONG", "note": "note "}


@dataclass(frozen=True, slots=True)
class Check:
    """One dependency: how it is, and what to do where that is not well."""

    name: str
    state: State
    detail: str
    remedy: str = ""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(doctor)


def doctor(as_json: JsonOption = False) -> None:
    """Check every dependency and say what to do; exit status 1 when something is wrong."""
    findings = list(examine())
    is_well = all(finding.state != "wrong" for finding in findings)
    facts = {"ok": is_well, "findings": [asdict(finding) for finding in findings]}
    emit(facts, as_json, "\n".join(_lines(findings)))
    if not is_well:
        raise typer.Exit(1)


def examine() -> Iterable[Check]:
    """One finding per dependency, those that others rest on first."""
    yield _python()
    yield _model()
    yield _sandbox()
    yield _localstack()
    yield _loop()
    yield from _database()
    yield from _aws()


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check("python", "ok", version)


def _model() -> Check:
    settings = wiring.model_settings()
    name = settings.model
    if name == STUB:
        return Check("model", "note", "stub: for measurements, it knows nothing of images",
                       "unset PIXSIFT_MODEL, or name a real model")  # fmt: skip
    try:
        check_model(name, revision=settings.model_revision)
    except PixsiftError as error:
        return Check("model", "wrong", str(error), _helps(error)
                       or "PIXSIFT_MODEL names the model; docs/models.md tells which")  # fmt: skip
    return Check("model", "ok", name)


def _sandbox() -> Check:
    """The locks that hold, as a decoder's process reports them from inside."""
    try:
        with DecoderPool(32, workers=1) as decoder:
            locks = decoder.locks()
    except PixsiftError as error:
        return Check("decoder sandbox", "wrong", str(error),
                       "read the decoder's own message above; docs/decoding.md")  # fmt: skip
    held = ", ".join((*locks, "empty environment", "pipes of its own"))
    if "seccomp" in locks:
        return Check("decoder sandbox", "ok", held)
    missing = (
        "files, TCP ports and signals are out of reach, other system calls are not"
        if "landlock" in locks
        else "the kernel does not keep it from files or the network"
    )
    return Check("decoder sandbox", "note", f"{held}; without seccomp {missing}",
                   "run the consumer on Linux, with libseccomp installed")  # fmt: skip


def _localstack() -> Check:
    venv = localstack_venv()
    if (venv / "bin" / "python").exists():
        return Check("localstack", "ok", str(venv))
    return Check("localstack", "note", f"{venv} is missing: no local loop",
                   f"{how_to_install()} (not needed against AWS)")  # fmt: skip


def _loop() -> Check:
    try:
        record = read_record(state_folder())
    except PixsiftError as error:
        return Check("local loop", "wrong", str(error), "mend that, then pixsift up")
    if record is None:
        return Check("local loop", "note", "not running", "pixsift up (not needed against AWS)")
    dead = [
        f"{process.name} ended: {process.tail(1) or 'no word in its log'}"
        for process in record.dead_processes()
    ]
    stores = record.dead_stores()
    if "postgresql" in stores:
        dead.append("postgresql ended")
    if stores or not record.is_complete():
        words = "; ".join(dead) or "its start has not finished, or was cut short"
        remedy = "pixsift down, then pixsift up, which brings back what the last down saved"
        return Check("local loop", "wrong", words, remedy)
    if dead:
        return Check("local loop", "wrong", "; ".join(dead),
                       "pixsift up, which starts it again and keeps the rest")  # fmt: skip
    return Check("local loop", "ok", ", ".join(process.name for process in record.processes))


def _database() -> Iterable[Check]:
    settings = wiring.database_settings()
    if not (settings.database_url.get_secret_value() or settings.database_secret):
        yield Check("ledger", "wrong", "PIXSIFT_DATABASE_URL is not set",
                      "set it to a PostgreSQL with pgvector, or: pixsift up")  # fmt: skip
        return
    try:
        login = wiring.database_login()
        postgres, pgvector = server_versions(login)
        waiting = pending(login)
    except PixsiftError as error:
        helps = _helps(error) or "check PIXSIFT_DATABASE_URL and the server"
        yield Check("ledger", "wrong", str(error), helps)
        return
    yield Check("ledger", "ok", f"PostgreSQL {postgres}, pgvector {pgvector}")
    if waiting:
        yield Check("schema", "wrong", f"{len(waiting)} migrations wait", "pixsift migrate")
    else:
        yield Check("schema", "ok", "up to date")


def _aws() -> Iterable[Check]:
    queues, buckets = wiring.queue_settings(), wiring.bucket_settings()
    for label, name, setting in (
        ("ingest queue", queues.ingest_queue, "PIXSIFT_INGEST_QUEUE"),
        ("ingest dead letters", queues.ingest_dlq, "PIXSIFT_INGEST_DLQ"),
        ("snapshot queue", queues.snapshot_queue, "PIXSIFT_SNAPSHOT_QUEUE"),
    ):
        yield _ask(label, name, setting, _depth)
    for label, name, setting in (
        ("derived bucket", buckets.derived_bucket, "PIXSIFT_DERIVED_BUCKET"),
        ("curated bucket", buckets.curated_bucket, "PIXSIFT_CURATED_BUCKET"),
    ):
        yield _ask(label, name, setting, _listing)


def _ask(label: str, name: str, setting: str, question: Callable[[str], str]) -> Check:
    try:
        return Check(label, "ok", f"{name}{question(name)}")
    except PixsiftError as error:
        remedy = (
            f"pixsift up; or deploy the events stack and check {setting}, AWS_ENDPOINT_URL, "
            "AWS_DEFAULT_REGION and the credentials"
        )
        return Check(label, "wrong", str(error), remedy)


def _helps(error: PixsiftError) -> str:
    return in_words(error.remedy) if error.remedy else ""


def _depth(name: str) -> str:
    visible, in_flight = wiring.queue(name).depth()
    return f": {visible} waiting, {in_flight} in flight"


def _listing(name: str) -> str:
    wiring.uploads().check(name)
    return ""


def _lines(findings: Iterable[Check]) -> Iterable[str]:
    for finding in findings:
        yield f"{_MARKS[finding.state]}  {finding.name:20} {finding.detail}"
        if finding.remedy and finding.state != "ok":
            yield f"       {'':20} -> {finding.remedy}"
