"""What moves through the pipeline: deliveries (messages) and the arrivals they speak of."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pixsift.adapters.aws.sqs import Message
from pixsift.core.collection import Collection
from pixsift.core.dedup import Halves
from pixsift.core.events import ObjectCreated, ObjectEvent
from pixsift.core.identity import ObjectVersion
from pixsift.core.images import DecodedImage
from pixsift.core.outcomes import Judged, KnownImage
from pixsift_consumer.inbox import Inbox


@dataclass(slots=True, eq=False)
class Delivery:
    """One receipt of one message; settled when everything it speaks of is."""

    message: Message
    inbox: Inbox
    open: int = 0
    error: Exception | None = None
    """Why the message must come back; None: it can be acknowledged."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def last_chance(self) -> bool:
        """Whether what fails now ends as ``failed``."""
        return self.inbox.last_chance


@dataclass(frozen=True, slots=True)
class StoredFacts:
    """What S3 said about the object when it handed it out."""

    etag: str
    size_bytes: int
    metadata: Mapping[str, str]
    modified_at: datetime | None = None
    """S3's own time of the write."""


@dataclass(slots=True, eq=False)
class Arrival:
    """One object event on its way to its outcome, for every collection that takes the object."""

    delivery: Delivery
    event: ObjectEvent
    collections: Sequence[Collection]
    version: ObjectVersion | None = None
    """None until a removal is confirmed, or where the event names no version."""
    reserved: int = 0
    """Bytes of the budget held."""
    body: bytes | None = None
    """The object's bytes, until they are decoded."""
    stored: StoredFacts | None = None
    content_sha256: bytes | None = None
    known: KnownImage | None = None
    """The same bytes, decoded and embedded before."""
    decoded: DecodedImage | None = None
    thumbnail_key: str | None = None
    embedding: Halves | None = None
    others: list[Judged] = field(default_factory=list)
    """Verdicts on other versions that came to light on the way."""
    verdict: Judged | None = None
    """Set where the outcome is settled before the ledger is asked: rejected, gone, failed."""

    @property
    def size_bytes(self) -> int | None:
        """As the event says; S3 has the last word."""
        return self.event.size_bytes if isinstance(self.event, ObjectCreated) else None
