"""What choosing and searching answer."""

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict

from pixsift.answers.base import Answer


class ChosenImage(Answer):
    """One pick of a selection."""

    rank: int
    object_id: int
    uri: str
    split: str
    reason: str


class FarImage(Answer):
    """One image that a selection covers badly."""

    object_id: int
    uri: str
    distance: float
    """Cosine distance to the nearest chosen image."""


class SelectionPreview(Answer):
    """What a request would choose, and how well that covers the pool. Strategies add facts."""

    model_config = ConfigDict(extra="allow", frozen=True)

    strategy: str
    k: int
    seed: int
    candidates: int
    eligible: int
    preselected: int
    outliers: int
    erased: int
    collection: str
    at_seq: int
    generation: int
    coverage: dict[str, Any]
    """See ``Comparison.to_json``."""
    splits: dict[str, int]
    outlier_uris: list[str]
    images: list[ChosenImage]
    worst_covered: list[FarImage]
    """The images of the pool that are farthest from any chosen one, farthest first."""
    copies: int
    """Images that would be copied; 0 for references."""
    copied_bytes: int
    copy_dollars: float
    """For the copy requests, once."""
    storage_dollars_month: float
    prices_as_of: str


class Neighbor(Answer):
    """One kept image near a query."""

    object_id: int
    uri: str
    distance: float
    """Cosine distance to the nearest of the query's images."""
    nearest_to: str
    """That image's file, or its URI."""
    mode: int = 0
    """Which group of query images found it; 0 where they were not grouped."""


class Neighbors(Answer):
    """The kept images nearest to a query."""

    collection: str
    neighbors: list[Neighbor]
    """Nearest first."""
    failures: dict[str, str]
    """Query file -> why it was left out."""


class StrategyComparison(Answer):
    """Every strategy at several sizes, on the pool of one request."""

    collection: str
    at_seq: int
    candidates: int
    compared_on: int
    odd: int
    label: str | None
    group: str | None
    tested: int
    k: list[int]
    strategies: dict[str, dict[str, Any]]


class ProtectedLine(Answer):
    """An evaluation set that selections keep away from."""

    protected_id: str
    kind: Literal["snapshot", "prefix", "folder"]
    source: str
    distance: float
    """Cosine distance within which nothing is chosen."""
    pictures: int
    """Different pictures in it now."""
    who: str
    why: str
    declared_at: datetime


class ProtectedList(Answer):
    """The evaluation sets in force of a collection, the oldest first."""

    collection: str
    sets: list[ProtectedLine]
