"""Makes rulings and takes them back, in one turn with the decisions that change; lists them, and
restores them from a journal. A ruling is checked twice: before the lock, so that mistakes cost
little, and under it. The objects that it concerns are decided again like arrivals, in the same
transaction: all or nothing, even for thousands at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any, LiteralString
from uuid import UUID, uuid4

from psycopg.rows import class_row, dict_row

from pixsift.adapters.ledger.history import NewRuling
from pixsift.adapters.ledger.rejudge import Rejudge
from pixsift.adapters.ledger.rejudge_plan import Change
from pixsift.adapters.postgres.database import Connection, Database
from pixsift.answers.decisions import ChangedOutcome
from pixsift.core.collection import Collection
from pixsift.core.identity import ObjectVersion
from pixsift.core.rulings import Facts, Kind, Ruling, contradictions
from pixsift.errors import ConflictError, NotFoundError, RequestError
from pixsift.ports import NeighborSearch
from pixsift.sql import statements

_SQL = statements("rulings")
MOST_AT_ONCE = 5_000
"""Rulings in one turn: the collection's lock is held while all of them are decided."""


@dataclass(frozen=True, slots=True)
class Record:
    """A ruling for people and journals: it names object versions, not ids of one ledger."""

    ruling_id: UUID
    collection: str
    kind: Kind
    version: ObjectVersion
    other: ObjectVersion | None
    who: str
    why: str
    batch: UUID | None
    said_at: datetime
    valid_from_seq: int
    valid_to_seq: int | None
    """None: it is in force."""


@dataclass(frozen=True, slots=True)
class Member:
    """One image of a group: a kept one and its duplicates."""

    of: int
    """The object that represents the group."""
    object_id: int
    outcome: str
    quality: Mapping[str, float] | None
    size_bytes: int | None
    captured_at: datetime | None
    flags: Sequence[str]


@dataclass(frozen=True, slots=True)
class Unjournaled:
    """Rulings that one turn said or took back, and no entry of the journal tells of."""

    collection: str
    ended: bool
    """Whether they were taken back."""
    at: datetime
    """Of the turn: by this time, entries are in the order of what they tell."""
    records: list[Record]


