"""Carries out a selection request: the pool at one point, the selection, its splits and its
coverage. The curator stores the result as a snapshot, a preview shows it. The same request at the
same point chooses the same images everywhere.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixsift.adapters.ledger.pool import (
    PoolPoint,
    count_pool,
    load_pool,
    object_uris,
    pool_point,
    pool_protection,
    total_bytes,
)
from pixsift.adapters.ledger.snapshots import Snapshots
from pixsift.adapters.postgres.database import Database
from pixsift.answers.choosing import ChosenImage, FarImage, SelectionPreview, StrategyComparison
from pixsift.core.choosing.auto import resolved
from pixsift.core.choosing.contest import Contest, contest
from pixsift.core.choosing.coverage import Comparison, compare
from pixsift.core.choosing.pool import Pool
from pixsift.core.choosing.sampling import Selection, select
from pixsift.core.choosing.splits import assign
from pixsift.core.cost import PRICES_AS_OF, copy_cost
from pixsift.core.protection import NO_PROTECTION, Protection
from pixsift.errors import DependencyDownError, RequestError, UserError
from pixsift.messages import Select2, SnapshotRequest, SnapshotRequest2
from pixsift.operations.images import uris_and_thumbnails
from pixsift.ports import ObjectStore

_SHOWN = 12
"""Pictures of each strategy's first picks."""


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The result of a request. ``pool.rows`` are read from a file that lives as long as
    ``choose``."""

    point: PoolPoint
    pool: Pool
    selection: Selection
    splits: Sequence[str]
    """The split of each pick."""
    comparison: Comparison
    """Coverage by this selection, compared with a random one."""


@contextmanager
def choose(
    database: Database,
    request: SnapshotRequest,
    point: PoolPoint | None = None,
    *,
    report_by: str | None = None,
    spill_dir: Path | None = None,
    protection: Protection | None = None,
) -> Iterator[Choice]:
    """The images that ``request`` chooses at ``point``.

    point: where the request was pinned; None: what the request says, or now. report_by: attribute
    to compare by; None: that of the quota, or clusters. spill_dir: folder for the embeddings of
    the pool while it is chosen from; None: the system's temporary folder. protection: evaluation
    sets as they were read; None: those in force now, as far as the request asks.
    Raises UserError for what cannot be done, with the numbers that make it so; DependencyDownError
    where the folder has no room.
    """
    point = point or pool_point(database, request.collection, request.at_seq)
    # As the curator does, so that a preview shows the list of the snapshot.
    request, reason = with_strategy(database, request, point)
    preselected = _preselected(database, request)
    quota = request.select.quota
    seed = request.select.seed
    if protection is None:
        protection = protection_for(database, request, point)
    with _spill_folder(spill_dir) as folder:
        with _room_in(folder):
            pool = load_pool(
                database, point.collection_id, point.generation, point.at_seq, request.where,
                spill_dir=folder, request=request.select, preselected=preselected,
                protection=protection or None,
            )  # fmt: skip
            selection = select(pool, request.select, preselected=preselected)
            if reason is not None:
                selection.report["auto"] = reason
        earlier = _earlier_splits(database, request, pool, preselected)
        splits = assign(pool, selection.indices, request.split, seed=seed, earlier=earlier)
        by = report_by or (quota.by if quota else None)
        yield Choice(point, pool, selection, splits, compare(pool, selection, by=by, seed=seed))


@contextmanager
def _spill_folder(parent: Path | None) -> Iterator[Path]:
    """A folder of its own, gone afterwards; what cannot be removed is left."""
    with _room_in(parent or Path(tempfile.gettempdir())):
        folder = Path(tempfile.mkdtemp(prefix="pixsift-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _room_in(folder: Path) -> Iterator[None]:
    """A full disk is an outage, which a later try may outlast; a missing folder too."""
    try:
        yield
    except OSError as error:
        raise DependencyDownError(
            f"cannot keep the embeddings of a selection in {folder}: {error.strerror or error}; "
            "free space there, or set PIXSIFT_SPILL_DIR to a larger disk",
            code="no_room",
        ) from error


def with_strategy(
    database: Database, request: SnapshotRequest, point: PoolPoint
) -> tuple[SnapshotRequest, str | None]:
    """The request with ``auto`` replaced by a strategy, and the reason. The result is the same as
    if the strategy had been named: the same list, with the same hash.
    """
    asked = request.select
    if not isinstance(asked, Select2) or asked.strategy != "auto":
        return request, None
    found, reason = resolved(asked, count_pool(database, point, request.where))
    return request.model_copy(update={"select": found}), reason


def protection_for(database: Database, request: SnapshotRequest, point: PoolPoint) -> Protection:
    """The evaluation sets that a request keeps away from: all in force now, from version 2 on.

    Raises ConflictError where pictures of them have no vector in the pool's embedding space.
    """
    asked = request.select
    if not isinstance(asked, Select2) or asked.protected == "include":
        return NO_PROTECTION
    return pool_protection(database, point)


def preview(database: Database, request: SnapshotRequest, choice: Choice) -> SelectionPreview:
    """A choice as it is shown before anything is copied."""
    selection, splits = choice.selection, choice.splits
    chosen, outliers = selection.object_ids.tolist(), selection.outliers.tolist()
    worst = [
        (int(choice.pool.object_ids[row]), far) for row, far in choice.comparison.selection.worst
    ]
    uris = object_uris(database, [*chosen, *outliers, *(object_id for object_id, _ in worst)])
    copies = len(chosen) if request.export.mode == "copy" else 0
    copied_bytes = total_bytes(database, chosen) if copies else 0
    cost = copy_cost(copies, copied_bytes)
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
        worst_covered=[
            FarImage(object_id=object_id, uri=uris[object_id], distance=round(far, 4))
            for object_id, far in worst
        ],
        copies=copies,
        copied_bytes=copied_bytes,
        copy_dollars=cost.requests,
        storage_dollars_month=cost.month,
        prices_as_of=PRICES_AS_OF,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """A comparison of strategies, with pictures of their first picks and of what they left out."""

    facts: StrategyComparison
    contest: Contest
    pictures: Mapping[int, tuple[str, bytes | None]]
    """Row of the pool -> URI, and the thumbnail where there is one."""


def compare_strategies(
    database: Database,
    objects: ObjectStore,
    derived_bucket: str,
    request: SnapshotRequest,
    *,
    label: str | None = None,
    group: str | None = None,
    ks: Sequence[int] = (),
) -> Compared:
    """Every strategy at several sizes on the pool of a request; nothing is stored.

    label: attribute with the classes of a probe; group: attribute held out together.
    Raises UserError for what cannot be done.
    """
    point = pool_point(database, request.collection, request.at_seq)
    asked = request.select
    if not isinstance(asked, Select2):
        raise RequestError("strategies are compared for schema 'pixsift.snapshot-request/2'")
    with _spill_folder(None) as folder, _room_in(folder):
        pool = load_pool(
            database, point.collection_id, point.generation, point.at_seq, request.where,
            spill_dir=folder,
            protection=protection_for(database, request, point) or None,
        )  # fmt: skip
        found = contest(pool, asked, label=label, group=group, ks=ks)
        rows = [r for e in found.entries for r in (*e.first[:_SHOWN], *e.left_out[: 2 * _SHOWN])]
        ids = {int(row): int(pool.object_ids[row]) for row in dict.fromkeys(rows)}
    shown = uris_and_thumbnails(database, objects, derived_bucket, list(ids.values()))
    facts = StrategyComparison(
        collection=request.collection, at_seq=point.at_seq, **found.to_json()
    )
    return Compared(facts, found, {row: shown[object_id] for row, object_id in ids.items()})


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


def _earlier_splits(
    database: Database, request: SnapshotRequest, pool: Pool, preselected: Sequence[int]
) -> dict[int, str]:
    """Splits of rows chosen earlier, which hold for their groups; the first version forgot them."""
    earlier = request.select.preselected_snapshot
    if earlier is None or not preselected or not isinstance(request, SnapshotRequest2):
        return {}
    splits = Snapshots(database).splits(preselected, earlier)
    rows = pool.indices_of(list(splits)).tolist()
    return dict(zip(rows, splits.values(), strict=True))
