"""Watches: begin, try, list and end standing queries, read their hits, run them over the past.

Arrivals are matched in the transaction that decides them (``adapters.ledger.decision_batch``).
Everything here may run at the same time: every turn after a watch's ``from_seq`` knows the watch,
and a past run adds only hits that do not exist yet.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.ledger.find_rows import FindRows
from pixsift.adapters.ledger.watch_rows import NewWatch, WatchRows
from pixsift.adapters.postgres.database import Database
from pixsift.adapters.search.by_example import ByExample, Findable
from pixsift.adapters.search.resident import SeqPoint
from pixsift.api_watches import (
    TrialHit,
    Watch,
    WatchAsk,
    WatchCount,
    WatchHit,
    WatchHitPage,
    WatchHits,
    WatchList,
    WatchPast,
    WatchTrial,
)
from pixsift.core.collection import Collection
from pixsift.core.identity import ObjectVersion
from pixsift.core.watching import MOST_MODES, Aim, Halves, Match, Matcher, modes_of
from pixsift.errors import ConflictError, NotFoundError, RequestError
from pixsift.messages import Where2, in_utc
from pixsift.operations.browse import thumbnail_path
from pixsift.operations.examples import Embedded, Examples, Uploads, way_of
from pixsift.operations.retrieve import only_collection

_IN_EVENT = 50
_NEAREST = 12
Report = Callable[[str, int, int | None], None]


def begin(
    database: Database, ask: WatchAsk, *, actor: str, uploads: Uploads | None = None
) -> Watch:
    """Begin a watch. Raises as ``Examples.of`` does, ConflictError for a name that is taken."""
    made = _made(database, ask, uploads or Uploads())
    watch_id = WatchRows(database).add(
        made.collection,
        NewWatch(
            name=ask.name, max_distance=ask.max_distance, condition=condition_of(ask.where),
            duplicates=ask.duplicates, destination=ask.destination, examples=made.names,
            pixels=sorted(made.pixels), modes=made.modes, against=made.against, created_by=actor,
        ),
    )  # fmt: skip
    return show(database, watch_id)


def attempt(database: Database, ask: WatchAsk, *, uploads: Uploads | None = None) -> WatchTrial:
    """What a watch would match among the images that are kept now; stores nothing."""
    made = _made(database, ask, uploads or Uploads())
    rows = FindRows(database)
    allowed = rows.matching(made.point, ask.where)
    matcher = Matcher(_aims(made, max_distance=ask.max_distance))
    compared, matching = 0, 0
    nearest: list[tuple[float, int, int]] = []
    for ids, halves in WatchRows(database).past(
        made.collection, made.point.dimension, duplicates=False
    ):
        compared += len(ids)
        passing = np.isin(ids, allowed)
        distances, modes = matcher.nearest(halves[passing])
        matching += int((distances <= ask.max_distance).sum())
        first = [int(at) for at in np.argsort(distances)[:_NEAREST] if np.isfinite(distances[at])]
        nearest += [(float(distances[at]), int(ids[passing][at]), int(modes[at])) for at in first]
        nearest = sorted(nearest)[:_NEAREST]
    shown = rows.shown(made.point, [object_id for _, object_id, _ in nearest])
    return WatchTrial(
        collection=made.collection.name, modes=made.names, compared=compared, matching=matching,
        nearest=[
            TrialHit(
                object_id=object_id, uri=_uri(shown[object_id]), distance=distance, mode=mode,
                thumbnail=_thumbnail(shown[object_id], object_id),
            )
            for distance, object_id, mode in nearest if object_id in shown
        ],
    )  # fmt: skip


def list_watches(
    database: Database, *, collection: str | None, ended: bool, limit: int = 1000
) -> WatchList:
    """The newest first. Raises NotFoundError for an unknown collection."""
    if collection is not None:
        Collections(database).collection(collection)
    rows = WatchRows(database).watches(collection=collection, ended=ended, limit=limit)
    return WatchList(watches=[_watch(row) for row in rows])


def show(database: Database, watch_id: int) -> Watch:
    """One watch. Raises NotFoundError."""
    return _watch(_row(database, watch_id))


def named(database: Database, text: str, *, collection: str | None = None) -> Watch:
    """The open watch of that name, or any by its id. Raises NotFoundError, ConflictError."""
    if text.isascii() and text.isdigit() and len(text) < 19:
        return show(database, int(text))
    rows = WatchRows(database).watches(collection=collection)
    found = [row for row in rows if row["name"] == text]
    if not found:
        raise NotFoundError(f"no open watch {text!r}", code="unknown_watch")
    if len(found) > 1:
        ids = ", ".join(str(row["watch_id"]) for row in found)
        raise ConflictError(f"several watches are named {text!r}: name one by its id ({ids})")
    return _watch(found[0])


def end(database: Database, watch_id: int) -> Watch:
    """End a watch; its hits stay. A watch that has ended does not change."""
    _row(database, watch_id)
    WatchRows(database).end(watch_id, why="asked")
    return show(database, watch_id)


def hits(database: Database, watch_id: int, *, before: int | None, limit: int) -> WatchHitPage:
    """What a watch matched, the newest first. Raises NotFoundError for an unknown watch."""
    _row(database, watch_id)
    rows = WatchRows(database).hits(watch_id, before=before, limit=limit)
    return WatchHitPage(watch_id=watch_id, hits=[_hit(row) for row in rows])


def hits_between(database: Database, collection: str, from_seq: int, to_seq: int) -> WatchHits:
    """What the watches of a collection matched in a span of turns."""
    counts, newest = WatchRows(database).hits_between(collection, from_seq, to_seq, limit=_IN_EVENT)
    return WatchHits(
        collection=collection, from_seq=from_seq, to_seq=to_seq,
        counts=[WatchCount(**row) for row in counts], hits=[_hit(row) for row in newest],
    )  # fmt: skip


def run_past(
    database: Database, watch_id: int, *, report: Report = lambda step, done, of: None
) -> WatchPast:
    """Match what is in the collection now, as if it arrived; hits that are there stay as they are.

    Such hits are listed, but not announced: events are for new arrivals. Run again, it finds images
    that were kept later: by a ruling, by another rule, or because their representative was removed.
    Raises NotFoundError, and ConflictError for a watch that is not open.
    """
    row = _row(database, watch_id)
    collection = Collections(database).collection(row["collection"])
    if row["ended_at"] is not None or row["space_id"] != collection.space_id:
        raise ConflictError(
            f"watch {row['name']!r} does not match anything any more: it ended, or its collection "
            "has moved to another model",
            code="watch_ended",
        )
    rows = WatchRows(database)
    matcher = rows.matcher(collection, watch_id)
    dimension = ByExample(database, memory_bytes=0).point(collection.collection_id).dimension
    compared = matched = added = 0
    for ids, halves in rows.past(collection, dimension, duplicates=row["duplicates"]):
        found = _pairs(ids.tolist(), matcher.match(halves))
        compared += len(ids)
        matched += len(found)
        added += rows.note_past(found)
        report("comparing", compared, None)
    return WatchPast(watch_id=watch_id, compared=compared, matched=matched, added=added)


def condition_of(where: Where2) -> dict[str, Any]:
    """A filter as the ledger stores it with a watch."""
    after, before = where.captured_after, where.captured_before
    found = {
        "prefix": where.prefix or None, "after": after and in_utc(after).isoformat(),
        "before": before and in_utc(before).isoformat(), "attributes": where.attributes or None,
        "quality": {name: r.model_dump() for name, r in where.quality.items()} or None,
        "flagged": where.flagged, "flags": where.flags or None,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    collection: Collection
    point: SeqPoint
    modes: Halves
    against: Halves
    names: list[list[str]]
    pixels: frozenset[bytes]


def _made(database: Database, ask: WatchAsk, uploads: Uploads) -> _Made:
    collection = only_collection(database, ask.collection)
    by_example = ByExample(database, memory_bytes=0)
    point = by_example.point(collection.collection_id)
    examples = Examples(database)
    found = examples.of(collection, point, ask, uploads)
    against: Embedded = examples.embedded(collection, point, ask.counterexamples, uploads)
    way = way_of(ask, len(found.vectors))
    mean = np.zeros(point.dimension)
    if way == "modes":
        mean = by_example.mean(point, Findable())
    modes, groups = modes_of(found.vectors, mean, way)
    if len(modes) > MOST_MODES:
        raise RequestError(
            f"the examples make {len(modes)} modes, {MOST_MODES} at most: name fewer examples, or "
            "watch for their mean (way 'mean')", code="too_many_modes",
        )  # fmt: skip
    return _Made(
        collection, point, modes, against.vectors.astype(np.float16),
        [[found.names[i] for i in group] for group in groups], found.pixels | against.pixels,
    )  # fmt: skip


def _aims(made: _Made, *, max_distance: float) -> Iterator[Aim]:
    for is_against, vectors in ((False, made.modes), (True, made.against)):
        for mode, vector in enumerate(vectors):
            yield Aim(0, mode, is_against, max_distance, False, vector)


def _pairs(ids: list[int], matches: list[list[Match]]) -> list[tuple[int, Match]]:
    return [(i, match) for i, found in zip(ids, matches, strict=True) for match in found]


def _row(database: Database, watch_id: int) -> Mapping[str, Any]:
    rows = WatchRows(database).watches(watch_id=watch_id)
    if not rows:
        raise NotFoundError(f"no watch {watch_id}", code="unknown_watch")
    return rows[0]


def _watch(row: Mapping[str, Any]) -> Watch:
    is_open = row["ended_at"] is None
    open_state = "watching" if row["is_comparable"] else "other_space"
    return Watch(
        watch_id=row["watch_id"], name=row["name"], collection=row["collection"],
        state=open_state if is_open else "ended",  # type: ignore[arg-type]  # two of its literals
        max_distance=row["max_distance"], where=row["condition"], duplicates=row["duplicates"],
        destination=row["destination"], modes=row["examples"], created_by=row["created_by"],
        created_at=row["created_at"], from_seq=row["from_seq"], hits=row["hits"],
        last_hit_at=row["last_hit_at"], ended_at=row["ended_at"], ended_why=row["ended_why"],
    )  # fmt: skip


def _hit(row: Mapping[str, Any]) -> WatchHit:
    return WatchHit(
        hit_id=row["hit_id"], watch_id=row["watch_id"], watch=row["watch"],
        object_id=row["object_id"], uri=_uri(row), outcome=row["outcome"],
        distance=row["distance"], mode=row["mode"], is_past=row["seq"] is None, seq=row["seq"],
        at=row["at"], captured_at=row["captured_at"], announced_at=row["announced_at"],
        thumbnail=_thumbnail(row, row["object_id"]),
    )  # fmt: skip


def _uri(row: Mapping[str, Any]) -> str:
    return ObjectVersion(row["bucket"], row["key"], row["version_id"]).uri


def _thumbnail(row: Mapping[str, Any], object_id: int) -> str | None:
    return thumbnail_path(object_id) if row["has_thumbnail"] else None
