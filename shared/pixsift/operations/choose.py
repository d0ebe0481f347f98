"""What a request chooses: the pool at one point, the selection, its splits, and how good it is.

The one place where these are put together: the curator stores the outcome as a snapshot, a preview
shows it. The same request at the same point chooses the same images, whoever asks.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixsift.adapters.ledger.pool import PoolPoint, load_pool, object_uris, pool_point
from pixsift.adapters.ledger.snapshots import Snapshots
from pixsift.adapters.postgres.database import Database
from pixsift.answers import ChosenImage, SelectionPreview
from pixsift.core.choosing.coverage import Comparison, compare
from pixsift.core.choosing.pool import Pool
from pixsift.core.choosing.sampling import Selection, select
from pixsift.core.choosing.splits import assign
from pixsift.errors import UserError
from pixsift.messages import SnapshotRequest


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What a request chose. ``pool.rows`` are read from a file that lives as long as ``choose``."""

    point: PoolPoint
    pool: Pool
    selection: Selection
    splits: Sequence[str]
    """The split of each pick."""
    comparison: Comparison
    """Coverage by this selection, beside chance."""


@contextmanager
def choose(
    database: Database,
    request: SnapshotRequest,
    point: PoolPoint | None = None,
    *,
    report_by: str | None = None,
    spill_dir: Path | None = None,
) -> Iterator[Choice]:
    """The images that ``request`` chooses at ``point``.

    point: where the request was pinned; None: what the request says, or now. report_by: attribute
    to compare by; None: that of the quota, or clusters. spill_dir: folder for the embeddings of
    the pool while it is chosen from; None: the system's temporary folder.
    Raises UserError for what cannot be done, with the numbers that make it so.
    """
    point = point or pool_point(database, request.collection, request.at_seq)
    preselected = _preselected(database, request)
    quota = request.select.quota
    seed = request.select.seed
    with tempfile.TemporaryDirectory(prefix="pixsift-", dir=spill_dir) as folder:
        pool = load_pool(
            database, point.collection_id, point.generation, point.at_seq, request.where,
            spill_dir=Path(folder), request=request.select, preselected=preselected,
        )  # fmt: skip
        selection = select(pool, request.select, preselected=preselected)
        splits = assign(pool, selection.indices, request.split, seed=seed)
        by = report_by or (quota.by if quota else None)
        yield Choice(point, pool, selection, splits, compare(pool, selection, by=by, seed=seed))


def preview(database: Database, request: SnapshotRequest, choice: Choice) -> SelectionPreview:
    """A choice as it is shown before anything is copied."""
    selection, splits = choice.selection, choice.splits
    chosen, outliers = selection.object_ids.tolist(), selection.outliers.tolist()
    uris = object_uris(database, [*chosen, *outliers])
    facts: dict[str, Any] = selection.report
    return SelectionPreview(
        **facts,
        collection=request.collection,
        at_seq=choice.point.at_seq,
        generation=choice.point.generation,
        coverage=choice.comparison.to_json(),
        splits={name: splits.count(name) for name in dict.fromkeys(splits)},
        outlier_uris=[uris[object_id] for object_id in outliers],
        images=[
            ChosenImage(rank=rank, object_id=object_id, uri=uris[object_id], split=split,
                        reason=reason)
            for rank, (object_id, split, reason) in enumerate(
                zip(chosen, splits, selection.reasons, strict=True)
            )
        ],
    )  # fmt: skip


def _preselected(database: Database, request: SnapshotRequest) -> list[int]:
    earlier = request.select.preselected_snapshot
    if earlier is None:
        return []
    try:
        return Snapshots(database).grown_from(earlier)
    except UserError as exc:
        raise type(exc)(
            f"select.preselected_snapshot: {exc}", code=exc.code, remedy=exc.remedy
        ) from exc
