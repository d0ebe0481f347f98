"""Resolves a pinned request into its stored list: chosen images, destinations, the report.

The list is a function of the spec, the seed and the point of the collection. It is stored before
anything is copied, and from then on it is read, never computed again.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pixsift.adapters.ledger.pool import PoolPoint
from pixsift.adapters.ledger.snapshots import NewItem, Snapshots, TakenRequest, snapshot_prefix
from pixsift.adapters.postgres.database import Database
from pixsift.core.choosing.sampling import Selection
from pixsift.core.copyplan import destination_keys
from pixsift.core.protection import NO_PROTECTION, Protection
from pixsift.errors import NotFoundError, RequestError
from pixsift.messages import SnapshotRequest
from pixsift.operations.choose import choose, protection_for, with_strategy


def resolve(
    database: Database, taken: TakenRequest, request: SnapshotRequest, *, spill_dir: Path | None
) -> str:
    """The id of the snapshot that answers ``request``; its list is stored.

    Raises UserError for what cannot be done, with the numbers that make it so.
    """
    snapshots = Snapshots(database)
    point = _pinned(taken)
    request, reason = with_strategy(database, request, point)
    protection = protection_for(database, request, point)
    digest = spec_hash(request, protection)
    same = snapshots.same(
        collection_id=point.collection_id, at_seq=point.at_seq, spec_hash=digest
    )  # fmt: skip
    if same is not None:
        snapshots.link(request_id=taken.request_id, snapshot_id=same)
        return same
    snapshot_id = _snapshot_id(taken, digest)
    with choose(database, request, point, spill_dir=spill_dir, protection=protection) as choice:
        selection, splits = choice.selection, choice.splits
        report = {**selection.report, "coverage": choice.comparison.to_json()}
        if reason is not None:
            report["auto"] = reason
        if protection:
            report["protected"] = [
                {"id": str(each.protected_id), "source": each.source, "distance": each.distance,
                 "pictures": len(each.pixels)}
                for each in protection.sets
            ]  # fmt: skip
    prefix = snapshot_prefix(request.name, snapshot_id)
    return snapshots.store(
        taken,
        snapshot_id=snapshot_id,
        name=request.name,
        spec_hash=digest,
        seed=request.select.seed,
        report=report,
        items=_items(snapshots, selection, splits, prefix),
    )


def spec_hash(request: SnapshotRequest, protection: Protection = NO_PROTECTION) -> str:
    """Hex digest of everything that decides the list and its form.

    protection: the evaluation sets that it keeps away from. None in force: as if there were no such
    thing.
    """
    told = request.spec()
    if protection:
        told["protected"] = protection.digest()
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _items(
    snapshots: Snapshots, selection: Selection, splits: Sequence[str], prefix: str
) -> list[NewItem]:
    object_ids = [int(object_id) for object_id in selection.object_ids]
    sources = snapshots.sources(object_ids)
    keys = destination_keys(
        ((sources[i], split) for i, split in zip(object_ids, splits, strict=True)),
        prefix=prefix,
    )
    radii = selection.radii if selection.radii.size else np.full(len(object_ids), np.nan)
    return [
        NewItem(object_id, split, key, reason, None if np.isnan(radius) else float(radius))
        for object_id, split, key, reason, radius in zip(
            object_ids, splits, keys, selection.reasons, radii, strict=True
        )
    ]


def _pinned(taken: TakenRequest) -> PoolPoint:
    if taken.collection_id is None or taken.at_seq is None or taken.seq is None:
        raise NotFoundError(f"request {taken.request_id!r} has no collection")
    if taken.at_seq > taken.seq:
        raise RequestError(
            f"at_seq {taken.at_seq} is in the future: "
            f"collection {taken.collection!r} is at {taken.seq}"
        )
    return PoolPoint(taken.collection_id, taken.generation or 0, taken.at_seq)


def _snapshot_id(taken: TakenRequest, digest: str) -> str:
    """Stable for the same spec at the same point of the same collection of the same ledger."""
    text = f"{taken.collection}\n{taken.collection_created_at}\n{taken.at_seq}\n{digest}"
    return f"s{taken.at_seq}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
