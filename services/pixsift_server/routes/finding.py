"""Search by example: by images of the ledger, by uploads, by folders; and an image's neighbors."""

from typing import Annotated

from fastapi import APIRouter, Body, File, Form, Query, UploadFile

from pixsift.api import SearchAnswer, SearchAsk
from pixsift_server.parts import Of
from pixsift_server.routes.parameters import ObjectId
from pixsift_server.routes.uploads import asked, blobs_of, uploads_of

router = APIRouter(prefix="/v1", tags=["search"])
_EXAMPLE = {
    "examples": [{"uri": "s3://raw/robot-1/cam/0001.jpg"}],
    "counterexamples": [{"object_id": 42}],
    "where": {"attributes": {"robot": ["r2"]}},
    "k": 50,
}


@router.post("/search", summary="Kept images like some examples")
def search(parts: Of, ask: Annotated[SearchAsk, Body(examples=[_EXAMPLE])]) -> SearchAnswer:
    """By images that the ledger knows, by a folder of them, or both.

    The answer says how it searched (`plan`). Fewer than k hits only where the collection, the
    filter or the bounds leave fewer.
    """
    return parts.finder.find(ask)


@router.post("/search/upload", summary="Kept images like files that come with the request")
def search_uploads(
    parts: Of,
    files: Annotated[list[UploadFile], File(description="Images, 64 at most.")],
    ask: Annotated[
        str, Form(description="A search as JSON, as `POST /v1/search` takes it.",
                  max_length=1_000_000, examples=['{"k": 20}']),
    ] = "{}",
) -> SearchAnswer:  # fmt: skip
    """Each file is an example, unless `counterexamples` names it (`{"upload": "file name"}`).

    Files are decoded in isolated processes; one that is not an image is named in `failures`.
    """
    blobs = blobs_of(files)
    whole, uploads = uploads_of(parts, asked(SearchAsk, ask), blobs)
    return parts.finder.find(whole, uploads)


@router.get("/images/{object_id}/neighbors", tags=["images"], summary="Kept images near an image")
def neighbors(
    parts: Of,
    object_id: ObjectId,
    collection: Annotated[str | None, Query(max_length=63)] = None,
    k: Annotated[int, Query(ge=1, le=1000)] = 12,
    max_distance: Annotated[float | None, Query(ge=0, le=2)] = None,
) -> SearchAnswer:
    """With their distances: near misses of the duplicate rule are among them."""
    bounds = None if max_distance is None else {"max": max_distance}
    ask = SearchAsk.model_validate({
        "collection": collection, "examples": [{"object_id": object_id}], "k": k,
        "distance": bounds, "way": "nearest",
    })  # fmt: skip
    return parts.finder.find(ask)
