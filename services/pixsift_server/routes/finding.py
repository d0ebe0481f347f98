"""Search by example: by images of the ledger, by uploads, by folders; and an image's neighbors."""

from typing import Annotated

from fastapi import APIRouter, Body, File, Form, Query, UploadFile
from pydantic import ValidationError

from pixsift.api import Example, SearchAnswer, SearchAsk
from pixsift.errors import RequestError
from pixsift.operations.retrieve import only_collection
from pixsift_server.parts import Of
from pixsift_server.routes.parameters import ObjectId

router = APIRouter(prefix="/v1", tags=["search"])
_MOST_FILES = 64
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
    if len(files) > _MOST_FILES:
        raise RequestError(f"{len(files)} files: {_MOST_FILES} at most", code="too_many_files")
    try:
        asked = SearchAsk.model_validate_json(ask)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RequestError(f"ask: {where}: {first['msg']}", code="bad_search") from error
    blobs = {file.filename or f"file {n}": file.file.read() for n, file in enumerate(files, 1)}
    collection = only_collection(parts.database, asked.collection)
    uploads = parts.embedder.uploads(blobs, collection)
    named = {e.upload for e in (*asked.examples, *asked.counterexamples)}
    more = [Example(upload=name) for name in blobs if name not in named]
    whole = asked.model_copy(update={"examples": [*asked.examples, *more]})
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
