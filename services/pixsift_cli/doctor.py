"""``pixsift doctor``: does everything pixsift needs answer, and if not, what to do about it.

The checks are ``pixsift.operations.doctor``; those of the local loop are of this machine only.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import typer

from pixsift.adapters.local.localstack import how_to_install
from pixsift.errors import PixsiftError
from pixsift.operations import doctor as checks
from pixsift.operations.doctor import State
from pixsift.remedies import in_words
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, emit
from pixsift_cli.local.loop import localstack_venv, read_record
from pixsift_cli.local.state_folder import state_folder

_MARKS: dict[State, str] = {"ok": "ok   ", "wrong": "WRONG", "note": "note "}


@dataclass(frozen=True, slots=True)
class Check:
    """One check with its remedy in the words of a terminal."""

    name: str
    state: State
    detail: str
    remedy: str = ""

    @classmethod
    def of(cls, check: checks.Check) -> "Check":
        """In words."""
        remedy = in_words(check.remedy) if check.remedy else ""
        return cls(check.name, check.state, check.detail, remedy)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(doctor)


def doctor(as_json: JsonOption = False) -> None:
    """Check every dependency and suggest fixes; exit status 1 when a check fails."""
    every = list(examine())
    is_well = all(check.state != "wrong" for check in every)
    facts = {"ok": is_well, "findings": [asdict(check) for check in every]}
    emit(facts, as_json, _lines(every))
    if not is_well:
        raise typer.Exit(1)


def examine() -> Iterator[Check]:
    """One check per dependency, those that others rest on first."""
    model = wiring.model_settings()
    yield Check.of(checks.check_python())
    yield Check.of(checks.check_embedder(model.model, revision=model.model_revision))
    yield Check.of(checks.check_sandbox())
    yield _localstack()
    yield _loop()
    yield from map(Check.of, checks.check_ledger(wiring.database_login))
    yield from map(Check.of, _aws())


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
        return Check("local loop", "wrong", str(error), "repair that, then pixsift up")
    if record is None:
        return Check("local loop", "note", "not running", "pixsift up (not needed against AWS)")
    dead = [
        f"{process.name} ended: {process.tail(1) or 'its log is empty'}"
        for process in record.dead_processes()
    ]
    stores = record.dead_stores()
    if "postgresql" in stores:
        dead.append("postgresql ended")
    if stores or not record.is_complete():
        words = "; ".join(dead) or "it is still starting, or its start was interrupted"
        remedy = "pixsift down, then pixsift up, which brings back what the last down saved"
        return Check("local loop", "wrong", words, remedy)
    if dead:
        return Check("local loop", "wrong", "; ".join(dead),
                       "pixsift up restarts it and keeps everything else")  # fmt: skip
    return Check("local loop", "ok", ", ".join(process.name for process in record.processes))


def _aws() -> Iterator[checks.Check]:
    queues, buckets = wiring.queue_settings(), wiring.bucket_settings()
    for label, name, variable in (
        ("ingest queue", queues.ingest_queue, "PIXSIFT_INGEST_QUEUE"),
        ("ingest dead letters", queues.ingest_dlq, "PIXSIFT_INGEST_DLQ"),
        ("snapshot queue", queues.snapshot_queue, "PIXSIFT_SNAPSHOT_QUEUE"),
    ):
        yield checks.check_queue(label, name, variable, wiring.queue)
    for label, name, variable in (
        ("derived bucket", buckets.derived_bucket, "PIXSIFT_DERIVED_BUCKET"),
        ("curated bucket", buckets.curated_bucket, "PIXSIFT_CURATED_BUCKET"),
    ):
        yield checks.check_bucket(label, name, variable, wiring.uploads)


def _lines(every: Iterable[Check]) -> Iterator[str]:
    for check in every:
        yield f"{_MARKS[check.state]}  {check.name:20} {check.detail}"
        if check.remedy and check.state != "ok":
            yield f"       {'':20} -> {check.remedy}"
