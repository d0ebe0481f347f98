"""Evaluation sets: name images that selections of a collection keep away from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import UUID

import numpy as np

from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.ledger.protected_sets import NewSet, ProtectedSet, ProtectedSets
from pixsift.adapters.ledger.snapshots import Snapshots, unknown_snapshot
from pixsift.adapters.postgres.database import Database
from pixsift.answers.choosing import ProtectedLine, ProtectedList
from pixsift.core.collection import Collection
from pixsift.core.dedup import Halves
from pixsift.core.identity import S3Uri
from pixsift.core.protection import LEAST_DISTANCE
from pixsift.errors import ConflictError, NotFoundError, Remedy, RequestError
from pixsift.operations.embedder import ModelChoice
from pixsift.operations.find import QueryEmbedder

_FILES_AT_ONCE = 64
_NAMED = 5
"""Unreadable files that a refusal names."""


def protect_snapshot(
    database: Database, collection: str, snapshot: str, *, distance: float | None = None,
    who: str, why: str,
) -> ProtectedList:  # fmt: skip
    """Protect the images of a snapshot, of any collection. snapshot: its id, request id or name.

    distance: cosine distance within which nothing is chosen; None: the collection's epsilon.
    Raises UserError for an unknown, failed or ambiguous snapshot, or one of another space.
    """
    found = Collections(database).collection(collection)
    new = NewSet(_distance(found, distance), _said(who, "the name of who says it"),
                 _said(why, "a reason"), snapshot_id=_snapshot(database, snapshot))  # fmt: skip
    return _declared(database, found, new)


def protect_prefix(
    database: Database, collection: str, prefix: S3Uri, *, distance: float | None = None,
    who: str, why: str,
) -> ProtectedList:  # fmt: skip
    """Protect all images below a prefix, and those that arrive there later.

    Raises ConflictError unless a collection of the same embedding space judges what lies there.
    """
    found = Collections(database).collection(collection)
    if not any(
        rule.bucket == prefix.bucket
        and (rule.prefix.startswith(prefix.key) or prefix.key.startswith(rule.prefix))
        for other in Collections(database).collections(found.space_id)
        for rule in other.sources
    ):
        raise ConflictError(
            f"no collection of embedding space {found.space_id} judges {prefix.location}: "
            "its images have no vectors",
            code="not_judged", remedy=Remedy("name_source"),
        )  # fmt: skip
    new = NewSet(_distance(found, distance), _said(who, "the name of who says it"),
                 _said(why, "a reason"), prefix=(prefix.bucket, prefix.key))  # fmt: skip
    return _declared(database, found, new)


def protect_folder(
    database: Database, collection: str, folder: Path, *, model: ModelChoice,
    distance: float | None = None, who: str, why: str,
) -> ProtectedList:  # fmt: skip
    """Protect the images of a folder of this machine: the ledger keeps their vectors only.

    Raises RequestError where a file has no vector: a partly protected set would be useless.
    """
    found = Collections(database).collection(collection)
    new = NewSet(
        _distance(found, distance), _said(who, "the name of who says it"), _said(why, "a reason"),
        folder=str(folder.resolve()), pictures=_pictures(folder, found, model),
    )  # fmt: skip
    return _declared(database, found, new)


def unprotect(database: Database, collection: str, protected_ids: Sequence[UUID]) -> ProtectedList:
    """Withdraw sets; snapshots that are made from now on may choose near them.

    Raises NotFoundError when one of them is not in force.
    """
    found, sets = Collections(database).collection(collection), ProtectedSets(database)
    known = {each.protected_id for each in sets.sets(found)}
    if unknown := [each for each in protected_ids if each not in known]:
        raise NotFoundError(f"no evaluation set {unknown[0]} is in force", code="unknown_set")
    sets.withdraw(found, protected_ids)
    return list_protected(database, collection)


def list_protected(database: Database, collection: str) -> ProtectedList:
    """The sets in force, the oldest first."""
    found, sets = Collections(database).collection(collection), ProtectedSets(database)
    pictures = {each.protected_id: len(each.pixels) for each in sets.protection(found).sets}
    return ProtectedList(
        collection=collection,
        sets=[_line(each, pictures.get(each.protected_id, 0)) for each in sets.sets(found)],
    )


def _declared(database: Database, collection: Collection, new: NewSet) -> ProtectedList:
    ProtectedSets(database).declare(collection, new)
    return list_protected(database, collection.name)


def _distance(collection: Collection, distance: float | None) -> float:
    wanted = max(collection.epsilon, LEAST_DISTANCE) if distance is None else distance
    if not LEAST_DISTANCE <= wanted <= 2:
        raise RequestError(
            f"distance {wanted:g}: a cosine distance between {LEAST_DISTANCE:g} and 2 protects"
        )
    return wanted


def _snapshot(database: Database, text: str) -> str:
    snapshots = Snapshots(database)
    sound = [i for i in snapshots.find(text) if snapshots.get(i).state != "failed"]
    if not sound:
        raise unknown_snapshot(text)
    if len(sound) > 1:
        raise ConflictError(
            f"{len(sound)} snapshots are named {text!r}; use an id, e.g. {sound[0]}"
        )
    return sound[0]


def _pictures(folder: Path, collection: Collection, model: ModelChoice) -> Mapping[bytes, Halves]:
    if not folder.is_dir():
        raise NotFoundError(f"{folder} is not a folder")
    files = sorted(path for path in folder.rglob("*") if _is_wanted(path, folder))
    if not files:
        raise RequestError(f"{folder} has no files")
    pictures: dict[bytes, Halves] = {}
    failures: dict[str, str] = {}
    with QueryEmbedder(model) as embedder:
        for start in range(0, len(files), _FILES_AT_ONCE):
            blobs: dict[str, bytes] = {}
            for path in files[start : start + _FILES_AT_ONCE]:
                try:
                    blobs[str(path)] = path.read_bytes()
                except OSError as error:
                    failures[str(path)] = f"unreadable: {error.strerror}"
            found = embedder.uploads(blobs, collection)
            failures |= found.failures
            pictures |= {
                found.pixels[name]: vector.astype(np.float16)
                for name, vector in found.vectors.items()
            }
    if failures:
        named = "; ".join(f"{name}: {why}" for name, why in list(failures.items())[:_NAMED])
        raise RequestError(
            f"{len(failures)} of {len(files)} files have no vector and could not be protected: "
            f"{named}. Move them out of the folder",
            code="no_vector",
        )
    return pictures


def _is_wanted(path: Path, folder: Path) -> bool:
    """Hidden files and files in hidden folders are not images of a set."""
    parts = path.relative_to(folder).parts
    return path.is_file() and not any(part.startswith(".") for part in parts)


def _said(text: str, what: str) -> str:
    if not text.strip():
        raise RequestError(f"an evaluation set needs {what}", code="no_reason")
    return text.strip()


def _line(each: ProtectedSet, pictures: int) -> ProtectedLine:
    return ProtectedLine(
        protected_id=str(each.protected_id), kind=each.kind, source=each.source,
        distance=each.distance, pictures=pictures, who=each.who, why=each.why,
        declared_at=each.declared_at,
    )  # fmt: skip
