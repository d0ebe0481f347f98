"""Files that come with a query, as multipart: read, embedded, and made its examples."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from fastapi import UploadFile
from pydantic import ValidationError

from pixsift.api import ByExamples, Example
from pixsift.errors import RequestError
from pixsift.operations.examples import Uploads
from pixsift.operations.retrieve import only_collection
from pixsift_server.parts import Parts

Query = TypeVar("Query", bound=ByExamples)
_MOST_FILES = 64


def asked(model: type[Query], text: str) -> Query:
    """The query that came as a form field. Raises RequestError."""
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RequestError(f"ask: {where}: {first['msg']}", code="bad_search") from error


def blobs_of(files: Sequence[UploadFile]) -> dict[str, bytes]:
    """Contents by name. Raises RequestError for too many."""
    if len(files) > _MOST_FILES:
        raise RequestError(f"{len(files)} files: {_MOST_FILES} at most", code="too_many_files")
    return {file.filename or f"file {n}": file.file.read() for n, file in enumerate(files, 1)}


def uploads_of(parts: Parts, ask: Query, blobs: Mapping[str, bytes]) -> tuple[Query, Uploads]:
    """The query with each file as an example that it does not name itself, and their vectors."""
    collection = only_collection(parts.database, ask.collection)
    uploads = parts.embedder.uploads(blobs, collection)
    named = {e.upload for e in (*ask.examples, *ask.counterexamples)}
    more = [Example(upload=name) for name in blobs if name not in named]
    return ask.model_copy(update={"examples": [*ask.examples, *more]}), uploads
