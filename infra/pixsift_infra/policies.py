"""What each process may do, one list of statements per role; nothing here needs CDK.

The consumer's are proved, but for the journal and the event bus: the suite takes parts of them
away, with the real process running against an emulator that enforces them (``tests/cloud``), and
each loss makes a test fail. The others are read from what the processes call.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Statement = dict[str, Any]
_RECEIVE = (
    "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility",
    "sqs:GetQueueAttributes", "sqs:GetQueueUrl",
)  # fmt: skip
_JOURNAL = ".pixsift/obligations/"


@dataclass(frozen=True, slots=True)
class Places:
    """ARNs that the statements name."""

    raw: str
    curated: str
    derived: str
    ingest: str
    ingest_dlq: str
    requests: str
    requests_dlq: str
    event_bus: str
    database_secret: str
    raw_key: str = ""
    """Customer key of the raw bucket; empty where there is none."""


def consumer(places: Places) -> list[Statement]:
    """Reads raw objects, writes thumbnails, works on its own queue and that one's DLQ, and tells
    of what watches matched."""
    return [
        _allow("ReadRaw", ("s3:GetObject", "s3:GetObjectVersion"), f"{places.raw}/*"),
        # Without it S3 refuses a missing key (403) instead of reporting it as missing.
        _allow("ListRaw", ("s3:ListBucket", "s3:ListBucketVersions"), places.raw),
        _allow("FindDerived", ("s3:ListBucket",), places.derived),
        _allow("WriteThumbnails", ("s3:PutObject", "s3:DeleteObject"), f"{places.derived}/*"),
        # It also sends: a message of many objects becomes one message per object, and one that an
        # outage interrupted is replaced by a delayed copy, in either queue (docs/adr/0022).
        _allow("Ingest", (*_RECEIVE, "sqs:SendMessage"), places.ingest),
        *_journal(places),
        _allow("DeadLetters", (*_RECEIVE, "sqs:SendMessage"), places.ingest_dlq),
        _allow("Tell", ("events:PutEvents",), places.event_bus),  # hits of watches
        *_common(places),
    ]


def curator(places: Places) -> list[Statement]:
    """Copies raw objects into snapshots, and sends events about them."""
    return [
        _allow(
            "ReadRaw",
            ("s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectTagging",
             "s3:GetObjectVersionTagging"),
            f"{places.raw}/*",
        ),
        _allow("ListRaw", ("s3:ListBucket",), places.raw),
        _allow("FindCurated", ("s3:ListBucket", "s3:ListBucketVersions"), places.curated),
        _allow(
            "WriteSnapshots",
            ("s3:PutObject", "s3:PutObjectTagging", "s3:GetObject", "s3:AbortMultipartUpload"),
            f"{places.curated}/*",
        ),
        # A request that an outage cut short is replaced by a delayed copy, in either queue.
        _allow("Requests", (*_RECEIVE, "sqs:SendMessage"), places.requests, places.requests_dlq),
        _allow("Tell", ("events:PutEvents",), places.event_bus),
        *_common(places),
    ]  # fmt: skip


def reconcile(places: Places) -> list[Statement]:
    """Lists the raw bucket and sends what never arrived."""
    return [
        _allow("ListRaw", ("s3:ListBucket", "s3:ListBucketVersions"), places.raw),
        _allow("Send", ("sqs:SendMessage", "sqs:GetQueueUrl", "sqs:GetQueueAttributes"),
               places.ingest),
        *_secret(places),
    ]  # fmt: skip


def audit(places: Places) -> list[Statement]:
    """Looks for every image that a snapshot lists; all else it reads from the ledger."""
    return [
        _allow("ReadSnapshots", ("s3:GetObject",), f"{places.curated}/*"),
        _allow("ListSnapshots", ("s3:ListBucket",), places.curated),
        *_secret(places),
    ]


def migrate(places: Places) -> list[Statement]:
    """Uses the database only."""
    return _secret(places)


def server(places: Places) -> list[Statement]:
    """Shows thumbnails and images, asks for snapshots, sends dead letters back; judges nothing."""
    return [
        # A link to an original is signed with these rights.
        _allow("ReadRaw", ("s3:GetObject", "s3:GetObjectVersion"), f"{places.raw}/*"),
        _allow("ReadThumbnails", ("s3:GetObject",), f"{places.derived}/*"),
        # Snapshots to verify them, and the journal, which lies in the same bucket.
        _allow("ReadSnapshots", ("s3:GetObject",), f"{places.curated}/*"),
        # Without it what is missing is refused (403) instead of missing.
        _allow("List", ("s3:ListBucket", "s3:ListBucketVersions"), places.derived, places.curated),
        _allow("Look", ("sqs:GetQueueAttributes", "sqs:GetQueueUrl"), places.ingest,
               places.ingest_dlq, places.requests, places.requests_dlq),
        # To show a dead letter, the server receives it and gives it back.
        _allow("Peek", ("sqs:ReceiveMessage", "sqs:ChangeMessageVisibility"), places.ingest_dlq),
        # Redrive: sent where it came from, then deleted here.
        _allow("Redrive", ("sqs:DeleteMessage",), places.ingest_dlq),
        _allow("SendBack", ("sqs:SendMessage",), places.ingest),
        _allow("Ask", ("sqs:SendMessage",), places.requests),
        # Rulings and revoked tokens, for a ledger that is restored (docs/adr/0190).
        _allow("WriteJournal", ("s3:PutObject",), f"{places.curated}/{_JOURNAL}*"),
        *_common(places),
    ]  # fmt: skip


def doctor(places: Places) -> list[Statement]:
    """Asks everything that the services need whether it answers; changes nothing."""
    return [
        _allow("Versioning", ("s3:GetBucketVersioning",), places.raw),
        _allow("List", ("s3:ListBucket", "s3:ListBucketVersions"), places.derived, places.curated),
        _allow("ReadJournal", ("s3:GetObject",), f"{places.curated}/.pixsift/obligations/*"),
        _allow("Look", ("sqs:GetQueueAttributes", "sqs:GetQueueUrl"), places.ingest,
               places.ingest_dlq, places.requests, places.requests_dlq),
        *_secret(places),
    ]  # fmt: skip


ROLES: Mapping[str, Any] = {
    "consumer": consumer, "curator": curator, "reconcile": reconcile, "audit": audit,
    "migrate": migrate, "server": server, "doctor": doctor,
}  # fmt: skip


def _journal(places: Places) -> list[Statement]:
    """Read the obligations of a restored ledger (docs/adr/0190)."""
    return [
        _allow("FindJournal", ("s3:ListBucket", "s3:ListBucketVersions"), places.curated),
        _allow("ReadJournal", ("s3:GetObject",), f"{places.curated}/{_JOURNAL}*"),
    ]


def _common(places: Places) -> list[Statement]:
    key = [_allow("Decrypt", ("kms:Decrypt",), places.raw_key)] if places.raw_key else []
    return [*key, *_secret(places)]


def _secret(places: Places) -> list[Statement]:
    return [_allow("Password", ("secretsmanager:GetSecretValue",), places.database_secret)]


def _allow(name: str, actions: tuple[str, ...], *resources: str) -> Statement:
    one = resources[0] if len(resources) == 1 else list(resources)
    return {"Sid": name, "Effect": "Allow", "Action": list(actions), "Resource": one}
