"""``pixsift doctor``: checks that everything pixsift needs answers, and names remedies."""

from collections.abc import Iterator

import typer

from pixsift.answers.local import DoctorFinding, DoctorReport
from pixsift.errors import PixsiftError
from pixsift.operations import collections
from pixsift.operations import doctor as checks
from pixsift.operations.doctor import Check, State
from pixsift.remedies import in_words
from pixsift_cli import wiring
from pixsift_cli.common import JsonOption, emit

_MARKS: dict[State, str] = {"ok": "ok   ", "wrong": "WRONG", "note": "note "}


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(doctor)


def doctor(
    model: bool = typer.Option(
        True, help="Check the model too; --no-model is for machines that judge nothing."
    ),
    as_json: JsonOption = False,
) -> None:
    """Check every dependency and suggest fixes; exit status 1 when a check fails."""
    every = [_in_words(check) for check in examine() if model or check.name != "model"]
    is_well = all(finding.state != "wrong" for finding in every)
    emit(DoctorReport(ok=is_well, findings=every), as_json,
         [line for finding in every for line in _lines(finding)])  # fmt: skip
    if not is_well:
        raise typer.Exit(1)


def examine() -> Iterator[Check]:
    """One check per dependency; a dependency comes before those that need it."""
    model = wiring.model_settings()
    yield checks.check_python()
    yield checks.check_embedder(model.model, revision=model.model_revision)
    yield checks.check_sandbox()
    yield checks.check_localstack(wiring.localstack_venv())
    yield checks.check_loop(wiring.state_folder())
    yield from checks.check_ledger(wiring.database_login)
    yield from _aws()
    yield checks.check_journal(wiring.journal(), wiring.database)
    yield from checks.check_versioning(_source_buckets(), wiring.uploads)


def _source_buckets() -> list[str]:
    """The source buckets of all collections; none where the ledger does not answer, which another
    check reports."""
    try:
        with wiring.database() as database:
            found = collections.list_sources(database)
    except PixsiftError:
        return []
    return found


def _aws() -> Iterator[Check]:
    queues, buckets = wiring.queue_settings(), wiring.bucket_settings()
    for label, name, variable in (
        ("ingest queue", queues.ingest_queue, "PIXSIFT_INGEST_QUEUE"),
        ("ingest dead letters", queues.ingest_dlq, "PIXSIFT_INGEST_DLQ"),
        ("snapshot queue", queues.snapshot_queue, "PIXSIFT_SNAPSHOT_QUEUE"),
        ("snapshot dead letters", queues.snapshot_dead_letters, "PIXSIFT_SNAPSHOT_DLQ"),
    ):
        yield checks.check_queue(label, name, variable, wiring.queue)
    for label, name, variable in (
        ("derived bucket", buckets.derived_bucket, "PIXSIFT_DERIVED_BUCKET"),
        ("curated bucket", buckets.curated_bucket, "PIXSIFT_CURATED_BUCKET"),
    ):
        yield checks.check_bucket(label, name, variable, wiring.uploads)


def _in_words(check: Check) -> DoctorFinding:
    remedy = in_words(check.remedy) if check.remedy else ""
    return DoctorFinding(name=check.name, state=check.state, detail=check.detail, remedy=remedy)


def _lines(finding: DoctorFinding) -> Iterator[str]:
    yield f"{_MARKS[finding.state]}  {finding.name:20} {finding.detail}"
    if finding.remedy and finding.state != "ok":
        yield f"       {'':20} -> {finding.remedy}"
