"""Outages by dependency and kind of failure: how each is made, and what must happen.

``docs/outages.md`` is written from ``CASES``; ``test_bad_days`` runs them. To write the page:

    PYTHONPATH=tests:shared:services python -m faults.outage_cases
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from faults.stub_aws import RAW, Fault, StubAws

Outage = Callable[[StubAws, str], AbstractContextManager[None]]
"""Holds while the block runs. Takes the stub AWS and the ledger's URL."""


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table."""

    name: str
    dependency: str
    failure: str
    happens: str
    outage: Outage = field(repr=False)
    seconds: float = 4.0
    """How long the outage holds: longer than anything was hidden for."""
    full: bool = False
    """Only in ``make test-full``, as it takes its time."""
    another_bucket: bool = False
    """Whether a second bucket is well all the time."""


def _s3(operation: str, status: int, code: str, *, key: str = "", stall: float = 0.0) -> Outage:
    @contextmanager
    def hold(aws: StubAws, _: str) -> Iterator[None]:
        fault = Fault(operation, status, code, key=key, stall_seconds=stall)
        aws.faults.append(fault)
        try:
            yield
        finally:
            aws.faults.remove(fault)

    return hold


@contextmanager
def _s3_door_closed(aws: StubAws, _: str) -> Iterator[None]:
    with aws.s3_unreachable():
        yield


@contextmanager
def _read_only(_: StubAws, url: str) -> Iterator[None]:
    _everywhere(url, "SET default_transaction_read_only = on")
    try:
        yield
    finally:
        _everywhere(url, "RESET default_transaction_read_only")


def _everywhere(url: str, setting: str) -> None:
    """Change a setting of the database, for sessions that exist as well: they are ended."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        row = connection.execute("SELECT current_database()").fetchone()
        assert row is not None
        connection.execute(f"ALTER DATABASE {row[0]} {setting}")
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@contextmanager
def _table_locked(_: StubAws, url: str) -> Iterator[None]:
    """As a long ALTER TABLE does."""
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE object IN ACCESS EXCLUSIVE MODE")
        yield


EVERYTHING = (
    "receiving stops; the messages in progress are sent again, and the attempt is not counted"
)
ONE_BUCKET = (
    "its messages wait and are sent again, and the attempt is not counted; other buckets continue"
)

CASES = (
    Case("s3-503", "S3", "503 to everything", EVERYTHING, _s3(".*Object.*", 503, "SlowDown")),
    Case("s3-500-get", "S3", "500 to GET only", EVERYTHING,
         _s3("GetObject", 500, "InternalError")),
    Case("s3-403", "S3", "403 to everything", EVERYTHING,
         _s3("(Get|Head)Object", 403, "AccessDenied")),
    Case("s3-refuses", "S3", "refuses connections", EVERYTHING, _s3_door_closed),
    Case("s3-hangs", "S3", "accepts requests, never responds", EVERYTHING,
         _s3(".*Object.*", 503, "SlowDown", stall=3600.0), seconds=60.0, full=True),
    Case("bucket-503", "one bucket of several", "503 to everything", ONE_BUCKET,
         _s3(".*Object.*", 503, "SlowDown", key=f"^/{RAW}/"), another_bucket=True),
    Case("bucket-gone", "one bucket of several", "deleted", ONE_BUCKET,
         _s3(".*Object.*", 404, "NoSuchBucket", key=f"^/{RAW}/"), another_bucket=True),
    Case("bucket-hangs", "one bucket of several", "accepts requests, never responds", ONE_BUCKET,
         _s3(".*Object.*", 503, "SlowDown", key=f"^/{RAW}/", stall=3600.0), seconds=60.0,
         full=True, another_bucket=True),
    Case("postgres-read-only", "PostgreSQL", "read-only", EVERYTHING, _read_only),
    Case("postgres-locked", "PostgreSQL", "a long DDL holds a table", EVERYTHING, _table_locked,
         seconds=12.0),
    Case("sqs-receive", "SQS", "500 to receives", "the receive is retried every second",
         _s3("ReceiveMessage", 500, "InternalError")),
    Case("sqs-delete", "SQS", "500 to deletes",
         "decided messages return and change nothing; the health check fails after 90 s",
         _s3("DeleteMessage.*", 500, "InternalError")),
    Case("sqs-send", "SQS", "500 to sends, while S3 answers 503",
         "messages return after their visibility timeout; the attempt counts",
         _s3("(SendMessage.*|GetObject)", 503, "InternalError"), seconds=2.0),
)  # fmt: skip


def page() -> str:
    """docs/outages.md."""
    rows = "\n".join(
        f"| {case.dependency} | {case.failure} | {case.happens} | `{case.name}` |" for case in CASES
    )
    return f"""# Outages: what happens when a dependency fails

Generated from `tests/faults/outage_cases.py`. Each line is a test in
`tests/faults/test_bad_days.py` that causes the failure and checks that no message ends in the DLQ,
no image ends as `failed`, and everything is decided soon after the outage ends. A full
disk is tested with a separate PostgreSQL (`test_consumer__postgres_with_a_full_disk`).

| dependency | failure | what happens | case |
| --- | --- | --- | --- |
{rows}

An attempt that an outage interrupted does not count. The consumer sends a delayed copy of the
message with the total receive count and the time of the first sending, and deletes the message once
the queue has accepted the copy. A message that was in progress during twenty outages of everything
may be their cause: it is then tried alone, and its attempts count.
"""


if __name__ == "__main__":
    (Path(__file__).resolve().parents[2] / "docs" / "outages.md").write_text(page(), "utf-8")
