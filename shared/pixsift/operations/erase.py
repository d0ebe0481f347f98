"""Erases an image: vector, metrics, thumbnail, copies in snapshots, and what it represented.

The journal outside the database comes first: a ledger that is restored to an earlier time repeats
the erasure (``obligations``), and nothing starts if the journal cannot be written. Then come the
steps of ``forget``; the objects at S3 are removed before the facts in the ledger that name them.
"""

from collections.abc import Sequence

from pixsift.adapters.aws.journal import Journal
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.ledger.snapshots import Snapshots
from pixsift.adapters.postgres.database import Database
from pixsift.answers.checks import ErasureReport
from pixsift.core.identity import ObjectVersion, S3Uri
from pixsift.errors import DependencyDownError, NotFoundError, PixsiftError
from pixsift.operations.forget import Facts, Forgetting, pixels_of
from pixsift.operations.obligations import Obligations
from pixsift.operations.redact import Redactor
from pixsift.operations.ruling_journal import forget_reasons


class Erasure:
    """Erases images from one ledger and its buckets."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        objects: S3Objects,
        redactor: Redactor,
        *,
        derived_bucket: str,
        journal: Journal,
    ) -> None:
        self._database = database
        self._objects = objects
        self._redactor = redactor
        self._derived_bucket = derived_bucket
        self._journal = journal
        self._forgetting = Forgetting(database, ledger)

    def find(
        self, bucket: str, key: str, version_id: str | None, *, copies: bool = True
    ) -> list[Facts]:
        """The object versions that would be erased; with ``copies`` every object of that image."""
        return self._forgetting.find(bucket, key, version_id, copies=copies)

    def wanted(self, uri: S3Uri, *, copies: bool = True) -> list[Facts]:
        """What ``find`` finds for a URI. Raises NotFoundError when there is nothing."""
        found = self.find(uri.bucket, uri.key, uri.version_id, copies=copies)
        if not found:
            raise NotFoundError(
                f"the ledger knows no object s3://{uri.bucket}/{uri.key}: nothing to erase",
                code="unknown_object",
            )
        return found

    def erase(
        self,
        found: Sequence[Facts],
        *,
        reason: str,
        block_content: bool = True,
        source: bool = False,
    ) -> ErasureReport:
        """Erase what ``find`` found.

        block_content: the same bytes are not judged again under any key; otherwise only these
        versions are blocked. source: delete the versions in the source bucket as well.
        Raises DependencyDownError where the journal cannot be written; then nothing was erased.
        """
        journal: list[str] = []
        found = self._bury_all(found, reason, block_content, journal)
        snapshots = [s for row in found for s in self._redactor.redact(row["object_id"])]
        thumbnails = self._drop_thumbnails(found)
        sources = self._drop_sources(found) if source else 0
        forget_reasons(self._database, self._journal, [row["object_id"] for row in found])
        vectors = self._forgetting.forget(found)
        obligations = Obligations(self._database, self._journal)
        for key in journal:
            obligations.note(key, "erasure")
        return ErasureReport(
            objects=[_version(row).uri for row in found], vectors=vectors, thumbnails=thumbnails,
            snapshots=list(dict.fromkeys(snapshots)), source_versions=sources,
            kept_vectors=len(pixels_of(found)) - vectors, journal=journal,
        )  # fmt: skip

    def _bury_all(
        self, found: Sequence[Facts], reason: str, block_content: bool, journaled: list[str]
    ) -> list[Facts]:
        """Bury and remove; returns the facts of ``found`` and of the copies that arrived since.

        The facts read before may be outdated: a collection may have decided the object, or a copy
        of it, while a person was asked.
        """
        known = list(found)
        while True:
            entry = self._forgetting.entry(known, reason=reason, block_content=block_content)
            journaled.append(self._write(entry))
            self._forgetting.bury(entry)
            now = self._forgetting.facts_now(known, copies=block_content)
            if _contents(now) == _contents(known):
                self._forgetting.remove(now)
                return now
            known = now

    def _write(self, entry: dict[str, object]) -> str:
        try:
            return self._journal.write("erasure", entry)
        except PixsiftError as error:
            raise DependencyDownError(
                f"cannot write the journal {self._journal.place}, without which a restored ledger "
                f"would bring the image back: nothing was erased ({error})"
            ) from error

    def _drop_thumbnails(self, found: Sequence[Facts]) -> int:
        used = self._forgetting.still_used(found)
        keys = {f"thumbnails/{p.hex()}.webp" for p in pixels_of(found) if p not in used}
        if not used:
            keys |= {row["thumbnail_key"] for row in found if row["thumbnail_key"]}
        present = [key for key in keys if self._objects.head(self._derived_bucket, key)]
        for key in present:
            self._objects.delete(self._derived_bucket, key)
        return len(present)

    def _drop_sources(self, found: Sequence[Facts]) -> int:
        for row in found:
            version = _version(row)
            identity = version.version_id if version.is_versioned else None
            self._objects.delete(version.bucket, version.key, version_id=identity)
        return len(found)


def _contents(facts: Sequence[Facts]) -> set[tuple[int, bytes | None]]:
    return {(row["object_id"], row["content_sha256"]) for row in facts}


def _version(row: Facts) -> ObjectVersion:
    return ObjectVersion(row["bucket"], row["key"], row["version_id"])


def new_erasure(
    database: Database,
    objects: S3Objects,
    *,
    derived_bucket: str,
    curated_bucket: str,
    journal_bucket: str,
    actor: str = "pixsift",
) -> Erasure:
    """An erasure over one ledger, its thumbnails and its snapshots."""
    redactor = Redactor(Snapshots(database), objects, curated_bucket)
    ledger = Ledger(database, actor=actor)
    return Erasure(
        database, ledger, objects, redactor,
        derived_bucket=derived_bucket, journal=Journal(objects, journal_bucket),
    )  # fmt: skip
