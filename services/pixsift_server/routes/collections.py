"""Collections: settings, counts, images, duplicate groups, generations, cameras."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Body, Path, Query

from pixsift.answers.collections import CollectionDetails, Counts
from pixsift.answers.images import AttributeOverview
from pixsift.api import (
    Camera,
    CameraReport,
    CollectionList,
    Facet,
    GenerationList,
    GroupMembers,
    GroupPage,
    ImagePage,
    ImageQuery,
    OutcomeName,
    TurnPage,
)
from pixsift.core.camera_health import CameraHealth, HealthLimits
from pixsift.messages import Range
from pixsift.operations import access, attributes, browse, collections, quality
from pixsift_server.parts import Of
from pixsift_server.routes.parameters import (
    AttributeConditions,
    Before,
    Collection,
    Cursor,
    Limit,
    ObjectId,
    Prefix,
    conditions,
)

router = APIRouter(prefix="/v1/collections", tags=["collections"])


@router.get("", summary="Every collection with its settings")
def list_collections(parts: Of) -> CollectionList:
    """What is judged, and by which rule."""
    names = [line.name for line in collections.list_collections(parts.database)]
    return CollectionList(
        collections=[collections.settings(parts.database, name) for name in names]
    )


@router.get("/{collection}", summary="One collection: settings, generations, counts")
def show(parts: Of, collection: Collection) -> CollectionDetails:
    """All settings that decide about an object there, and the counts of outcomes."""
    return collections.show(parts.database, collection)


@router.get("/{collection}/counters", summary="Outcomes that hold now")
def counters(parts: Of, collection: Collection) -> Counts:
    """By outcome and by reason, and how fast they come."""
    return collections.show(parts.database, collection).counts


@router.get("/{collection}/images", summary="Images, the newest decision first")
def images(
    parts: Of,
    collection: Collection,
    *,
    outcome: OutcomeName | None = None,
    reason: Annotated[str | None, Query(max_length=100, examples=["black"])] = None,
    flag: Annotated[str | None, Query(max_length=100, examples=["blurred"])] = None,
    prefix: Prefix = None,
    attribute: AttributeConditions = None,
    captured_after: datetime | None = None,
    captured_before: datetime | None = None,
    min_distance: Annotated[float | None, Query(ge=0, le=2)] = None,
    max_distance: Annotated[float | None, Query(ge=0, le=2)] = None,
    at_seq: Annotated[int | None, Query(ge=0, lt=1 << 63)] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> ImagePage:
    """Pages of one point of the collection: new arrivals do not move them.

    Conditions on quality metrics go with `POST .../images/query`.
    """
    distance = _range(min_distance, max_distance)
    query = ImageQuery(
        outcome=outcome, reason=reason, flag=flag, prefix=prefix, attributes=conditions(attribute),
        captured_after=captured_after, captured_before=captured_before, distance=distance,
        at_seq=at_seq, limit=limit, cursor=cursor,
    )  # fmt: skip
    return browse.page(parts.database, collection, query)


_EXAMPLE = {
    "outcome": "kept",
    "attributes": {"robot": ["r2", "r7"]},
    "quality": {"sharpness": {"min": 0.4}},
    "limit": 50,
}


@router.post("/{collection}/images/query", summary="Images by any condition")
def query_images(
    parts: Of, collection: Collection, query: Annotated[ImageQuery, Body(examples=[_EXAMPLE])]
) -> ImagePage:
    """As `GET .../images`, with every condition there is."""
    return browse.page(parts.database, collection, query)


@router.get("/{collection}/attributes", summary="Attributes that images of a collection have")
def list_attributes(parts: Of, collection: Collection) -> list[AttributeOverview]:
    """By name and source: how many images have it, how many values there are."""
    return attributes.list_attributes(parts.database, collection)


@router.get("/{collection}/facets/{attribute}", summary="Values of an attribute, with counts")
def facet(
    parts: Of,
    collection: Collection,
    attribute: Annotated[str, Path(max_length=1024, examples=["robot"])],
    outcome: OutcomeName | None = None,
    limit: Limit = 100,
) -> Facet:
    """Among the images with an outcome that holds now, the most frequent value first."""
    return browse.facet(parts.database, collection, attribute, outcome=outcome, limit=limit)


@router.get("/{collection}/groups", summary="Duplicate groups")
def list_groups(
    parts: Of,
    collection: Collection,
    *,
    order: browse.Order = "doubt",
    prefix: Prefix = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> GroupPage:
    """A representative per group; `doubt`: the groups nearest to the rule's limit first."""
    return browse.groups(
        parts.database, collection, order=order, prefix=prefix, cursor=cursor, limit=limit
    )


@router.get("/{collection}/groups/{object_id}", summary="The duplicates of a representative")
def group(
    parts: Of, collection: Collection, object_id: ObjectId, limit: Limit = 100,
    cursor: Cursor = None,
) -> GroupMembers:  # fmt: skip
    """The most doubtful first."""
    return browse.members(parts.database, collection, object_id, cursor=cursor, limit=limit)


@router.get("/{collection}/generations", summary="The rules a collection was decided by")
def generations(parts: Of, collection: Collection) -> GenerationList:
    """Oldest first."""
    return browse.generations(parts.database, collection)


@router.get("/{collection}/turns", summary="Decision transactions: who made them, and why")
def turns(parts: Of, collection: Collection, before: Before = None, limit: Limit = 100) -> TurnPage:
    """Newest first."""
    return access.turns(parts.database, collection, before=before, limit=limit)


@router.get("/{collection}/cameras", summary="Frozen cameras and drifting exposure")
def cameras(
    parts: Of,
    collection: Collection,
    by: Annotated[str, Query(max_length=1024)] = "camera",
    since: datetime | None = None,
) -> CameraReport:
    """From the metrics in the ledger. `by`: the attribute that names the camera."""
    found = quality.cameras(parts.database, collection, by=by, since=since, limits=HealthLimits())
    return CameraReport(collection=collection, by=by, cameras=[_camera(each) for each in found])


def _camera(health: CameraHealth) -> Camera:
    ills = ["stuck"] * bool(health.stuck) + ["exposure drifts"] * health.drifts
    return Camera(
        camera=health.camera,
        frames=health.frames,
        status=" and ".join(ills) or "good",
        stuck=[
            {"first": run.first.uri, "last": run.last.uri, "frames": run.frames,
             "seconds": run.seconds}
            for run in health.stuck
        ],
        drift=None if health.drift is None else asdict(health.drift),
    )  # fmt: skip


def _range(low: float | None, high: float | None) -> Range | None:
    return None if low is None and high is None else Range(min=low, max=high)
