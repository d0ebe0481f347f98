"""The values that move through the pipeline: deliveries and their arrivals."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from pixsift.core.collection import Collection
from pixsift.core.dedup import Halves
from pixsift.core.events import ObjectCreated, ObjectEvent
from pixsift.core.identity import ObjectVersion
from pixsift.core.images import DecodedImage
from pixsift.core.outcomes import Judged, KnownImage


@dataclass(slots=True, eq=False, kw_only=True)
class Delivery:
    """The source of some arrivals: one receipt of one message, or a listed file. It is settled when
    all its arrivals are."""

    last_chance: bool = False
    """Whether an error now ends as ``failed``."""
    open: int = 0
    error: Exception | None = None
    """Why it must come back; None: all its arrivals are committed."""
    lock: threading.Lock = field(default_factory=threading.Lock)


class Settler(Protocol):
    """Gets the end of each delivery. Called from any thread."""

    def done(self, delivery: Delivery) -> None:
        """All its arrivals are committed."""
        ...

    def give_back(self, delivery: Delivery, error: Exception) -> None:
        """It must be delivered again, for this reason."""
        ...

    def unfinished(self, deliveries: Sequence[Delivery]) -> None:
        """The pipeline ends before these are finished."""
        ...


@dataclass(frozen=True, slots=True)
class StoredFacts:
    """What the store said about the object when it returned it."""

    etag: str
    size_bytes: int
    metadata: Mapping[str, str]
    modified_at: datetime | None = None
    """The store's own time of the write."""


@dataclass(slots=True, eq=False)
class Arrival:
    """One object event on its way to its outcome, for every collection that takes the object."""

    delivery: Delivery
    event: ObjectEvent
    collections: Sequence[Collection]
    version: ObjectVersion | None = None
    """None until a removal is confirmed, or where the event names no version."""
    shadows: Sequence[Collection] = ()
    """Collections of another space that are being built in this one: embedded, not decided."""
    number: int = 0
    """Place in the order of submission, from 0."""
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
    """Verdicts on other versions that were found on the way."""
    verdict: Judged | None = None
    """Set where the outcome is settled before the ledger is asked: rejected, gone, failed."""

    @property
    def size_bytes(self) -> int | None:
        """As the event says; the store's answer overrides it."""
        return self.event.size_bytes if isinstance(self.event, ObjectCreated) else None
