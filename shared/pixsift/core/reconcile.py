"""Finds where a bucket's listing and the ledger differ, and makes the messages that repair it.
Pure.

A version that exists at S3 and has no outcome here never arrived, or is on its way: an age limit
skips the newest. A version that has an outcome here but is deleted at S3, or hidden by a delete
marker, has lost its removal event. Nothing is decided here: a message makes the consumer look.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pixsift.core.collection import Collection
from pixsift.core.identity import (
    ListedVersion,
    ObjectVersion,
    version_id_of,
    versions_hidden_by_markers,
)
from pixsift.messages import BackfillObject

_EXAMPLES = 10


@dataclass(slots=True)
class Differences:
    """What a comparison found, and how far it got."""

    listed: int = 0
    """Versions at S3, delete markers not counted."""
    ignored: int = 0
    """Versions that no collection judges."""
    too_new: int = 0
    settled: int = 0
    missing: int = 0
    gone: int = 0
    messages: int = 0
    """Sent to the ingest queue."""
    last_key: str = ""
    """Everything up to here is done: an interrupted run continues with --after."""
    examples: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """A version as the ledger has it."""

    key: str
    version_id: str
    outcomes: Mapping[str, str]
    """Collection id (as text: it comes from JSON) -> the outcome that holds now."""
    erased: bool = False

    @property
    def is_alive(self) -> bool:
        """Whether any collection believes that the object is there."""
        return any(outcome != "gone" for outcome in self.outcomes.values())


@dataclass(slots=True)
class Comparison:
    """Compares a bucket with the ledger, page by page; ``found`` adds up."""

    collections: Sequence[Collection]
    bucket: str
    older_than: datetime | None = None
    """Leave younger versions to the queue."""
    removals: bool = True
    """Also look for what is gone at S3."""
    found: Differences = field(default_factory=Differences)

    def page(
        self, listed: Mapping[str, Sequence[ListedVersion]], known: Sequence[KnownVersion]
    ) -> Iterator[BackfillObject]:
        """What to send for one range of keys.

        listed: key -> its versions and delete markers, newest first. known: every version that
        the ledger has in that range.
        """
        left = {(row.key, row.version_id): row for row in known}
        for key, versions in listed.items():
            hidden = set(versions_hidden_by_markers(versions))
            for line in versions:
                if line.is_delete_marker:
                    continue
                self.found.listed += 1
                identity = version_id_of(line.version_id, line.etag) or line.version_id
                row = left.pop((key, identity), None)
                version = ObjectVersion(self.bucket, key, identity)
                if identity not in hidden:
                    yield from self._arrival(version, line, row)
                elif self.removals and row is not None and row.is_alive:
                    yield self._gone(version, hidden=True)
        for row in left.values() if self.removals else ():
            if row.is_alive:
                yield self._gone(ObjectVersion(self.bucket, row.key, row.version_id), hidden=False)

    def _arrival(
        self, version: ObjectVersion, line: ListedVersion, row: KnownVersion | None
    ) -> Iterator[BackfillObject]:
        judges = [c for c in self.collections if c.reach(version.bucket, version.key) == "accepted"]
        outcomes = row.outcomes if row else {}
        if row is not None and not version.is_versioned and not row.erased:
            # The object is back: the same bytes were written again.
            outcomes = {i: outcome for i, outcome in outcomes.items() if outcome != "gone"}
        if not judges:
            self.found.ignored += 1
        elif all(str(c.collection_id) in outcomes for c in judges):
            self.found.settled += 1
        elif self.older_than and line.modified_at and line.modified_at > self.older_than:
            self.found.too_new += 1
        else:
            self.found.missing += 1
            self._note(f"never arrived: {version.uri}")
            yield backfill_object(version, etag=line.etag, size_bytes=line.size_bytes)

    def _gone(self, version: ObjectVersion, *, hidden: bool) -> BackfillObject:
        self.found.gone += 1
        self._note(f"gone at S3: {version.uri}")
        return BackfillObject(
            key=version.key,
            version_id=version.version_id if version.is_versioned else None,
            etag=version.etag,
            removed=True,
            delete_marker=hidden,
        )

    def _note(self, text: str) -> None:
        if len(self.found.examples) < _EXAMPLES:
            self.found.examples.append(text)


def backfill_object(
    version: ObjectVersion, *, etag: str | None = None, size_bytes: int | None = None
) -> BackfillObject:
    """The entry of a ``Backfill`` message that has the consumer judge ``version``."""
    return BackfillObject(
        key=version.key,
        version_id=version.version_id if version.is_versioned else None,
        etag=etag or version.etag,
        size_bytes=size_bytes,
    )
