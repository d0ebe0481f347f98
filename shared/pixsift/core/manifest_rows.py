"""The rows of a snapshot's list as values: what ``pixsift.core.manifest`` turns into files.

Apart from it, so that what only reads the ledger, such as the consumer, loads no pyarrow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pixsift.core.identity import ObjectVersion


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One chosen image."""

    rank: int
    split: str
    path: str
    """Below the snapshot's prefix: ``data/train/robot-1/a.jpg``."""
    source: ObjectVersion
    etag: str
    size_bytes: int
    content_sha256: str
    """Hex; the checksum the copy was verified against."""
    pixel_sha256: str
    format: str
    width: int
    height: int
    captured_at: datetime | None = None
    """Aware, in UTC."""
    reason: str = ""
    """Why it was chosen: the strategy's words."""
    covering_radius: float | None = None
    """Largest cosine distance left after this pick, where the strategy knows it."""
    duplicates: int = 0
    """How many other images it stands for."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    quality: Mapping[str, float] = field(default_factory=dict)
    rulings: Sequence[Mapping[str, Any]] = ()
    """In force about it: id, kind, who, why, said_at."""


@dataclass(frozen=True, slots=True)
class DuplicateRow:
    """One image that is not in the snapshot because a chosen image represents it."""

    representative_rank: int
    source: ObjectVersion
    reason: str
    """``content``, ``pixels``, ``near``, ``near_look``."""
    distance: float | None
    """Cosine distance to the representative; None where no distance was needed."""
