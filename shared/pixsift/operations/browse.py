"""Browse a collection: pages of images and of duplicate groups, one image, its pictures.

A page shows one point of the collection, which its cursor carries, so new arrivals do not move it.
A cursor belongs to its query and to the ledger's history; it is refused if either differs.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from pydantic import BaseModel

from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.ledger.browse import Browse, KnownVersion, Point
from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.ledger.overview import Overview
from pixsift.adapters.postgres.database import Database
from pixsift.answers.collections import GenerationRule
from pixsift.answers.story import Chapter
from pixsift.api import (
    Facet,
    FacetValue,
    GenerationList,
    Group,
    GroupMembers,
    GroupPage,
    Image,
    ImagePage,
    ImageQuery,
    ImageRow,
    Member,
    OriginalLink,
    Versions,
)
from pixsift.core.identity import ObjectVersion, S3Uri
from pixsift.core.outcomes import OUTCOMES
from pixsift.errors import ConflictError, NotFoundError, RequestError
from pixsift.messages import in_utc
from pixsift.operations.explain import explain
from pixsift.words import in_words, words_and_code

ORIGINAL_SECONDS: Final = 180
"""Lifetime of a link to an original. AWS reports random failures of links below two minutes."""
_CONTENT_TYPES: Final[Mapping[str, str]] = {
    "JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "BMP": "image/bmp",
    "TIFF": "image/tiff", "GIF": "image/gif",
}  # fmt: skip
"""By content, never by name: HTML with an image's name is not served as an image."""
Order = Literal["doubt", "size", "newest"]
_FIRST = {"last_seq": None, "last_id": None}


def page(database: Database, collection: str, query: ImageQuery) -> ImagePage:
    """Images of a collection, the newest decision first.

    Raises NotFoundError for an unknown collection, RequestError for a point in the future or a
    cursor of another query, ConflictError where the ledger's history changed since the cursor.
    """
    asked = query.model_dump(mode="json", exclude={"cursor", "limit", "at_seq"})
    before = _read_cursor(query.cursor, ["images", collection, asked])
    at_seq = query.at_seq if before is None else before["seq"]
    browse = Browse(database)
    point = _point(database, browse, collection, at_seq)
    last = _FIRST if before is None else _checked(point, before)
    distance = query.distance
    rows = browse.page(point, {
        **last,
        "outcome": query.outcome, "reason": query.reason, "flag": query.flag,
        "prefix": query.prefix or None,
        "after": _utc(query.captured_after), "before": _utc(query.captured_before),
        "min_distance": distance and distance.min, "max_distance": distance and distance.max,
        "attributes": query.attributes,
        "quality": {n: r.model_dump(mode="json") for n, r in query.quality.items()},
        "limit": query.limit + 1,
    })  # fmt: skip
    shown = rows[: query.limit]
    following = None
    if len(rows) > query.limit:
        end = {"last_seq": shown[-1]["valid_from_seq"], "last_id": shown[-1]["decision_id"]}
        following = _cursor(point, ["images", collection, asked], end)
    return ImagePage(
        collection=collection, at_seq=point.seq, generation=point.generation,
        images=[_image_row(row) for row in shown], next_cursor=following,
    )  # fmt: skip


def facet(
    database: Database, collection: str, attribute: str, *, outcome: str | None, limit: int
) -> Facet:
    """An attribute's values now, the most frequent first."""
    if outcome is not None and outcome not in OUTCOMES:
        raise RequestError(f"no outcome {outcome!r}: there are {', '.join(OUTCOMES)}")
    browse = Browse(database)
    point = _point(database, browse, collection, None)
    rows = browse.facet(point, attribute=attribute, outcome=outcome, limit=limit)
    return Facet(
        collection=collection, attribute=attribute, values=[FacetValue(**row) for row in rows]
    )


