"""Writes sidecar attributes into the ledger: versioned by ``seq``, as every decision is.

A batch of rows is one transaction under the collection's lock and one step of ``seq``. An import
that was cut off is simply run again: what is equal stays as it is.
"""

from collections.abc import Sequence

from pixsift.adapters.ledger import history
from pixsift.adapters.ledger.history import AttributeRow, Turn
from pixsift.adapters.postgres.database import Database
from pixsift.answers.images import ImportedAttributes
from pixsift.core.collection import Collection
from pixsift.core.sidecar import SidecarRow
from pixsift.errors import Remedy, RequestError
from pixsift.sql import statements

_SQL = statements("attributes")
_BATCH = 5_000
"""Objects per transaction: the collection's lock is held for a fraction of a second."""


def import_attributes(
    database: Database,
    collection: Collection,
    rows: Sequence[SidecarRow],
    *,
    skip_unknown: bool = False,
    replace: bool = False,
    actor: str = "pixsift",
) -> ImportedAttributes:
    """Add the rows to what earlier sidecars said, or replace it.

    actor: who the turns say made them.
    Raises UserError, before anything is written, when rows name objects the collection never
    judged (unless ``skip_unknown``) or two rows give different values for the same object.
    """
    said, unknown = _resolve(database, collection, rows)
    if unknown and not skip_unknown:
        first = unknown[0]
        raise RequestError(
            f"{len(unknown)} of {len(rows)} rows name no object of collection "
            f"{collection.name!r}, e.g. {first.place}: {first.key!r}",
            code="unknown_objects", remedy=Remedy("skip_unknown"),
        )  # fmt: skip
    ids = sorted(said)
    changed, seq = 0, collection.seq
    for start in range(0, len(ids), _BATCH):
        batch = {object_id: said[object_id] for object_id in ids[start : start + _BATCH]}
        with (
            database.transaction() as connection,
            history.turn(connection, collection, actor=actor, reason="attributes") as turn,
        ):
            changed += _write(turn, collection, batch, replace=replace)
        seq = turn.seq if turn.changed else turn.seq - 1
    return ImportedAttributes(
        rows=len(rows), objects=len(said), changed=changed, unknown=len(unknown), seq=seq
    )


def attribute_overview(database: Database, collection_id: int) -> list[tuple[str, str, int, int]]:
    """(name, source, objects, distinct values) of every attribute of a collection, now."""
    with database.connection() as connection:
        rows = connection.execute(_SQL["attribute_overview"], {"collection_id": collection_id})
        return [(row[0], row[1], row[2], row[3]) for row in rows]


def _resolve(
    database: Database, collection: Collection, rows: Sequence[SidecarRow]
) -> tuple[dict[int, SidecarRow], list[SidecarRow]]:
    said: dict[int, SidecarRow] = {}
    found: set[int] = set()
    buckets = sorted({rule.bucket for rule in collection.sources})
    with database.connection() as connection:
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            answers = connection.execute(
                _SQL["sidecar_objects"],
                {
                    "collection_id": collection.collection_id,
                    "source_buckets": buckets,
                    "places": list(range(start, start + len(part))),
                    "buckets": [row.bucket for row in part],
                    "keys": [row.key for row in part],
                    "versions": [row.version_id for row in part],
                },
            )
            for place, object_id in answers:
                found.add(place)
                earlier = said.setdefault(object_id, rows[place])
                if earlier.attributes != rows[place].attributes:
                    raise RequestError(
                        f"{earlier.place} and {rows[place].place} give different "
                        f"values for object {rows[place].key!r}"
                    )
    return said, [row for place, row in enumerate(rows) if place not in found]


def _write(
    turn: Turn, collection: Collection, said: dict[int, SidecarRow], *, replace: bool
) -> int:
    """Objects whose attributes changed."""
    names = {"collection_id": collection.collection_id, "object_ids": list(said)}
    answers = turn.connection.execute(_SQL["sidecar_open"], names)
    before: dict[int, dict[str, str | None]] = dict(answers.fetchall())
    # None is kept: it overrides key and metadata.
    after = {
        object_id: {**({} if replace else before.get(object_id, {})), **row.attributes}
        for object_id, row in said.items()
    }
    changed = [i for i, attributes in after.items() if attributes != before.get(i, {})]
    turn.describe([AttributeRow(i, "sidecar", after[i]) for i in changed])
    return len(changed)
