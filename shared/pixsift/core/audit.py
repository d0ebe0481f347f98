"""Checks the invariants of a collection's ledger on plain values; exact, block by block.

The names INV1 ... INV9 are those of ``docs/operations.md``. Nothing here repairs anything: a
finding names the objects, and ``pixsift.adapters.lifecycle`` decides them again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixsift.core.dedup import SCREEN_MARGIN, Halves, Image, NearRule, cosine_distance
from pixsift.core.replay import unit_rows, where_true

DISTANCE_TOLERANCE = 1e-5
"""How far a stored distance may be from the recomputed one (concurrency note, pitfall 8)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken invariant."""

    invariant: str
    """``INV1`` ... ``INV9``."""
    message: str
    objects: tuple[int, ...] = ()
    """object_ids it is about; for INV2 the one to decide again comes last."""

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class DuplicateClaim:
    """A duplicate's row beside what it claims to duplicate."""

    object_id: int
    representative: int
    reason: str
    distance: float | None
    representative_is_kept: bool
    image: Image | None
    representative_image: Image | None


def close_pairs(
    images: Sequence[Image],
    rule: NearRule,
    *,
    only: NDArray[np.int64] | None = None,
    rows_at_once: int = 2048,
) -> Iterator[tuple[int, int, float, str]]:
    """Every pair of ``images`` that the rule calls near: positions (i < j), distance, reason.

    only: positions to compare with all others; None compares all pairs, in (N / block)² products
    of float32 unit rows and the exact distance of each candidate. 100k rows of 384 dimensions are
    about 4e12 operations, a minute on two cores.
    """
    if not images:
        return
    embeddings: Halves = np.stack([image.embedding for image in images])
    left = np.arange(len(images)) if only is None else np.unique(only)
    drawn = set(left.tolist()) if only is not None else set()
    threshold = 1.0 - rule.epsilon - SCREEN_MARGIN
    for first in range(0, len(left), rows_at_once):
        part = left[first : first + rows_at_once]
        rows = unit_rows(embeddings[part])
        # All pairs: what lies before this part was compared with it already.
        for second in range(first if only is None else 0, len(images), rows_at_once):
            others = unit_rows(embeddings[second : second + rows_at_once])
            for row, column in where_true(rows @ others.T >= threshold):
                i, j = int(part[row]), second + column
                if i == j or (i > j and (only is None or j in drawn)):
                    continue  # itself, or seen from the other side
                if pair := _judge(images[i], images[j], rule):
                    yield min(i, j), max(i, j), *pair


def check_kept_pairs(
    images: Sequence[Image], rule: NearRule, *, only: NDArray[np.int64] | None = None
) -> Iterator[Finding]:
    """INV2 and promise 4. images: all kept ones, oldest first; the younger of a pair is last."""
    for i, j, distance, reason in close_pairs(images, rule, only=only):
        older, younger = images[i].object_id, images[j].object_id
        yield Finding(
            "INV2",
            f"two kept images are duplicates: objects {older} and {younger} ({reason}, distance "
            f"{distance:.6f}, epsilon {rule.epsilon:g})",
            (older, younger),
        )


def check_duplicates(claims: Sequence[DuplicateClaim], rule: NearRule) -> Iterator[Finding]:
    """INV3: a kept representative, the same bytes or pixels or within the rule, and the distance
    stored is the distance recomputed."""
    for claim in claims:
        if wrong := _what_is_wrong(claim, rule):
            yield Finding(
                "INV3",
                f"object {claim.object_id} is a duplicate of {claim.representative}, but {wrong}",
                (claim.object_id,),
            )


def check_dense(used: Sequence[int], seq: int) -> Iterator[Finding]:
    """INV4: every number from 1 to ``seq`` was used by a transaction, and none above it."""
    missing = np.setdiff1d(np.arange(1, seq + 1), np.asarray(used, dtype=np.int64))
    if len(missing):
        shown = ", ".join(str(number) for number in missing[:5])
        yield Finding("INV4", f"seq has {len(missing)} gaps up to {seq}: {shown} ...")
    if above := [number for number in used if number > seq]:
        yield Finding("INV4", f"rows carry a seq above the collection's {seq}: {max(above)}")


def _judge(a: Image, b: Image, rule: NearRule) -> tuple[float, str] | None:
    if a.content_sha256 == b.content_sha256:
        return 0.0, "content"
    if a.pixel_sha256 == b.pixel_sha256:
        return 0.0, "pixels"
    distance = cosine_distance(a.embedding, b.embedding)
    reason = rule.verdict(distance, a.look, b.look)
    return None if reason is None else (distance, reason)


def _what_is_wrong(claim: DuplicateClaim, rule: NearRule) -> str | None:
    if not claim.representative_is_kept:
        return "that one is not kept"
    if claim.reason in ("content", "pixels"):
        return _same(claim)
    if claim.image is None or claim.representative_image is None:
        return "a vector is missing"
    a, b = claim.image, claim.representative_image
    distance = cosine_distance(a.embedding, b.embedding)
    if claim.distance is None or abs(distance - claim.distance) > DISTANCE_TOLERANCE:
        return f"the distance stored is {claim.distance} and the recomputed one {distance:.8f}"
    if rule.verdict(distance, a.look, b.look) is None:
        return f"their distance {distance:.6f} does not satisfy the rule"
    return None


def _same(claim: DuplicateClaim) -> str | None:
    a, b = claim.image, claim.representative_image
    if a is None or b is None:
        return None  # exact duplicates need no vector; erased hashes are INV9's business
    if claim.reason == "content" and a.content_sha256 != b.content_sha256:
        return "their bytes differ"
    if claim.reason == "pixels" and a.pixel_sha256 != b.pixel_sha256:
        return "their pixels differ"
    return None