def groups(
    database: Database, collection: str, *,
    order: Order, prefix: str | None, cursor: str | None, limit: int,
) -> GroupPage:  # fmt: skip
    """Representatives that have duplicates now; errors as for ``page``.

    order: ``doubt`` (those whose duplicates lie farthest first; duplicates of the same bytes or
    pixels leave no doubt), ``size``, ``newest``.
    """
    query: list[Any] = ["groups", collection, order, prefix]
    before = _read_cursor(cursor, query)
    browse = Browse(database)
    point = _point(database, browse, collection, None)
    last = {"last_value": None, "last_id": None} if before is None else before["last"]
    rows = browse.groups(
        point, {**last, "order": order, "prefix": prefix or None, "limit": limit + 1}
    )
    shown = rows[:limit]
    end = shown and {"last_value": shown[-1]["rank_value"], "last_id": shown[-1]["object_id"]}
    return GroupPage(
        collection=collection, generation=point.generation, seq=point.seq,
        groups=[
            Group(
                object_id=row["object_id"], uri=_uri(row), duplicates=row["duplicates"],
                farthest=row["farthest"], newest_seq=row["newest_seq"], thumbnail=_thumbnail(row),
            )
            for row in shown
        ],
        next_cursor=_cursor(point, query, end) if end and len(rows) > limit else None,
    )  # fmt: skip


def members(
    database: Database, collection: str, object_id: int, *, cursor: str | None, limit: int
) -> GroupMembers:
    """The duplicates of a representative; none where the object has no duplicates.

    Raises NotFoundError for an unknown object; other errors as for ``page``.
    """
    query: list[Any] = ["members", collection, object_id]
    before = _read_cursor(cursor, query)
    browse = Browse(database)
    point = _point(database, browse, collection, None)
    known = known_version(database, object_id)
    last = {"last_distance": None, "last_id": None} if before is None else before["last"]
    rows = browse.members(point, {**last, "object_id": object_id, "limit": limit + 1})
    shown = rows[:limit]
    end = shown and {
        "last_distance": shown[-1]["distance"] or 0.0, "last_id": shown[-1]["object_id"]
    }  # fmt: skip
    return GroupMembers(
        collection=collection, object_id=object_id, uri=known.version.uri,
        members=[
            Member(
                object_id=row["object_id"], uri=_uri(row), reason=row["reason"],
                why=in_words(row["reason"]), distance=row["distance"],
                captured_at=row["captured_at"], decided_at=row["decided_at"], seq=row["seq"],
                thumbnail=_thumbnail(row),
            )
            for row in shown
        ],
        next_cursor=_cursor(point, query, end) if end and len(rows) > limit else None,
    )  # fmt: skip


def generations(database: Database, collection: str) -> GenerationList:
    """Every rule that a collection was decided by."""
    settings = Overview(database).settings(Collections(database).collection(collection))
    return GenerationList(
        collection=collection, current=settings["generation"],
        generations=[GenerationRule(**row) for row in settings["generations"]],
    )  # fmt: skip


def image(database: Database, object_id: int) -> Image:
    """One object version. Raises NotFoundError for an unknown id."""
    known = known_version(database, object_id)
    uri = S3Uri(known.bucket, known.key, known.version_id)
    return versions(database, uri).images[0]


def versions(database: Database, uri: S3Uri) -> Versions:
    """Every known version of a key, newest first; raises as ``explain`` does."""
    return Versions(
        images=[
            Image(
                object_id=story.object.object_id,
                uri=story.uri,
                sentences={c.collection: sentence(c) for c in story.collections},
                story=story,
                thumbnail=thumbnail_path(story.object.object_id)
                if story.object.thumbnail_key
                else None,
                original=f"/v1/images/{story.object.object_id}/original",
            )
            for story in explain(database, uri)
        ]
    )


def sentence(chapter: Chapter) -> str:
    """The outcome of an image as a sentence for people."""
    reason = words_and_code(chapter.reason) if chapter.reason else ""
    match chapter.outcome:
        case None:
            return "Undecided: its decision was undone, and it waits in the queue."
        case "duplicate":
            current = next(row for row in reversed(chapter.history) if row.valid_to_seq is None)
            far = "" if current.distance is None else f", cosine distance {current.distance:.4f}"
            return f"Duplicate of {chapter.representative}: {reason}{far}."
        case "kept":
            count = chapter.stands_for.count
            stands = f" It stands for {count} duplicate{'s' * (count != 1)}." if count else ""
            return f"Kept: {reason}.{stands}"
        case other:
            message = f" The decoder said: {chapter.message}" if chapter.message else ""
            return f"{other.capitalize()}: {reason}.{message}"


