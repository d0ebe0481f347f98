"""What waits in queues, what failed there, and what was sent again."""

from datetime import datetime

from pixsift.answers.base import Answer


class QueueDepth(Answer):
    """About how many messages a queue holds; None and an error where it does not answer."""

    waiting: int | None
    in_flight: int | None
    error: str | None


class DeadLetter(Answer):
    """One message of a dead-letter queue."""

    message_id: str
    receive_count: int
    sent_at: float | None
    objects: list[str]
    anomaly: str | None


class DeadLetterQueue(Answer):
    """A dead-letter queue as it is now."""

    waiting: int
    in_flight: int
    messages: list[DeadLetter]


class FailedVersion(Answer):
    """An object version whose outcome is ``failed``."""

    bucket: str
    key: str
    version_id: str
    etag: str | None
    size_bytes: int | None
    reason: str
    collection: str
    decided_at: datetime


class Anomaly(Answer):
    """A message that was not an object event."""

    anomaly_id: int
    queue: str
    message_id: str
    reason: str
    received_at: datetime
    body: str
    """Its beginning."""


class Undecided(Answer):
    """What could not be decided: waiting messages, failed objects, anomalies."""

    dlq: DeadLetterQueue
    failed: list[FailedVersion]
    failed_total: int
    anomalies: list[Anomaly]


class Redriven(Answer):
    """What was sent to the ingest queue once more."""

    messages: int
    failed_objects: int
