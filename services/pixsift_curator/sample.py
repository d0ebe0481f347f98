"""From a request to the list it names: pool, selection, splits, destinations; then it is stored.

The list is a function of the spec, the seed and the point of the collection. It is stored before
anything is copied, and from then on it is read, never computed again.
"""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from pixsift.adapters.ledger.pool import load_pool
from pixsift.adapters.ledger.snapshots import NewItem, Snapshots, TakenRequest, snapshot_prefix
from pixsift.adapters.postgres.database import Database
from pixsift.core.choosing.coverage import compare
from pixsift.core.choosing.pool import Pool
from pixsift.core.choosing.sampling import Selection, select
from pixsift.core.choosing.splits import assign
from pixsift.core.copyplan import destination_keys
from pixsift.errors import RequestError, UserError
from pixsift.messages import SnapshotRequest
from pixsift_curator.requests import spec_hash


class Resolver:
    """Resolves requests against the ledger; spills embeddings below ``spill_dir``."""

    def __init__(self, snapshots: Snapshots, *, database: Database, spill_dir: Path | None) -> None:
        self._snapshots = snapshots
        self._database = database
        self._spill_dir = spill_dir

    def resolve(self, taken: TakenRequest, request: SnapshotRequest) -> str:
        """The id of the snapshot that answers ``request``; its list is stored.

        Raises UserError for what cannot be done, with the numbers that make it so.
        """
        collection_id, at_seq = _pinned(taken)
        digest = spec_hash(request)
        same = self._snapshots.same(collection_id=collection_id, at_seq=at_seq, spec_hash=digest)
        if same is not None:
            self._snapshots.link(request_id=taken.request_id, snapshot_id=same)
            return same
        snapshot_id = _snapshot_id(taken, digest)
        items, report = self._choose(taken, request, snapshot_id)
        return self._snapshots.store(
            taken,
            snapshot_id=snapshot_id,
            name=request.name,
            spec_hash=digest,
            seed=request.select.seed,
            report=report,
            items=items,
        )

    def _choose(
        self, taken: TakenRequest, request: SnapshotRequest, snapshot_id: str
    ) -> tuple[list[NewItem], dict[str, Any]]:
        collection_id, at_seq = _pinned(taken)
        preselected = self._preselected(request)
        with tempfile.TemporaryDirectory(prefix="pixsift-", dir=self._spill_dir) as folder:
            pool = load_pool(
                self._database, collection_id, taken.generation or 0, at_seq, request.where,
                spill_dir=Path(folder), request=request.select, preselected=preselected,
            )  # fmt: skip
            selection = select(pool, request.select, preselected=preselected)
            splits = assign(pool, selection.indices, request.split, seed=request.select.seed)
            report = _report(pool, selection, request)
        items = self._items(selection, splits, snapshot_prefix(request.name, snapshot_id))
        return items, report

    def _preselected(self, request: SnapshotRequest) -> list[int]:
        earlier = request.select.preselected_snapshot
        if earlier is None:
            return []
        try:
            return self._snapshots.grown_from(earlier)
        except UserError as exc:
            raise type(exc)(
                f"select.preselected_snapshot: {exc}", code=exc.code, remedy=exc.remedy
            ) from exc

    def _items(self, selection: Selection, splits: list[str], prefix: str) -> list[NewItem]:
        object_ids = [int(object_id) for object_id in selection.object_ids]
        sources = self._snapshots.sources(object_ids)
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


def _report(pool: Pool, selection: Selection, request: SnapshotRequest) -> dict[str, Any]:
    """What the strategy says, and how well the selection covers the pool beside chance."""
    quota = request.select.quota
    coverage = compare(pool, selection, by=quota.by if quota else None, seed=request.select.seed)
    return {**selection.report, "coverage": coverage.to_json()}


def _pinned(taken: TakenRequest) -> tuple[int, int]:
    if taken.collection_id is None or taken.at_seq is None or taken.seq is None:
        raise RequestError(f"request {taken.request_id!r} names no collection")
    if taken.at_seq > taken.seq:
        raise RequestError(
            f"at_seq {taken.at_seq} has not happened yet: "
            f"collection {taken.collection!r} is at {taken.seq}"
        )
    return taken.collection_id, taken.at_seq


def _snapshot_id(taken: TakenRequest, digest: str) -> str:
    """Stable for the same spec at the same point of the same collection of the same ledger."""
    text = f"{taken.collection}\n{taken.collection_created_at}\n{taken.at_seq}\n{digest}"
    return f"s{taken.at_seq}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
