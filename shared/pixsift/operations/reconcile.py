"""Compares a bucket with the ledger, and sends the differences through the ingest queue. Only the
consumer decides, with the same code as always; sending something twice changes nothing. Both sides
are read in the order of keys, a page at a time, so memory does not grow with the bucket.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby

from psycopg.rows import class_row

from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.postgres.database import Database
from pixsift.answers.checks import DifferencesBySource, SourceDifferences
from pixsift.core.collection import Collection
from pixsift.core.identity import ListedVersion, ObjectVersion, S3Uri
from pixsift.core.reconcile import Comparison, Differences, KnownVersion, backfill_object
from pixsift.errors import NotFoundError, Remedy
from pixsift.messages import Backfill, BackfillObject
from pixsift.ports import ListedObject, ObjectStore
from pixsift.sql import statements

_SQL = statements("reconcile")
KEYS_PER_MESSAGE = 100
"""The objects of a message finish together: few enough for its deadline, enough to be cheap."""
_LINES_PER_PAGE = 1000

Send = Callable[[Iterable[str]], int]
ReportDifferences = Callable[[Differences], None]


class Reconciler:
    """Compares buckets with one ledger."""

    def __init__(self, database: Database, objects: ObjectStore, send: Send | None) -> None:
        """send: puts message bodies on the ingest queue; None: only count."""
        self._database = database
        self._objects = objects
        self._send = send

    def run(
        self,
        comparison: Comparison,
        prefix: str = "",
        *,
        after: str = "",
        progress: ReportDifferences = lambda found: None,
    ) -> Differences:
        """Compare everything below a prefix, of the keys behind ``after``.

        ``comparison.found`` is complete up to its ``last_key`` whenever this is interrupted.
        """
        found = comparison.found
        found.last_key = after
        waiting: list[BackfillObject] = []
        for page in pages_of_keys(
            self._objects.iter_versions(comparison.bucket, prefix, after=after)
        ):
            last = page[-1].key
            known = self._known(comparison, prefix, after=after, to=last)
            waiting = [*waiting, *comparison.page(_by_key(page), known)]
            waiting = self._flush(comparison, waiting, everything=False)
            after = last
            if not waiting:  # otherwise an interruption would lose the waiting ones
                found.last_key = after
            progress(found)
        if comparison.removals:  # keys that sort behind the last one listed
            waiting += comparison.page({}, self._known(comparison, prefix, after=after, to=None))
        self._flush(comparison, waiting, everything=True)
        found.last_key = after
        progress(found)
        return found

    def _known(
        self, comparison: Comparison, prefix: str, *, after: str, to: str | None
    ) -> list[KnownVersion]:
        return known_in_range(
            self._database, comparison.collections, comparison.bucket, prefix, after=after, to=to
        )

    def _flush(
        self, comparison: Comparison, waiting: list[BackfillObject], *, everything: bool
    ) -> list[BackfillObject]:
        """Send full messages; returns what waits for more."""
        whole = len(waiting) if everything else len(waiting) // KEYS_PER_MESSAGE * KEYS_PER_MESSAGE
        if whole and self._send is not None:
            bodies = _bodies(comparison.bucket, waiting[:whole])
            comparison.found.messages += self._send(bodies)
        return waiting[whole:]


def known_in_range(
    database: Database,
    collections: Sequence[Collection],
    bucket: str,
    prefix: str = "",
    *,
    after: str = "",
    to: str | None = None,
) -> list[KnownVersion]:
    """Every version that the ledger has of the keys behind ``after``, up to ``to``, by key."""
    names = {
        "collection_ids": [c.collection_id for c in collections],
        "bucket": bucket, "prefix": prefix, "after": after, "to": to,
    }  # fmt: skip
    with database.connection() as connection:
        cursor = connection.cursor(row_factory=class_row(KnownVersion))
        return cursor.execute(_SQL["known_in_range"], names).fetchall()


def pages_of_keys(lines: Iterable[ListedObject]) -> Iterator[list[ListedObject]]:
    """Pages of about a thousand lines that end where a key ends."""
    page: list[ListedObject] = []
    for line in lines:
        if len(page) >= _LINES_PER_PAGE and line.key != page[-1].key:
            yield page
            page = []
        page.append(line)
    if page:
        yield page


def backfill_bodies(versions: Sequence[ObjectVersion]) -> Iterator[str]:
    """Messages that let the consumer judge these versions (again)."""
    ordered = sorted(versions, key=lambda version: version.bucket)
    for bucket, group in groupby(ordered, key=lambda version: version.bucket):
        yield from _bodies(bucket, [backfill_object(version) for version in group])


def _bodies(bucket: str, objects: Sequence[BackfillObject]) -> Iterator[str]:
    for start in range(0, len(objects), KEYS_PER_MESSAGE):
        part = list(objects[start : start + KEYS_PER_MESSAGE])
        yield Backfill(bucket=bucket, objects=part).model_dump_json(by_alias=True)


def _by_key(page: Sequence[ListedObject]) -> dict[str, list[ListedVersion]]:
    """Newest first; emulators list markers after versions, but agree about the latest."""
    return {
        key: [line.version for line in sorted(lines, key=lambda line: not line.is_latest)]
        for key, lines in groupby(page, key=lambda line: line.key)
    }


def reconcile(
    database: Database,
    objects: ObjectStore,
    send: Send | None,
    *,
    collection: str | None,
    older_than: datetime,
    progress: ReportDifferences = lambda found: None,
) -> DifferencesBySource:
    """Compare every source of the collections with the ledger; what differs is sent.

    collection: None for all. older_than: younger versions are left alone. Returns the differences
    by ``s3://bucket/prefix``. Raises NotFoundError when there is no collection.
    """
    collections = _collections(database, collection)
    reconciler = Reconciler(database, objects, send)
    found = {}
    for bucket, prefix in _scopes(collections):
        comparison = Comparison(collections, bucket, older_than=older_than)
        differences = reconciler.run(comparison, prefix, progress=progress)
        found[f"s3://{bucket}/{prefix}"] = differences
    return DifferencesBySource(found)


def backfill(
    database: Database,
    objects: ObjectStore,
    send: Send | None,
    uri: S3Uri,
    *,
    collection: str | None = None,
    after: str = "",
    progress: ReportDifferences = lambda found: None,
) -> SourceDifferences:
    """Send what lies at ``uri`` and has no outcome through the queue, of the keys behind ``after``.

    ``progress`` gets the differences so far; their ``last_key`` is where an interrupted run goes
    on. Raises NotFoundError when no collection judges ``uri``.
    """
    collections = _collections(database, collection)
    if not any(_overlaps(c, uri.bucket, uri.key) for c in collections):
        source = f"s3://{uri.bucket}/{uri.key}"
        raise NotFoundError(
            f"no collection judges {source}",
            code="no_collection", remedy=Remedy("create_collection", {"source": source}),
        )  # fmt: skip
    comparison = Comparison(collections, uri.bucket, removals=False)
    reconciler = Reconciler(database, objects, send)
    found = reconciler.run(comparison, uri.key, after=after, progress=progress)
    return SourceDifferences(found)


def _collections(database: Database, name: str | None) -> list[Collection]:
    found = Collections(database).chosen(name)
    if not found:
        raise NotFoundError(
            "no collections yet",
            code="no_collection", remedy=Remedy("create_collection", {"source": "s3://bucket/"}),
        )  # fmt: skip
    return found


def _scopes(collections: Sequence[Collection]) -> list[tuple[str, str]]:
    """Buckets and prefixes to list; one that lies inside another is not listed twice."""
    every = {(rule.bucket, rule.prefix) for c in collections for rule in c.sources}
    return sorted(
        (bucket, prefix)
        for bucket, prefix in every
        if not any(
            b == bucket and p != prefix and prefix.startswith(p) for b, p in every
        )
    )  # fmt: skip


def _overlaps(collection: Collection, bucket: str, prefix: str) -> bool:
    return any(
        rule.bucket == bucket and (rule.prefix.startswith(prefix) or prefix.startswith(rule.prefix))
        for rule in collection.sources
    )
