"""A collection compared with a reference set, both ways; and the share of arrivals that was new.

A reference set is a folder, a snapshot or some images: for example a validation set, or a training
set. Its gaps are images that the collection lacks; the regions that it does not cover are images
that the collection could add. The references themselves never count as the collection's images.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pixsift.adapters.ledger.find_rows import FindRows, Ids
from pixsift.adapters.postgres.database import Database
from pixsift.adapters.search.by_example import ByExample
from pixsift.adapters.search.resident import SeqPoint
from pixsift.api_coverage import (
    CoverageAsk,
    CoverageReport,
    Gap,
    NoveltyAsk,
    NoveltyGroup,
    NoveltyReport,
    Region,
    Seen,
)
from pixsift.core.choosing.clusters import cluster
from pixsift.core.choosing.rows import ArrayRows, Float64s
from pixsift.core.collection import Collection
from pixsift.core.identity import ObjectVersion
from pixsift.core.reference import ReferenceScan, Regions, Sides
from pixsift.core.retrieval import unit
from pixsift.errors import NotFoundError
from pixsift.messages import in_utc
from pixsift.operations.browse import thumbnail_path
from pixsift.operations.examples import Examples, Uploads, parsed
from pixsift.operations.retrieve import only_collection
from pixsift.operations.snapshots import find, objects_of

MOST_REFERENCES: Final = 20_000
_SAMPLE: Final = 8192
"""Uncovered images that regions are learned from; then all are assigned to regions."""
_EXAMPLES: Final = 5
_QUANTILES: Final = {"p10": 0.1, "p50": 0.5, "p90": 0.9, "max": 1.0}
Report = Callable[[str, int, int | None], None]


def compare(
    database: Database, collection: str | None, ask: CoverageAsk, *,
    uploads: Uploads | None = None, report: Report = lambda step, done, of: None,
) -> CoverageReport:  # fmt: skip
    """See ``CoverageReport``. Raises NotFoundError for an unknown collection, snapshot or image, or
    a reference set without vectors in the collection's space."""
    mine = only_collection(database, collection)
    by_example, rows = ByExample(database, memory_bytes=0), FindRows(database)
    point = by_example.point(mine.collection_id)
    reference = _reference(database, mine, point, ask, uploads or Uploads())
    same = rows.kept_with_pixels(point, sorted(reference.pixels))
    known = reference.object_ids[reference.object_ids >= 0]
    barred = np.unique(np.concatenate([known, same]))
    scan = ReferenceScan(reference.vectors, limit=ask.radius)
    for ids, halves in by_example.blocks(point):
        others = ~np.isin(ids, barred)
        scan.add(ids[others], halves[others])
        report("comparing", len(ids), None)
    sides = scan.result()
    uncovered = np.sort(sides.object_ids[sides.distances > ask.radius])
    regions = _regions(by_example, rows, mine, point, uncovered, report=report)
    gaps = np.flatnonzero(sides.nearest > ask.radius)
    gaps = gaps[np.argsort(-sides.nearest[gaps], kind="stable")]
    listed = gaps[: ask.pictures]
    order = [] if regions is None else regions.order()[: ask.pictures].tolist()
    wanted = {int(i) for i in (*reference.object_ids[listed], *sides.nearest_ids[listed])}
    wanted |= {i for number in order for i in regions.examples(number)} if regions else set()
    shown = rows.shown(point, sorted(wanted - {-1}))
    return CoverageReport(
        collection=mine.name, at_seq=point.seq, radius=ask.radius,
        references=len(reference.vectors), images=len(sides.object_ids), gaps=len(gaps),
        uncovered=len(uncovered),
        gap_list=[_gap(reference, sides, int(at), shown) for at in listed],
        regions=[
            Region(
                images=int(regions.counts[number]),
                share=float(regions.counts[number] / len(sides.object_ids)),
                examples=[_seen(i, shown) for i in regions.examples(number) if i in shown],
            )
            for number in order
        ] if regions else [],
        reference_distances=_quantiles(sides.nearest), image_distances=_quantiles(sides.distances),
        failures=dict(uploads.failures) if uploads else {},
    )  # fmt: skip


