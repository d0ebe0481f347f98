"""How the newest images spread over attributes and numbers."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from pixsift.api import OutcomeName
from pixsift.api_spread import Histogram, Spread
from pixsift.operations import spread
from pixsift_server.parts import Of
from pixsift_server.routes.parameters import Collection

router = APIRouter(prefix="/v1/collections", tags=["collections"])
Newest = Annotated[int, Query(ge=1, le=50_000, description="So many of the newest images.")]


@router.get("/{collection}/spread/{attribute}", summary="The newest images by an attribute")
def by_attribute(
    parts: Of,
    collection: Collection,
    attribute: Annotated[str, Path(max_length=1024, examples=["robot"])],
    newest: Newest = 2000,
) -> Spread:
    """Values with the number of images per outcome."""
    return spread.spread(parts.database, collection, attribute, newest=newest)


@router.get("/{collection}/histograms/{metric}", summary="A number of the newest images, in bins")
def histogram(
    parts: Of,
    collection: Collection,
    metric: Annotated[str, Path(max_length=100, examples=["sharpness"])],
    outcome: OutcomeName | None = None,
    newest: Newest = 20_000,
) -> Histogram:
    """A quality metric, or `distance`: how far a duplicate is from the image kept instead."""
    return spread.histogram(parts.database, collection, metric, outcome=outcome, newest=newest)
