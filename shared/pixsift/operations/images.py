"""Lists images by outcome, with their thumbnails, and waits for the outcomes of keys."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.ledger.overview import Overview
from pixsift.adapters.ledger.pool import object_uris
from pixsift.adapters.postgres.database import Database
from pixsift.answers.images import ImageLine, ImageList, KeyOutcomes
from pixsift.core.outcomes import OUTCOMES
from pixsift.core.sources import reach
from pixsift.errors import PixsiftError, RequestError
from pixsift.operations.retrieve import only_collection
from pixsift.ports import ObjectStore

_POLL_SECONDS = 0.5
_THREADS = 8


def images(
    database: Database,
    *,
    collection: str | None = None,
    outcome: str | None = None,
    reason: str | None = None,
    prefix: str = "",
    limit: int = 100,
) -> ImageList:
    """Images with the outcome that holds now, the newest decision first.

    None for outcome or reason means any. Raises RequestError for an outcome that does not exist,
    and for a reason that no image of the collection has, with the existing reasons.
    """
    found = only_collection(database, collection)
    overview = Overview(database)
    if outcome is not None and outcome not in OUTCOMES:
        raise RequestError(f"no outcome {outcome!r}: there are {', '.join(OUTCOMES)}")
    counted = overview.counts(found)["reasons"]
    known = {row["reason"] for row in counted}
    if reason is not None and reason not in known:
        there = ", ".join(sorted(filter(None, known))) or "none"
        raise RequestError(f"no image has the reason {reason!r}: there are {there}")
    rows = overview.images(found, outcome=outcome, reason=reason, prefix=prefix, limit=limit)
    return ImageList(collection=found.name, images=[ImageLine(**row) for row in rows])


def thumbnails(objects: ObjectStore, bucket: str, keys: Iterable[str]) -> dict[str, bytes]:
    """The WebP of each thumbnail key; one that cannot be read is left out."""

    def fetch(key: str) -> tuple[str, bytes | None]:
        try:
            return key, objects.read(bucket, key)
        except PixsiftError:
            return key, None

    with ThreadPoolExecutor(_THREADS) as pool:
        return {key: body for key, body in pool.map(fetch, dict.fromkeys(keys)) if body is not None}


def thumbnail_keys(database: Database, object_ids: Sequence[int]) -> dict[int, str]:
    """Thumbnail key by object, of those that have one."""
    return Overview(database).thumbnail_keys(object_ids)


def uris_and_thumbnails(
    database: Database, objects: ObjectStore, derived_bucket: str, object_ids: Sequence[int]
) -> dict[int, tuple[str, bytes | None]]:
    """URI and WebP thumbnail by object; None where there is no thumbnail."""
    keys = thumbnail_keys(database, object_ids)
    shown = thumbnails(objects, derived_bucket, keys.values())
    uris = object_uris(database, object_ids)
    return {each: (uris[each], shown.get(keys.get(each, ""))) for each in object_ids}


def wait_for_outcomes(
    database: Database,
    bucket: str,
    keys: Sequence[str],
    *,
    since: datetime | None,
    timeout_seconds: float,
    progress: Callable[[int], None] = lambda done: None,
) -> KeyOutcomes:
    """Wait until every key of ``bucket`` that a collection judges has an outcome.

    since: only objects that arrived from then on count; None: all. progress: called with how many
    keys have their outcome. After ``timeout_seconds`` the answer says how many do not have one.
    """
    rules = [rule for each in Collections(database).collections() for rule in each.sources]
    judged = [key for key in keys if reach(rules, bucket, key) == "accepted"]
    overview = Overview(database)
    deadline = time.monotonic() + timeout_seconds
    while True:
        rows = overview.outcomes_of_keys(bucket, judged, since)
        decided = {row["key"] for row in rows}
        progress(len(decided))
        if len(decided) == len(set(judged)) or time.monotonic() > deadline:
            break
        time.sleep(_POLL_SECONDS)
    counts = Counter((str(row["outcome"]), str(row["reason"])) for row in rows)
    return KeyOutcomes(
        outcomes={f"{outcome} ({reason})": n for (outcome, reason), n in counts.most_common()},
        ignored=len(keys) - len(judged),
        undecided=len(set(judged)) - len(decided),
    )


def ledger_time(database: Database) -> datetime:
    """The database server's clock, by which arrivals are dated."""
    return Overview(database).now()
