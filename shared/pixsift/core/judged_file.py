"""One file of a local folder, judged by a quality policy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pixsift.core.images import ImageFacts

FILE_OUTCOMES: Final = ("good", "flagged", "rejected", "refused")
"""In the order in which people read them."""


@dataclass(frozen=True, slots=True, eq=False)
class JudgedFile:
    """One file of a folder."""

    name: str
    outcome: str
    """``good``, ``flagged``, ``rejected`` by the policy, or ``refused`` by the decoder."""
    reason: str
    flags: tuple[str, ...]
    metrics: Mapping[str, float]
    facts: ImageFacts | None
    thumbnail_webp: bytes
    """Empty when it was not asked for."""