def novelty(database: Database, collection: str | None, ask: NoveltyAsk) -> NoveltyReport:
    """Per robot, site, day: the share of the frames that was kept.

    Raises NotFoundError for an unknown collection.
    """
    mine = only_collection(database, collection)
    point = ByExample(database, memory_bytes=0).point(mine.collection_id)
    after, before = ask.captured_after, ask.captured_before
    rows = FindRows(database).novelty(point, {
        "by": ask.by, "last": ask.last, "attributes": ask.where,
        "after": after and in_utc(after), "before": before and in_utc(before),
    })  # fmt: skip
    groups = [
        NoveltyGroup(
            group=row["grouped"], frames=row["frames"], kept=row["kept"],
            novelty=_share(row["kept"], row["frames"]), rejected=row["rejected"],
            first_captured=row["first_captured"], last_captured=row["last_captured"],
        )
        for row in rows
    ]  # fmt: skip
    if ask.order == "novelty":
        groups.sort(key=lambda group: -group.novelty)
    elif ask.order == "frames":
        groups.sort(key=lambda group: -group.frames)
    frames, kept = sum(g.frames for g in groups), sum(g.kept for g in groups)
    return NoveltyReport(
        collection=mine.name, by=ask.by, last=ask.last, frames=frames, kept=kept,
        novelty=_share(kept, frames), groups=groups[: ask.limit],
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Reference:
    vectors: Float64s
    """(R, D)."""
    object_ids: Ids
    """(R,); -1: a file that came with the request."""
    names: Sequence[str]
    """(R,) of those without an id."""
    pixels: frozenset[bytes]


def _reference(
    database: Database, collection: Collection, point: SeqPoint, ask: CoverageAsk,
    uploads: Uploads,
) -> _Reference:  # fmt: skip
    rows = FindRows(database)
    if ask.examples:
        found = Examples(database).embedded(collection, point, ask.examples, uploads)
        if not len(found.vectors):
            raise NotFoundError("no example has a vector", code="no_examples")
        ids = np.array([-1 if i is None else i for i in found.ids], np.int64)
        return _Reference(found.vectors, ids, found.names, found.pixels)
    if ask.snapshot is not None:
        snapshot = find(database, ask.snapshot)
        named = objects_of(database, snapshot.snapshot_id)
        wanted = np.unique(np.array([each.object_id for each in named], np.int64))
        where = f"snapshot {snapshot.snapshot_id}"
    else:
        uri = parsed(ask.folder or "")
        wanted = rows.references(collection.space_id, uri.bucket, uri.key, MOST_REFERENCES + 1)
        where = ask.folder or ""
    if len(wanted) > MOST_REFERENCES:
        raise NotFoundError(
            f"{where} has {len(wanted)} images or more: a reference set has {MOST_REFERENCES} at "
            "most", code="too_many_references",
        )  # fmt: skip
    known, vectors = rows.vectors(collection.space_id, point.dimension, wanted)
    if not len(known):
        raise NotFoundError(
            f"{where} has no image with a vector in the embedding space of collection "
            f"{collection.name!r}", code="empty_reference",
        )  # fmt: skip
    pixels = rows.pixels_of(collection.space_id, known.tolist()).values()
    return _Reference(vectors, known, [""] * len(known), frozenset(pixels))


def _regions(
    by_example: ByExample, rows: FindRows, collection: Collection, point: SeqPoint, ids: Ids,
    *, report: Report,
) -> Regions | None:  # fmt: skip
    """The uncovered images, grouped by k-means on a sample; then all are assigned."""
    if not len(ids):
        return None
    chance = np.random.default_rng(len(ids))
    sample = np.sort(chance.choice(ids, min(_SAMPLE, len(ids)), replace=False))
    _, vectors = rows.vectors(collection.space_id, point.dimension, sample)
    count = max(1, min(24, round(np.sqrt(len(vectors)))))
    labels = cluster(ArrayRows(unit(vectors)), count, seed=7)
    used = np.unique(labels)
    regions = Regions(np.stack([unit(vectors)[labels == label].mean(axis=0) for label in used]))
    for part, halves in by_example.blocks(point, ids):
        regions.add(part, halves, _EXAMPLES)
        report("grouping", len(part), None)
    return regions


def _gap(reference: _Reference, sides: Sides, at: int, shown: Mapping[int, Any]) -> Gap:
    object_id, nearest = int(reference.object_ids[at]), int(sides.nearest_ids[at])
    seen = Seen(object_id=None, uri=reference.names[at], thumbnail=None)
    return Gap(
        reference=seen if object_id < 0 else _seen(object_id, shown),
        distance=float(sides.nearest[at]) if nearest >= 0 else None,
        nearest=_seen(nearest, shown) if nearest >= 0 else None,
    )


def _seen(object_id: int, shown: Mapping[int, Any]) -> Seen:
    row = shown[object_id]
    return Seen(
        object_id=object_id, uri=ObjectVersion(row["bucket"], row["key"], row["version_id"]).uri,
        thumbnail=thumbnail_path(object_id) if row["has_thumbnail"] else None,
    )  # fmt: skip


def _quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return {}
    return {name: round(float(np.quantile(finite, q)), 6) for name, q in _QUANTILES.items()}


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
