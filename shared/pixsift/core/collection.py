"""What a collection is: its source rules, its embedding space and the parameters it judges by."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from pixsift.core.sources import Reach, SourceRule, reach

ExpiryPolicy = Literal["redecide", "remember"]


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """A seq of a collection and the random token of its turn.

    ``seq`` alone does not identify a history: a restored ledger counts on from an earlier number.
    So whatever caches something from a ledger also stores the point.
    """

    seq: int
    token: UUID


@dataclass(frozen=True, slots=True)
class Collection:
    """One dedup scope, as it was when it was read; ``generation`` and ``seq`` move on."""

    collection_id: int
    name: str
    sources: tuple[SourceRule, ...]
    key_pattern: str | None
    """Regular expression with named groups; each group is an attribute."""
    space_id: str
    epsilon: float
    """Cosine distance at or below which two images may be near-duplicates."""
    second_look: Mapping[str, Any] | None
    """Stored form of the second-look rule; None: the embedding alone decides."""
    quality_policy: Mapping[str, Any] = field(default_factory=dict)
    expiry_policy: ExpiryPolicy = "remember"
    calibration: Mapping[str, Any] | None = None
    generation: int = 1
    seq: int = 0
    keep_best: float | None = None
    """By how much a better image takes the place of its representative; None: never."""

    def reach(self, bucket: str, key: str) -> Reach:
        """Whether the collection judges, ignores or does not know the object."""
        return reach(self.sources, bucket, key)
