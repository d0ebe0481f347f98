"""The border of the rule: what a person looks at before another rule is tried."""

from typing import Annotated

from fastapi import APIRouter, Query

from pixsift.api_border import BorderPairs
from pixsift.operations import border
from pixsift_server.parts import Of
from pixsift_server.routes.parameters import Collection

router = APIRouter(prefix="/v1/collections", tags=["collections"])


@router.get("/{collection}/border", summary="Pairs nearest to the rule's limits")
def border_pairs(
    parts: Of, collection: Collection, limit: Annotated[int, Query(ge=3, le=3000)] = 450
) -> BorderPairs:
    """On both sides: near-duplicates, and kept images that are nearly some.

    With each pair its distance and its change, both as the rule sees them; a what-if under other
    limits says what would become of all images.
    """
    return border.border_pairs(parts.database, collection, limit=limit)
