"""Audits a ledger: every invariant of a collection, exactly, at one seq; and repairs what can be.

What can be repaired is a decision: two kept images that are near one another (an approximate index
missed a neighbor) or a duplicate whose claim does not hold. The objects are decided again by the
usual rule under the usual lock. Everything else is only reported: a person must decide.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg.rows import class_row

from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.ledger import history
from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.ledger.decision_plan import images, near_rule
from pixsift.adapters.ledger.generation_rows import Position, named_outcomes
from pixsift.adapters.ledger.rejudge import Rejudge
from pixsift.adapters.ledger.snapshots import snapshot_prefix
from pixsift.adapters.postgres.database import Connection, Database
from pixsift.adapters.search.pgvector import PgvectorSearch
from pixsift.answers.checks import AuditReport, Reindexed
from pixsift.answers.decisions import ChangedOutcome
from pixsift.core.audit import (
    DuplicateClaim,
    Standing,
    Violation,
    check_counters,
    check_dense,
    check_duplicates,
    check_kept_pairs,
    check_rulings,
    check_turns,
)
from pixsift.core.collection import Collection
from pixsift.core.dedup import Image, NearRule
from pixsift.core.rulings import Ruling, Rulings
from pixsift.errors import TransientError
from pixsift.operations.redact import SHARDS
from pixsift.sql import statements

_SQL = statements("audit")
_RULINGS = statements("rulings")
_CLAIMS_PER_PAGE = 4096
_DECIDED_AGAIN = ("INV2", "INV3", "INV11")
_ROUNDS = 3
"""A repair can move duplicates; new violations are repaired in the next round."""

ReportStep = Callable[[str], None]


class Auditor:
    """Audits the collections of one ledger."""

    def __init__(
        self, database: Database, *, rejudge: Rejudge | None = None, actor: str = "pixsift"
    ) -> None:
        """actor: who the turns of a repair say made them."""
        self._database = database
        self._rejudge = rejudge or Rejudge(database, actor=actor)

    def audit(
        self,
        collection: Collection,
        *,
        sample: int | None = None,
        progress: ReportStep = lambda what: None,
    ) -> AuditReport:
        """Check everything except the content of buckets.

        sample: compare only so many kept images, drawn by seq, with all others; None: all pairs.
        """
        with self._database.connection() as connection:
            at = self._at(connection, collection)
            names = _names(collection, at)
            rule = near_rule(at.epsilon, at.second_look)
            progress("outcomes")
            findings = self._check_rows(connection, names, at)
            undecided = self._count(connection, "undecided", names)
            progress("kept images")
            kept = images(connection.cursor(binary=True).execute(_SQL["kept_images"], names))
            progress("duplicates")
            ruled = self._ruled(connection, names)
            findings += check_rulings(ruled.rulings, ruled.standing, ruled.named)
            duplicates, wrong = self._check_claims(connection, names, kept, rule=rule, ruled=ruled)
        progress("pairs of kept images")
        drawn = _drawn(len(kept), sample, seed=at.seq)
        images_kept = list(kept.values())
        pairs = list(check_kept_pairs(images_kept, rule, only=drawn, rulings=ruled.rulings))
        return AuditReport(
            collection=collection.name, seq=at.seq, generation=at.generation, kept=len(kept),
            duplicates=duplicates, undecided=undecided,
            pairs_compared=(
                len(kept) * (len(kept) - 1) // 2 if drawn is None else len(drawn) * (len(kept) - 1)
            ),
            findings=[*findings, *wrong, *pairs], repaired=[],
            miss_rate=len({pair.objects[-1] for pair in pairs}) / max(1, len(kept)),
        )  # fmt: skip

    def repair(self, collection: Collection, report: AuditReport) -> AuditReport:
        """Decide the objects that violate INV2, INV3 and INV11 again, and recount for INV10;
        returns a new audit."""
        repaired: list[ChangedOutcome] = []
        if any(f.invariant == "INV10" for f in report.findings):
            with self._database.transaction() as connection:
                history.recount(connection, collection)
            report = self.audit(collection)
        for _ in range(_ROUNDS):
            wrong = {f.objects[-1] for f in report.findings if f.invariant in _DECIDED_AGAIN}
            if not wrong:
                break
            changed = self._rejudge.again(collection, sorted(wrong), why="audit")
            repaired += changed
            report = self.audit(collection)
            if not changed:
                break
        with self._database.connection() as connection:
            named = named_outcomes(connection, repaired)
        return report.model_copy(update={"repaired": named})

    def check_snapshots(
        self, collection: Collection, objects: S3Objects, curated_bucket: str
    ) -> Iterator[Violation]:
        """INV7: the images of published snapshots are in the bucket, and redacted ones are not."""
        with self._database.connection() as connection:
            names = {"collection_id": collection.collection_id}
            rows = connection.execute(_SQL["published_items"], names).fetchall()
        for snapshot_id, name, mode, key, state, object_id in rows:
            if mode == "reference":
                continue
            there = objects.head(curated_bucket, snapshot_prefix(name, snapshot_id) + key)
            if (there is None) != (state == "redacted"):
                wrong = "is missing from" if there is None else "was redacted, but lies in"
                yield Violation("INV7", f"{key} {wrong} snapshot {snapshot_id}", (object_id,))

    def check_unpublished(
        self, collection: Collection, objects: S3Objects, curated_bucket: str
    ) -> Iterator[Violation]:
        """INV9 in the bucket: files of an erased image in unpublished snapshots, including those of
        older releases."""
        with self._database.connection() as connection:
            names = {"collection_id": collection.collection_id}
            rows = connection.execute(_SQL["unpublished_redactions"], names).fetchall()
        for snapshot_id, name, key, object_id in rows:
            prefix = snapshot_prefix(name, snapshot_id)
            left = [prefix + key] if objects.head(curated_bucket, prefix + key) else []
            left += [
                listed.key
                for listed in objects.iter_versions(curated_bucket, prefix + SHARDS)
                if not listed.version.is_delete_marker
            ]
            for place in left:
                yield Violation(
                    "INV9",
                    f"s3://{curated_bucket}/{place} may hold an erased image of unpublished "
                    f"snapshot {snapshot_id}: erase the image again",
                    (object_id,),
                )

    def _check_rows(
        self, connection: Connection, names: dict[str, Any], at: Position
    ) -> list[Violation]:
        """What SQL alone finds: outcomes, seqs and turns, strangers, traces, counters."""
        found = self._wrong(connection, "INV1", "unmatched_kept", names)
        for (object_id,) in connection.execute(_SQL["several_outcomes"], names).fetchall():
            text = f"object {object_id} has several outcomes"
            found.append(Violation("INV1", text, (object_id,)))
        used = [seq for (seq,) in connection.execute(_SQL["seqs_used"], names).fetchall()]
        found += check_dense(used, at.seq)
        turns = [seq for (seq,) in connection.execute(_SQL["turns"], names).fetchall()]
        found += check_turns(turns, at.seq)
        found += self._wrong(connection, "INV6", "strangers", names)
        found += self._wrong(connection, "INV9", "traces_of_erased", names)
        if lost := self._count(connection, "vectors_of_nobody", names):
            found.append(Violation("INV9", f"{lost} vectors belong to no object"))
        found += check_counters(connection.execute(_SQL["miscounted"], names).fetchall())
        return found

    def _check_claims(
        self, connection: Connection, names: dict[str, Any], kept: dict[int, Image], *,
        rule: NearRule, ruled: "_Ruled",
    ) -> tuple[int, list[Violation]]:  # fmt: skip
        """How many duplicates there are, and what is wrong with their claims."""
        after, duplicates = 0, 0
        found: list[Violation] = []
        while True:
            page = {**names, "after": after, "limit": _CLAIMS_PER_PAGE}
            cursor = connection.cursor(binary=True).execute(_SQL["duplicate_claims"], page)
            rows = cursor.fetchall()
            if not rows:
                return duplicates, found
            after = rows[-1][0]
            duplicates += len(rows)
            claims = [_claim(row, kept) for row in rows]
            found += check_duplicates(claims, rule, rulings=ruled.rulings, named=ruled.named)

    def _ruled(self, connection: Connection, names: dict[str, Any]) -> "_Ruled":
        said = connection.execute(_RULINGS["rulings_at"], names).fetchall()
        rulings = Rulings.of(Ruling(*row) for row in said)
        about = {"object_ids": list(rulings.about)}
        rows = connection.execute(_RULINGS["standing_of"], names | about).fetchall()
        targets = {"object_ids": list(rulings.followers)}
        named = connection.execute(_RULINGS["who_represents"], names | targets).fetchall()
        return _Ruled(rulings, {row[0]: Standing(*row[1:]) for row in rows}, dict(named))

    def _at(self, connection: Connection, collection: Collection) -> Position:
        with connection.cursor(row_factory=class_row(Position)) as cursor:
            names = {"collection_id": collection.collection_id}
            row = cursor.execute(_SQL["audited"], names).fetchone()
        assert row is not None  # noqa: S101 - collections are never deleted
        return row

    def _wrong(
        self, connection: Connection, invariant: str, name: str, names: dict[str, Any]
    ) -> list[Violation]:
        return [
            Violation(invariant, f"object {object_id} {wrong}", (object_id,))
            for object_id, wrong in connection.execute(_SQL[name], names).fetchall()
        ]

    def _count(self, connection: Connection, name: str, names: dict[str, Any]) -> int:
        row = connection.execute(_SQL[name], names).fetchone()
        return int(row[0]) if row else 0


@dataclass(frozen=True, slots=True, eq=False)
class _Ruled:
    """The rulings, and the outcomes of the objects that they concern."""

    rulings: Rulings
    standing: dict[int, Standing]
    named: dict[int, int]
    """The representative of each object that others are ruled to be the same as."""


def _names(collection: Collection, at: Position) -> dict[str, Any]:
    return {
        "collection_id": collection.collection_id, "generation": at.generation, "seq": at.seq,
        "space_id": at.space_id, "dimension": at.dimension,
    }  # fmt: skip


def _drawn(count: int, sample: int | None, *, seed: int) -> NDArray[np.int64] | None:
    """Positions of the kept images to compare with all others; None: all of them."""
    if sample is None or sample >= count:
        return None
    return np.random.default_rng(seed).choice(count, sample, replace=False)


def _claim(row: Sequence[Any], kept: dict[int, Image]) -> DuplicateClaim:
    object_id, representative, reason, distance, content, pixels, embedding, look = row
    image = None
    if embedding is not None and content is not None:
        image = Image(object_id, bytes(content), bytes(pixels), embedding, bytes(look))
    other = kept.get(representative)
    return DuplicateClaim(
        object_id, representative, reason, distance, other is not None, image, other
    )


def audit(
    database: Database,
    *,
    collection: str | None = None,
    sample: int | None = None,
    repair: bool = False,
    curated: tuple[S3Objects, str] | None = None,
    progress: ReportStep = lambda what: None,
    actor: str = "pixsift",
) -> list[AuditReport]:
    """Check every invariant of one collection, or of all; ``repair`` what can be decided again.

    sample: compare only so many kept images with all others. curated: also look for every listed
    image in this bucket. actor: who the turns of a repair say made them.
    """
    auditor = Auditor(database, actor=actor)
    reports = []
    for found in Collections(database).chosen(collection):
        report = auditor.audit(found, sample=sample, progress=progress)
        if repair:
            report = auditor.repair(found, report)
        if curated is not None:
            in_buckets = [
                *auditor.check_snapshots(found, *curated),
                *auditor.check_unpublished(found, *curated),
            ]
            report = report.model_copy(update={"findings": report.findings + in_buckets})
        reports.append(report)
    return reports


def reindex(database: Database, collection: str) -> Reindexed:
    """Drop a collection's HNSW index and build it again.

    Raises TransientError when another process works on it.
    """
    found = Collections(database).collection(collection)
    built_to = PgvectorSearch(database, background=False).rebuild(found.collection_id)
    if built_to < 0:
        raise TransientError(
            f"another process is working on the index of {collection!r}: try again later"
        )
    return Reindexed(built_to_seq=built_to)