def thumbnail(database: Database, objects: S3Objects, bucket: str, object_id: int) -> bytes:
    """The WebP of an image, a few kilobytes. Only this function knows where thumbnails are.

    Raises NotFoundError for an unknown id, an erased image, and one without a thumbnail;
    otherwise as ``S3Objects.read`` does.
    """
    known = known_version(database, object_id)
    if known.thumbnail_key is None or known.is_erased:
        raise NotFoundError(f"image {object_id} has no thumbnail", code="no_thumbnail")
    return objects.read(bucket, known.thumbnail_key)


def original(database: Database, objects: S3Objects, object_id: int) -> OriginalLink:
    """A link to the exact version, for GET, for ``ORIGINAL_SECONDS``.

    Raises NotFoundError for an unknown or erased image: keys are never taken from the caller.
    """
    known = known_version(database, object_id)
    if known.is_erased:
        raise NotFoundError(f"image {object_id} was erased", code="erased")
    url = objects.presigned_get(
        known.version, seconds=ORIGINAL_SECONDS,
        content_type=_CONTENT_TYPES.get(known.format or "", "application/octet-stream"),
    )  # fmt: skip
    until = datetime.now(UTC) + timedelta(seconds=ORIGINAL_SECONDS)
    return OriginalLink(url=url, expires_at=until)


def known_version(database: Database, object_id: int) -> KnownVersion:
    """The object of that id. Raises NotFoundError."""
    known = Browse(database).version(object_id)
    if known is None:
        raise NotFoundError(f"no image {object_id}", code="unknown_object")
    return known


def thumbnail_path(object_id: int) -> str:
    """Where the server has an image's thumbnail."""
    return f"/v1/images/{object_id}/thumbnail"


def _point(database: Database, browse: Browse, collection: str, at_seq: int | None) -> Point:
    found = browse.point(collection, at_seq)
    if found is None:
        seq = Collections(database).collection(collection).seq
        raise RequestError(
            f"collection {collection!r} is at seq {seq}; {at_seq} is in the future",
            code="future_seq",
        )
    return found


def _checked(point: Point, before: Mapping[str, Any]) -> dict[str, Any]:
    """Where the page before ended. Raises ConflictError if its point is of another history."""
    if before["token"] != str(point.token):
        raise ConflictError(
            "the ledger's history changed since this list was begun (it was restored): "
            "start again without the cursor",
            code="history_changed",
        )
    return dict(before["last"])


def _cursor(point: Point, query: list[Any], last: Mapping[str, Any]) -> str:
    held = {"query": _digest(query), "seq": point.seq, "token": str(point.token), "last": last}
    return base64.urlsafe_b64encode(json.dumps(held).encode()).decode().rstrip("=")


class _Cursor(BaseModel):
    query: str
    seq: int
    token: str
    last: dict[str, float | int | None]


def _read_cursor(cursor: str | None, query: list[Any]) -> dict[str, Any] | None:
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        held = _Cursor.model_validate_json(base64.urlsafe_b64decode(padded.encode("ascii")))
    except ValueError as error:
        raise RequestError("the cursor is not one of ours", code="bad_cursor") from error
    if held.query != _digest(query):
        raise RequestError(
            "the cursor belongs to another query: repeat the query that it came with, or start "
            "again without it",
            code="foreign_cursor",
        )
    return held.model_dump()


def _digest(query: list[Any]) -> str:
    return hashlib.sha256(json.dumps(query, sort_keys=True).encode()).hexdigest()[:16]


def _image_row(row: Mapping[str, Any]) -> ImageRow:
    representative = None
    if row["representative_key"] is not None:
        representative = ObjectVersion(
            row["representative_bucket"], row["representative_key"],
            row["representative_version_id"],
        ).uri  # fmt: skip
    return ImageRow(
        object_id=row["object_id"], uri=_uri(row), outcome=row["outcome"], reason=row["reason"],
        why=in_words(row["reason"]), distance=row["distance"], representative=representative,
        representative_object_id=row["representative_object_id"], flags=row["flags"],
        duplicates=row["duplicates"],
        captured_at=row["captured_at"], is_s3_time=row["is_s3_time"],
        decided_at=row["decided_at"], seq=row["valid_from_seq"], thumbnail=_thumbnail(row),
    )  # fmt: skip


def _uri(row: Mapping[str, Any]) -> str:
    return ObjectVersion(row["bucket"], row["key"], row["version_id"]).uri


def _thumbnail(row: Mapping[str, Any]) -> str | None:
    return thumbnail_path(row["object_id"]) if row["has_thumbnail"] else None


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else in_utc(moment)
