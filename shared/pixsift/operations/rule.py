"""Rulings of people about images: single ones, many by a stated rule, and their undo. A bulk ruling
is previewed before it is made: how many groups, how many images change, and a random sample with
old and new outcomes. It is one batch, all or nothing, and undone as one.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Final, Literal
from uuid import UUID, uuid4

import numpy as np

from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.ledger.generation_rows import uris
from pixsift.adapters.ledger.history import NewRuling
from pixsift.adapters.ledger.rejudge import Known, Rejudge
from pixsift.adapters.ledger.ruling_book import Member, Record, RulingBook, new_ruling, with_batch
from pixsift.adapters.postgres.database import Database
from pixsift.answers.decisions import (
    ChangedOutcome,
    RuledChange,
    RulingDone,
    RulingLine,
    RulingList,
)
from pixsift.core.collection import Collection
from pixsift.core.identity import ObjectVersion, S3Uri
from pixsift.core.quality import METRICS
from pixsift.core.rulings import KINDS, PAIRS, Kind, Ruling
from pixsift.errors import NotFoundError, RequestError
from pixsift.operations.obligations import Obligations
from pixsift.ports import NeighborSearch

Best = Literal["largest", "newest", "oldest"]
BEST: Final[tuple[Best, ...]] = ("largest", "newest", "oldest")
"""Rules for the best of a group; ``most <metric>`` and ``least <metric>`` are the others."""
_SAMPLE = 10


def rule(
    database: Database, collection: str, kind: str, targets: Sequence[S3Uri], *,
    why: str, who: str, other: S3Uri | None = None, dry_run: bool = False,
    sample: int = _SAMPLE, seed: int = 0, actor: str = "pixsift",
    search: NeighborSearch | None = None,
    obligations: Obligations | None = None,
) -> RulingDone:  # fmt: skip
    """Make a ruling of ``kind`` about every version of ``targets``, or about the version that a URI
    names.

    other: of ``same`` and ``not_same``: what they are compared with. dry_run: only show what would
    change. search: one that lives longer than this call holds the collection's vectors ready.
    Several are one batch. obligations: what is journaled is met first, and the rulings are
    journaled before this returns; None: for a ledger without a journal (of folders).
    Raises NotFoundError for an unknown collection or object, RequestError for an unknown kind,
    ConflictError for rulings that cannot hold; DependencyDownError ``not_journaled`` for rulings
    that are in force, but not in the journal yet.
    """
    _catch_up(obligations)
    checked = _kind(kind, other)
    found = Collections(database).collection(collection)
    objects = [known for uri in targets for known in _known(database, uri)]
    against = None if other is None else _one(database, other)
    said = [
        new_ruling(Ruling(checked, known.object_id, against), who=_who(who), why=_why(why))
        for known in objects
    ]
    return _say(
        database, found, said, dry_run=dry_run, sample=sample, seed=seed, actor=actor,
        search=search,
        obligations=obligations,
    )  # fmt: skip


def rule_best(
    database: Database, collection: str, best: str, *,
    why: str, who: str, prefix: str = "", dry_run: bool = False, sample: int = _SAMPLE,
    seed: int = 0, actor: str = "pixsift", search: NeighborSearch | None = None,
    obligations: Obligations | None = None,
) -> RulingDone:  # fmt: skip
    """In every group choose the image that is best by a stated rule; a group whose best image
    represents it stays as it is.

    best: ``largest``, ``newest``, ``oldest``, or ``most`` or ``least`` and a quality metric, as in
    ``most sharpness``. Of equals the representative stays, then the older one; an image without the
    value never wins. prefix: only images with such keys take part.
    obligations: as for ``rule``.
    """
    _catch_up(obligations)
    value = _order(best)
    found = Collections(database).collection(collection)
    members = RulingBook(database).groups(found, prefix=prefix)
    chosen = list(_best_of_groups(members, value))
    said = [
        new_ruling(Ruling("choose", object_id), who=_who(who), why=f"{best}: {_why(why)}")
        for object_id in chosen
    ]
    done = _say(
        database, found, said, dry_run=dry_run, sample=sample, seed=seed, actor=actor,
        search=search,
        obligations=obligations,
    )  # fmt: skip
    return done.model_copy(update={"groups": len({member.of for member in members})})


def undo_rulings(
    database: Database, collection: str, *, ruling_ids: Sequence[UUID] = (),
    batch: UUID | None = None, dry_run: bool = False, sample: int = _SAMPLE, seed: int = 0,
    actor: str = "pixsift", search: NeighborSearch | None = None,
    obligations: Obligations | None = None,
) -> RulingDone:  # fmt: skip
    """Take rulings back, or a whole batch; what they touched is decided again.

    obligations: as for ``rule``. Raises NotFoundError when none of them is in force.
    """
    _catch_up(obligations)
    found = Collections(database).collection(collection)
    book = RulingBook(database, search=search, actor=actor)
    if batch is not None:
        ruling_ids = [r.ruling_id for r in book.records(found, batch=batch, in_force=True)]
    records = book.records(found, ruling_ids=ruling_ids, in_force=True)
    if not records:
        raise NotFoundError("no such ruling is in force", code="unknown_ruling")
    changed = book.take_back(found, [r.ruling_id for r in records], dry_run=dry_run)
    _journal(obligations, dry_run)
    return _done(
        database, found, [r.ruling_id for r in records], batch, changed, dry_run=dry_run,
        sample=sample, seed=seed,
    )  # fmt: skip


def list_rulings(
    database: Database, collection: str, *, uri: S3Uri | None = None, since: int = -1,
    in_force: bool = True, limit: int | None = 100,
) -> RulingList:  # fmt: skip
    """Rulings, the oldest first: all, or those about one object.

    since: only those said or taken back after this seq.
    """
    found = Collections(database).collection(collection)
    object_id = None if uri is None else _one(database, uri)
    records = RulingBook(database).records(
        found, since=since, object_id=object_id, in_force=in_force, limit=limit
    )
    return RulingList(collection=collection, rulings=[_line(record) for record in records])


def _say(
    database: Database, collection: Collection, said: Sequence[NewRuling], *,
    dry_run: bool, sample: int, seed: int, actor: str, search: NeighborSearch | None,
    obligations: Obligations | None,
) -> RulingDone:  # fmt: skip
    batch = uuid4() if len(said) > 1 else None
    if batch is not None:
        said = with_batch(said, batch)
    changed = RulingBook(database, search=search, actor=actor).say(
        collection, said, dry_run=dry_run
    )
    _journal(obligations, dry_run)
    return _done(
        database, collection, [new.ruling_id for new in said], batch, changed, dry_run=dry_run,
        sample=sample, seed=seed,
    )  # fmt: skip


def _catch_up(obligations: Obligations | None) -> None:
    """What a restored ledger owes may contradict what is about to be said."""
    if obligations is not None:
        obligations.ensure()


def _journal(obligations: Obligations | None, dry_run: bool) -> None:
    if obligations is not None and not dry_run:
        obligations.write_rulings()


def _done(
    database: Database, collection: Collection, ruling_ids: Sequence[UUID], batch: UUID | None,
    changed: Sequence[ChangedOutcome], *, dry_run: bool, sample: int, seed: int,
) -> RulingDone:  # fmt: skip
    drawn = np.random.default_rng(seed).permutation(len(changed))[:sample]
    shown = [changed[i] for i in sorted(drawn.tolist())]
    with database.connection() as connection:
        named = uris(
            connection,
            {i for c in shown for i in (c.object_id, c.representative) if i is not None},
        )
    return RulingDone(
        collection=collection.name,
        dry_run=dry_run,
        rulings=len(ruling_ids),
        ruling_ids=[str(ruling_id) for ruling_id in ruling_ids],
        batch=None if batch is None else str(batch),
        groups=None,
        changed=dict(Counter(f"{c.was} -> {c.outcome}" for c in changed)),
        sample=[
            RuledChange(
                uri=named[c.object_id], was=c.was, outcome=c.outcome, reason=c.reason,
                representative=None if c.representative is None else named[c.representative],
                distance=c.distance,
            )
            for c in shown
        ],
    )  # fmt: skip


def _kind(kind: str, other: S3Uri | None) -> Kind:
    found = next((known for known in KINDS if known == kind), None)
    if found is None:
        raise RequestError(
            f"unknown kind of ruling {kind!r}; there are: {', '.join(KINDS)}", code="unknown_kind"
        )
    if (found in PAIRS) != (other is not None):
        needs = "needs another image to compare with" if other is None else "is about one image"
        raise RequestError(f"ruling {found} {needs}", code="ruling_pair")
    return found


def _known(database: Database, uri: S3Uri) -> list[Known]:
    found = Rejudge(database).find(uri.bucket, uri.key, uri.version_id)
    if not found:
        raise NotFoundError(
            f"the ledger knows no object s3://{uri.bucket}/{uri.key} that is not erased",
            code="unknown_object",
        )
    return found


def _one(database: Database, uri: S3Uri) -> int:
    found = _known(database, uri)
    if len(found) > 1:
        raise RequestError(
            f"s3://{uri.bucket}/{uri.key} has {len(found)} versions: name one with ?versionId=",
            code="several_versions",
        )
    return found[0].object_id


def _why(why: str) -> str:
    if not why.strip():
        raise RequestError("a ruling needs a reason that others can read", code="no_reason")
    return why.strip()


def _who(who: str) -> str:
    if not who.strip():
        raise RequestError("a ruling needs the name of who says it", code="no_name")
    return who.strip()


Value = Callable[[Member], float | None]


def _order(best: str) -> Value:
    """The value by which the best image is found. Raises RequestError for an unknown rule."""
    match best.split():
        case ["largest"]:
            return lambda m: None if m.size_bytes is None else float(m.size_bytes)
        case ["newest"]:
            return lambda m: None if m.captured_at is None else m.captured_at.timestamp()
        case ["oldest"]:
            return lambda m: None if m.captured_at is None else -m.captured_at.timestamp()
        case [("most" | "least") as way, metric] if metric in METRICS:
            sign = 1.0 if way == "most" else -1.0
            return lambda m: None if metric not in (m.quality or {}) else (
                sign * (m.quality or {})[metric])  # fmt: skip
        case _:
            raise RequestError(
                f"unknown rule {best!r}: there are {', '.join(BEST)}, and 'most' or 'least' with a "
                "quality metric, as in 'most sharpness'",
                code="unknown_rule",
            )


def _best_of_groups(members: Sequence[Member], value: Value) -> Iterator[int]:
    """The best image of each group, where it is not the representative already."""
    for of, group in groupby(members, key=lambda member: member.of):
        known = [(v, member) for member in group if (v := value(member)) is not None]
        if not known:
            continue
        _, best = max(
            known, key=lambda pair: (pair[0], pair[1].object_id == of, -pair[1].object_id)
        )
        if best.object_id != of:
            yield best.object_id


def _line(record: Record) -> RulingLine:
    return RulingLine(
        ruling_id=str(record.ruling_id), kind=record.kind, uri=record.version.uri,
        other=_uri(record.other), who=record.who, why=record.why,
        batch=None if record.batch is None else str(record.batch), said_at=record.said_at,
        from_seq=record.valid_from_seq, to_seq=record.valid_to_seq,
    )  # fmt: skip


def _uri(version: ObjectVersion | None) -> str | None:
    return None if version is None else version.uri
