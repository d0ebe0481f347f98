"""Names of objects and collections that people type: an object is named by an ``s3://`` or
``file://`` URI or by its path, a collection by its name or by the folder that was curated.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pixsift.adapters.ledger import curation
from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.ledger.snapshots import Snapshots
from pixsift.adapters.postgres.database import Database
from pixsift.core.files import bytes_of, folder_bucket, folder_of, text_of
from pixsift.core.identity import FOLDER, S3Uri, location
from pixsift.errors import ConflictError, NotFoundError, RequestError


def is_path(text: str) -> bool:
    """Whether the text can only be meant as a path: URIs have a scheme, names have no slash."""
    return text.startswith(FOLDER) or ("://" not in text and os.sep in text)


def object_named(database: Database, text: str) -> S3Uri:
    """An object by its URI or its path; of a path, the version that the ledger has.

    Raises RequestError for neither, NotFoundError for a path in no folder that was curated.
    """
    if "://" in text:
        return _parsed(text)
    path = os.path.realpath(Path(text).expanduser().parent) + os.sep + Path(text).name
    for bucket, folder in _folders(database):
        if path.startswith(folder + os.sep):
            return S3Uri(bucket, _key(path, path[len(folder) + 1 :]))
    if os.sep not in text and not Path(text).exists():
        return _parsed(text)  # the expected form
    raise NotFoundError(f"{text} lies in no folder that was curated", code="unknown_object")


def names_object(database: Database, text: str) -> bool:
    """Whether the text names an object by its URI or path, not a collection or its folder."""
    if text.startswith("s3://") or Path(text).is_file():
        return True
    try:
        collection_name(database, text)
    except NotFoundError:
        return True  # a path to no folder that was curated; the file may be gone by now
    return False


def uri_named(database: Database, text: str) -> str:
    """``text``, or, of a path, the URI of the object. Raises as ``object_named``."""
    is_file = is_path(text) and not text.startswith(FOLDER)
    return object_named(database, text).location if is_file else text


def prefix_named(database: Database, text: str) -> str:
    """``text``, or, of a curated folder or one below it, the URI with which its objects begin.

    Raises NotFoundError for a folder that was not curated.
    """
    if "://" in text:
        return text
    path = os.path.realpath(Path(text).expanduser())
    for bucket, folder in _folders(database):
        if path == folder:
            return location(bucket)
        if path.startswith(folder + os.sep):
            return location(bucket, text_of(os.fsencode(path[len(folder) + 1 :])) + "/")
    raise NotFoundError(f"{text} lies in no folder that was curated", code="unknown_object")


def collection_name(database: Database, text: str) -> str:
    """The name of a collection given by its name or its folder. Raises NotFoundError."""
    known = Collections(database).collections()
    if any(found.name == text for found in known) or not (is_path(text) or Path(text).is_dir()):
        return text
    plain = text.removeprefix(FOLDER)
    bucket = folder_bucket(os.path.realpath(Path(plain).expanduser()))
    for found in known:
        if any(rule.bucket == bucket for rule in found.sources):
            return found.name
    raise NotFoundError(f"{text} was not curated yet", code="unknown_collection")


def without_paths(database: Database, request: dict[str, Any]) -> None:
    """Replace paths in a raw request by the names and URIs that the ledger knows."""
    if isinstance(name := request.get("collection"), str):
        request["collection"] = collection_name(database, name)
    select = request.get("select")
    if not isinstance(select, dict):
        return
    for field in ("similar_to", "dissimilar_to", "exclude"):
        if isinstance(named := select.get(field), list):
            select[field] = [
                uri_named(database, text) if isinstance(text, str) else text for text in named
            ]


def collection_with(database: Database, uri: S3Uri) -> str | None:
    """The one collection that judges an object; None where several do, or none."""
    found = [
        known.name for known in Collections(database).collections()
        if known.reach(uri.bucket, uri.key) == "accepted"
    ]  # fmt: skip
    return found[0] if len(found) == 1 else None


def last_choice(database: Database, folder: Path) -> set[str]:
    """Paths below ``folder`` of the files that were chosen last.

    folder: with links resolved. Raises ConflictError when nothing was chosen yet.
    """
    found = curation.last_choice(database, collection_name(database, str(folder)))
    if found is None:
        raise ConflictError(
            f"nothing was chosen from {folder} yet: curate it with a number of images first"
        )
    items = Snapshots(database).items(found, everything=True)
    return {os.fsdecode(bytes_of(item.source.key)) for item in items}


def _key(path: str, below: str) -> str:
    """The ledger's key of a file. ``below``: its path below the curated folder.

    A name that is not UTF-8 may be given as the ledger shows it, with ``\\xNN`` for such a byte.
    """
    is_shown = "\\x" in below and not os.path.lexists(path)
    return below if is_shown else text_of(os.fsencode(below))


def _folders(database: Database) -> Iterator[tuple[str, str]]:
    """Bucket and folder of every curated folder, the innermost first."""
    found = {
        rule.bucket: folder_of(rule.bucket)
        for collection in Collections(database).collections()
        for rule in collection.sources
        if rule.bucket.startswith(FOLDER)
    }
    yield from sorted(found.items(), key=lambda each: -len(each[1]))


def _parsed(text: str) -> S3Uri:
    try:
        text.encode()
        return S3Uri.parse(text)
    except UnicodeEncodeError as error:
        raise RequestError(f"{text!r} is not a valid URI: keys must be valid UTF-8") from error
    except ValueError as error:
        raise RequestError(f"{text!r} {error}") from error