class RulingBook:
    """The rulings of one ledger. Thread-safe; leaves no connection open."""

    def __init__(
        self, database: Database, *, search: NeighborSearch | None = None, actor: str = "pixsift"
    ) -> None:
        """actor: who the turns say made them; the ruling itself says who made the ruling."""
        self._database = database
        self._rejudge = Rejudge(database, search=search, actor=actor)

    def say(
        self, collection: Collection, said: Sequence[NewRuling], *, dry_run: bool = False
    ) -> list[ChangedOutcome]:
        """Put rulings into force, all of them or none; returns the objects whose outcome changed.

        dry_run: only find out what would change. One whose id is known already changes nothing.
        Raises ConflictError for a ruling that cannot hold, with the reason.
        """
        self._check_size(len(said))
        known = self._known(collection, [new.ruling_id for new in said])
        fresh = tuple(new for new in said if new.ruling_id not in known)
        if not fresh:
            return []
        check = _Check(collection, fresh)
        with self._database.connection() as connection:
            check(connection)
        return self._rejudge.obey(
            collection, Change(say=fresh), why="ruling", check=check, dry_run=dry_run
        )

    def take_back(
        self, collection: Collection, ruling_ids: Sequence[UUID], *, dry_run: bool = False
    ) -> list[ChangedOutcome]:
        """End rulings, all of them or none; rulings that have ended already are skipped.

        Their images are decided again in the order of their arrival; where a ruling had put another
        image in the place of one, with those that were kept since and arrived later than one that
        is kept again.
        """
        self._check_size(len(ruling_ids))
        with self._database.connection() as connection:
            names = {"collection_id": collection.collection_id, "ruling_ids": list(ruling_ids)}
            rows = connection.execute(_SQL["open_rulings"], names).fetchall()
        if not rows:
            return []
        ended = {row[0]: Ruling(row[1], row[2], row[3]) for row in rows}
        # One that was a duplicate when it was said gave no place away, unless it was chosen.
        frees = any(
            row[1] == "choose" or (row[1] in ("same", "useless") and not row[4]) for row in rows
        )
        return self._rejudge.obey(
            collection, Change(take_back=ended, frees=frees), why="ruling_undone", dry_run=dry_run
        )

    def records(
        self,
        collection: Collection,
        *,
        since: int = -1,
        object_id: int | None = None,
        ruling_ids: Sequence[UUID] | None = None,
        batch: UUID | None = None,
        in_force: bool = False,
        limit: int | None = None,
    ) -> list[Record]:
        """Rulings, the oldest first: those said or taken back after the seq ``since``."""
        names = {
            "collection_id": collection.collection_id, "since": since, "object_id": object_id,
            "ruling_ids": None if ruling_ids is None else list(ruling_ids), "batch": batch,
            "open": in_force, "limit": limit,
        }  # fmt: skip
        return [_record(row) for row in self._rows("records", names)]

    def bring_back(self, collection: Collection, records: Sequence[Record]) -> list[ChangedOutcome]:
        """Put rulings of a journal into force, all of them or none; each once, by its id.

        The ledger may be older than the journal: versions that it does not know get their row.
        Raises ConflictError and NotFoundError as ``say`` does.
        """
        with self._database.transaction() as connection:
            said = [
                NewRuling(
                    record.ruling_id,
                    Ruling(
                        record.kind, _know(connection, record.version),
                        None if record.other is None else _know(connection, record.other),
                    ),
                    record.who, record.why, record.batch, record.said_at,
                )
                for record in records
            ]  # fmt: skip
        return self.say(collection, said)

    def not_journaled(self) -> list[Unjournaled]:
        """What was said or taken back and is in no entry of the journal, one item per turn."""
        rows = self._rows("not_journaled", {})
        return [
            Unjournaled(collection, ended, at, [_record(row) for row in of_one_turn])
            for (collection, _, ended, at), of_one_turn in groupby(
                rows, key=lambda row: (row["collection"], row["seq"], row["ended"], row["at"])
            )
        ]

    def journaled(self, ruling_ids: Sequence[UUID], key: str, *, ended: bool) -> None:
        """Note which entry tells of rulings. ended: of their end."""
        with self._database.connection() as connection:
            names = {"ruling_ids": list(ruling_ids), "key": key, "ended": ended}
            connection.execute(_SQL["journaled_as"], names)

    def entries_about(self, object_ids: Sequence[int]) -> list[str]:
        """Keys of the journal's entries that tell of rulings about these objects."""
        rows = self._rows("entries_about", {"object_ids": list(object_ids)})
        return [row["entry"] for row in rows]

    def versions_of(self, object_ids: Sequence[int]) -> list[ObjectVersion]:
        """The versions that these ids mean in this ledger."""
        rows = self._rows("versions_of", {"object_ids": list(object_ids)})
        return [ObjectVersion(row["bucket"], row["key"], row["version_id"]) for row in rows]

    def groups(self, collection: Collection, *, prefix: str = "") -> list[Member]:
        """Members of all groups of two and more, those of one group together."""
        names = {
            "collection_id": collection.collection_id, "generation": collection.generation,
            "prefix": prefix,
        }  # fmt: skip
        with (
            self._database.connection() as connection,
            connection.cursor(row_factory=class_row(Member)) as cursor,
        ):
            return cursor.execute(_SQL["groups"], names).fetchall()

    def _known(self, collection: Collection, ruling_ids: Sequence[UUID]) -> set[UUID]:
        return {r.ruling_id for r in self.records(collection, ruling_ids=ruling_ids)}

    def _check_size(self, count: int) -> None:
        if count > MOST_AT_ONCE:
            raise RequestError(
                f"{count} rulings at once are too many: at most {MOST_AT_ONCE} are decided in one "
                "transaction; narrow the request, for example by a prefix",
                code="too_many_rulings",
            )

    def _rows(self, name: str, names: dict[str, Any]) -> list[dict[str, Any]]:
        statement: LiteralString = _SQL[name]
        with (
            self._database.connection() as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            return cursor.execute(statement, names).fetchall()


def new_ruling(ruling: Ruling, *, who: str, why: str, batch: UUID | None = None) -> NewRuling:
    """A new ruling with its own id."""
    return NewRuling(uuid4(), ruling, who, why, batch, None)


@dataclass(frozen=True, slots=True)
class _Check:
    """Refuses rulings that cannot hold; asked before the lock and under it."""

    collection: Collection
    said: tuple[NewRuling, ...]

    def __call__(self, connection: Connection) -> None:
        """Raises ConflictError or NotFoundError."""
        mine = [new.ruling for new in self.said]
        names: dict[str, Any] = {
            "collection_id": self.collection.collection_id,
            "generation": self.collection.generation,
        }
        touched = {i for ruling in mine for i in ruling.touches()}
        ids = _column(connection, "chain", names | {"object_ids": list(touched)}) | touched
        rows = _objects(connection, names, ids)
        self._check_objects(mine, rows)
        kept = [rows[r.object_id] for r in mine if r.kind in ("choose", "also_keep")]
        alike = _column(
            connection, "kept_by_ruling_like",
            names | {
                "contents": [row["content_sha256"] for row in kept],
                "pixels": [row["pixel_sha256"] for row in kept],
            },
        )  # fmt: skip
        groups = {r for row in rows.values() if (r := row["representative_object_id"]) is not None}
        standing = connection.execute(
            _SQL["rulings_touching"], names | {"object_ids": list(ids | alike | groups)}
        )
        in_force = [Ruling(*row) for row in standing.fetchall()]
        more = {i for ruling in in_force for i in ruling.touches()} - rows.keys()
        rows |= _objects(connection, names, more)
        facts = {i: Facts(row["content_sha256"], row["pixel_sha256"]) for i, row in rows.items()}
        for ruling, why in contradictions([*in_force, *mine], facts):
            raise ConflictError(
                f"{ruling.kind} for {_uri(rows[ruling.object_id])} cannot hold: {why}",
                code="ruling_conflict",
            )
        self._check_kept(mine, rows, in_force)

    def _check_objects(self, said: Iterable[Ruling], rows: Mapping[int, Mapping[str, Any]]) -> None:
        for ruling in said:
            for object_id in ruling.touches():
                row = rows.get(object_id)
                if row is None or row["erased"]:
                    raise NotFoundError(
                        f"the ledger knows no object {object_id} that is not erased",
                        code="unknown_object",
                    )

    def _check_kept(
        self,
        said: Sequence[Ruling],
        rows: Mapping[int, Mapping[str, Any]],
        in_force: Iterable[Ruling],
    ) -> None:
        """Contradictions with the images themselves, or with the present group."""
        chosen = {r.object_id for r in [*in_force, *said] if r.kind == "choose"}
        for ruling in said:
            row = rows[ruling.object_id]
            if ruling.kind == "also_keep" and row["reason"] in ("content", "pixels"):
                what = "bytes" if row["reason"] == "content" else "pixels"
                raise ConflictError(
                    f"also_keep for {_uri(row)} cannot hold: a kept image has the same {what}; "
                    "choose would put this one in its place",
                    code="ruling_conflict",
                )
            if ruling.kind == "choose" and row["representative_object_id"] in chosen:
                raise ConflictError(
                    f"choose for {_uri(row)} cannot hold: another image is chosen for its group; "
                    "take that ruling back, or keep this one as well",
                    code="ruling_conflict",
                )
            if ruling.kind in ("choose", "also_keep") and row["outcome"] == "rejected":
                raise ConflictError(
                    f"{ruling.kind} for {_uri(row)} cannot hold: it is rejected "
                    f"({row['reason']}); change the quality policy, or send it again",
                    code="ruling_conflict",
                )


def _know(connection: Connection, version: ObjectVersion) -> int:
    names = {"bucket": version.bucket, "key": version.key, "version_id": version.version_id}
    connection.execute(_SQL["know_object"], names)
    row = connection.execute(_SQL["object_id_of"], names).fetchone()
    assert row is not None  # noqa: S101 - it was written a moment ago
    return int(row[0])


def _column(connection: Connection, name: str, names: dict[str, Any]) -> set[int]:
    statement: LiteralString = _SQL[name]
    return {row[0] for row in connection.execute(statement, names).fetchall()}


def _objects(
    connection: Connection, names: dict[str, Any], object_ids: Iterable[int]
) -> dict[int, dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(_SQL["ruled_objects"], names | {"object_ids": list(object_ids)})
        return {
            row["object_id"]: row
            | {
                name: None if row[name] is None else bytes(row[name])
                for name in ("content_sha256", "pixel_sha256")
            }
            for row in found.fetchall()
        }


def _record(row: dict[str, Any]) -> Record:
    other = None
    if row["other_key"] is not None:
        other = ObjectVersion(row["other_bucket"], row["other_key"], row["other_version_id"])
    version = ObjectVersion(row["bucket"], row["key"], row["version_id"])
    return Record(
        row["ruling_id"], row["collection"], row["kind"], version, other, row["who"], row["why"],
        row["batch"], row["said_at"], row["valid_from_seq"], row["valid_to_seq"],
    )  # fmt: skip


def _uri(row: Mapping[str, Any]) -> str:
    return ObjectVersion(row["bucket"], row["key"], row["version_id"]).uri


def with_batch(said: Sequence[NewRuling], batch: UUID) -> list[NewRuling]:
    """The same rulings as one batch, which is taken back as one."""
    return [replace(new, batch=batch) for new in said]
