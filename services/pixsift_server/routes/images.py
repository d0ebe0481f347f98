"""One image: its story, its thumbnail, a link to the original."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from pixsift.api import Image, OriginalLink, Versions
from pixsift.core.identity import S3Uri
from pixsift.errors import RequestError
from pixsift.operations import browse
from pixsift_server.parts import Of
from pixsift_server.routes.parameters import ObjectId

router = APIRouter(prefix="/v1/images", tags=["images"])
_DAY_SECONDS = 86_400


@router.get("", summary="Every known version of a key")
def by_uri(
    parts: Of,
    uri: Annotated[
        str,
        Query(max_length=2048, description="`s3://bucket/key`, or with `?versionId=`.",
              examples=["s3://raw/robot-1/cam/0001.jpg"]),
    ],
) -> Versions:  # fmt: skip
    """Newest first. 404 says whether a rule ignores the key, or it has not arrived."""
    try:
        named = S3Uri.parse(uri)
    except ValueError as error:
        raise RequestError(f"{uri!r} {error}", code="bad_uri") from error
    return browse.versions(parts.database, named)


@router.get("/{object_id}", summary="One image: verdict in a sentence, history, snapshots")
def show(parts: Of, object_id: ObjectId) -> Image:
    """The whole story of an object version, in every collection that judges it."""
    return browse.image(parts.database, object_id)


@router.get(
    "/{object_id}/thumbnail",
    summary="Its thumbnail",
    response_class=Response,
    responses={200: {"content": {"image/webp": {}}, "description": "A WebP of a few kilobytes."}},
)
def thumbnail(parts: Of, object_id: ObjectId) -> Response:
    """Re-encoded by pixsift: it carries none of the original's metadata."""
    body = browse.thumbnail(parts.database, parts.objects, parts.derived_bucket, object_id)
    # For the caller's cache, and not for long: an erasure removes thumbnails.
    headers = {"Cache-Control": f"private, max-age={_DAY_SECONDS}",
               "Content-Disposition": "inline"}  # fmt: skip
    return Response(body, media_type="image/webp", headers=headers)


@router.get("/{object_id}/original", summary="A short-lived link to the original in S3")
def original(parts: Of, object_id: ObjectId) -> OriginalLink:
    """For GET, for this exact version, for three minutes."""
    return browse.original(parts.database, parts.objects, object_id)
