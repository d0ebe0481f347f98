"""Rulings in the journal outside the database: written after they are made, obeyed again later.

A ruling is made in one transaction with what it changes; then the journal tells of it, and only
then is success reported. The ledger knows which rulings have no entry yet (``ruling.said_in``), and
the curator writes them later. One entry tells of one turn and has the turn's time in its key, so
entries are in the order in which rulings were said and taken back.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from pixsift.adapters.aws.journal import Journal, Obligation
from pixsift.adapters.ledger.access import AccessRows
from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.ledger.ruling_book import Record, RulingBook, Unjournaled
from pixsift.adapters.postgres.database import Database
from pixsift.core.identity import ObjectVersion
from pixsift.core.rulings import KINDS
from pixsift.errors import ConflictError, NotFoundError

KIND = "ruling"
_ACTOR = "journal"


def write_rulings(database: Database, journal: Journal) -> list[str]:
    """Write what no entry tells of yet; the keys of the new entries.

    Raises what S3 answers; what is written by then is noted. Two processes that write the same
    leave one entry, so that an erasure finds every reason by the entry that the ledger names.
    """
    book = RulingBook(database)
    keys = []
    for news in book.not_journaled():
        facts = {
            "collection": news.collection,
            "ended": news.ended,
            "rulings": [_facts(record) for record in news.records],
        }
        key = journal.write(KIND, facts, now=news.at, mark=_mark(news))
        book.journaled([r.ruling_id for r in news.records], key, ended=news.ended)
        keys.append(key)
    return keys


def meet_rulings(database: Database, entry: Obligation) -> bool:
    """Put into force, or end, what an entry tells of. False while its collection is missing.

    A ruling that this ledger cannot obey (the image was erased, or what is in force now
    contradicts it) is recorded as an action of the actor ``journal``, and not tried again.
    """
    facts = entry.facts
    try:
        collection = Collections(database).collection(str(facts["collection"]))
    except NotFoundError:
        return False
    records = [_record(row) for row in facts["rulings"]]
    book = RulingBook(database, actor=_ACTOR)
    ended = bool(facts["ended"])
    if ended:
        book.take_back(collection, [record.ruling_id for record in records])
    else:
        try:
            book.bring_back(collection, records)
        except (ConflictError, NotFoundError):
            for record in records:
                try:
                    book.bring_back(collection, [record])
                except (ConflictError, NotFoundError) as error:
                    _give_up(database, collection.name, record, str(error))
    book.journaled([record.ruling_id for record in records], entry.key, ended=ended)
    return True


def forget_reasons(database: Database, journal: Journal, object_ids: Sequence[int]) -> int:
    """An erasure: take the reasons of rulings about these objects out of the journal.

    Their entries are written again without them, and the earlier bytes go. Returns how many.
    """
    book = RulingBook(database)
    named = {(v.bucket, v.key, v.version_id) for v in book.versions_of(object_ids)}
    changed = 0
    for key in book.entries_about(object_ids):
        facts = journal.read(key).facts
        rulings = [{**row, "why": ""} if _named(row) & named else row for row in facts["rulings"]]
        if rulings != facts["rulings"]:
            journal.write_again(key, KIND, {**facts, "rulings": rulings})
            changed += 1
    return changed


def _mark(news: Unjournaled) -> str:
    """Equal for every entry about the same rulings of one turn."""
    names = ["ended" if news.ended else "said", *sorted(str(r.ruling_id) for r in news.records)]
    return hashlib.sha256(" ".join(names).encode()).hexdigest()[:12]


def _give_up(database: Database, collection: str, record: Record, why: str) -> None:
    detail = {"ruling_id": str(record.ruling_id), "kind": record.kind,
              "uri": record.version.uri, "why_not": why}  # fmt: skip
    AccessRows(database).record(_ACTOR, "ruling_not_restored", collection, detail)


def _named(row: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    return {
        (v["bucket"], v["key"], v["version_id"])
        for v in (row["version"], row["other"])
        if v is not None
    }


def _facts(record: Record) -> dict[str, Any]:
    return {
        "ruling_id": str(record.ruling_id),
        "kind": record.kind,
        "version": _version_facts(record.version),
        "other": None if record.other is None else _version_facts(record.other),
        "who": record.who,
        "why": record.why,
        "batch": None if record.batch is None else str(record.batch),
        "said_at": record.said_at.isoformat(),
    }


def _version_facts(version: ObjectVersion) -> dict[str, str]:
    return {"bucket": version.bucket, "key": version.key, "version_id": version.version_id}


def _record(row: Mapping[str, Any]) -> Record:
    other = row["other"]
    if row["kind"] not in KINDS:
        raise ValueError(f"ruling {row['kind']!r}")
    return Record(
        UUID(row["ruling_id"]), "", row["kind"], ObjectVersion(**row["version"]),
        None if other is None else ObjectVersion(**other), row["who"], row["why"],
        None if row["batch"] is None else UUID(row["batch"]),
        datetime.fromisoformat(row["said_at"]), 0, None,
    )  # fmt: skip
