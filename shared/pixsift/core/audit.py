"""Checks the invariants of a collection's ledger on plain values; exact, block by block.

The names INV1 ... INV11 are those of ``docs/operations.md``. Nothing here repairs anything: a
violation names the objects, and ``pixsift.adapters.ledger.rejudge`` decides them again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixsift.core.dedup import SCREEN_MARGIN, Image, NearRule, cosine_distance
from pixsift.core.replay import unit_rows
from pixsift.core.rulings import NO_RULINGS, REASON, Rulings
from pixsift.core.screen import Rows, Screen, where_true

DISTANCE_TOLERANCE = 1e-5
"""How far a stored distance may be from the recomputed one (concurrency note, pitfall 8)."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken invariant."""

    invariant: str
    """``INV1`` ... ``INV11``."""
    message: str
    objects: tuple[int, ...] = ()
    """object_ids it is about; for INV2 the one to decide again comes last."""


@dataclass(frozen=True, slots=True, eq=False)
class DuplicateClaim:
    """A duplicate's row with the row that it claims to duplicate."""

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
    rows_at_once: int = 1024,
) -> Iterator[tuple[int, int, float, str]]:
    """Every pair of ``images`` that the rule calls near: positions (i < j), distance, reason.

    only: positions to compare with all others; None compares all pairs. Exact: the screen proposes
    with a margin, the one definition of distance decides.
    """
    if not images:
        return
    similarity = 1.0 - rule.epsilon - SCREEN_MARGIN
    for i, j in _candidates(images, similarity, only, rows_at_once):
        if pair := _judge(images[i], images[j], rule):
            yield i, j, *pair


def _candidates(
    images: Sequence[Image], similarity: float, only: NDArray[np.int64] | None, rows_at_once: int
) -> Iterator[tuple[int, int]]:
    """Positions (i < j), each pair once."""
    screen = Screen(len(images[0].embedding))
    for first in range(0, len(images), rows_at_once):
        rows = _unit(images[first : first + rows_at_once])
        if only is None:
            yield from ((i, first + j) for j, i in screen.near(rows, similarity))
            among = where_true(np.triu(rows @ rows.T >= similarity, k=1))
            yield from ((first + i, first + j) for i, j in among)
        screen.add(rows)
    drawn = np.unique(only) if only is not None else np.empty(0, np.int64)
    seen = set(drawn.tolist())
    for first in range(0, len(drawn), rows_at_once):
        part = drawn[first : first + rows_at_once]
        for number, j in screen.near(_unit([images[i] for i in part]), similarity):
            i = int(part[number])
            if i != j and not (i > j and j in seen):  # seen from the other side
                yield min(i, j), max(i, j)


def _unit(images: Sequence[Image]) -> Rows:
    return unit_rows(np.stack([image.embedding for image in images]))


def check_kept_pairs(
    images: Sequence[Image],
    rule: NearRule,
    *,
    only: NDArray[np.int64] | None = None,
    rulings: Rulings = NO_RULINGS,
) -> Iterator[Violation]:
    """INV2 and promise 4, which hold whatever rulings say. images: all kept ones, oldest first; the
    later image of a pair comes last, or the one that no ruling keeps."""
    for i, j, distance, reason in close_pairs(images, rule, only=only):
        older, younger = images[i].object_id, images[j].object_id
        equal = reason in ("content", "pixels")
        if not equal and rulings.allow_both(older, younger):
            continue
        if rulings.keeps(younger) and not rulings.keeps(older):
            older, younger = younger, older
        yield Violation(
            "INV2",
            f"two kept images are duplicates: objects {older} and {younger} ({reason}, distance "
            f"{distance:.6f}, epsilon {rule.epsilon:g})",
            (older, younger),
        )


def check_duplicates(
    claims: Sequence[DuplicateClaim],
    rule: NearRule,
    *,
    rulings: Rulings = NO_RULINGS,
    named: Mapping[int, int] | None = None,
) -> Iterator[Violation]:
    """INV3: a kept representative, the same bytes or pixels, within the rule or named by a ruling,
    and the distance stored is the distance recomputed.

    named: by object that others are ruled to be the same as, who represents it.
    """
    for claim in claims:
        if claim.reason == REASON:
            wrong = _what_is_wrong_by_ruling(claim, rulings, named or {})
        elif rulings.are_apart(claim.object_id, claim.representative):
            wrong = "a ruling says that they are not the same"
        else:
            wrong = _what_is_wrong(claim, rule)
        if wrong:
            yield Violation(
                "INV3",
                f"object {claim.object_id} is a duplicate of {claim.representative}, but {wrong}",
                (claim.object_id,),
            )


def check_dense(used: Sequence[int], seq: int) -> Iterator[Violation]:
    """INV4: every number from 1 to ``seq`` was used by a transaction, and none above it."""
    missing = np.setdiff1d(np.arange(1, seq + 1), np.asarray(used, dtype=np.int64))
    if len(missing):
        shown = ", ".join(str(number) for number in missing[:5])
        yield Violation("INV4", f"seq has {len(missing)} gaps up to {seq}: {shown} ...")
    if above := [number for number in used if number > seq]:
        yield Violation("INV4", f"rows have a seq above the collection's {seq}: {max(above)}")


def check_turns(turns: Sequence[int], seq: int) -> Iterator[Violation]:
    """INV4: every number up to ``seq`` has its turn, from the first one recorded on.

    A ledger that is older than its table of turns has no turn for its first numbers.
    """
    first = turns[0] if turns else seq
    missing = np.setdiff1d(np.arange(first, seq + 1), np.asarray(turns, dtype=np.int64))
    if len(missing):
        shown = ", ".join(str(number) for number in missing[:5])
        yield Violation("INV4", f"{len(missing)} transactions have no turn row: {shown} ...")


def check_counters(wrong: Iterable[tuple[str, str, str, int, int]]) -> Iterator[Violation]:
    """INV10: the counters equal a recount. wrong: outcome, reason, flag, stored and recounted of
    those that differ."""
    for outcome, reason, flag, stored, recounted in wrong:
        flagged = f" with flag {flag}" if flag else ""
        yield Violation(
            "INV10",
            f"the counter of {outcome} ({reason}){flagged} is {stored}, and a recount "
            f"finds {recounted}",
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """What became of an object."""

    outcome: str
    reason: str
    representative: int | None


def check_rulings(
    rulings: Rulings, standing: Mapping[int, Standing], named: Mapping[int, int]
) -> Iterator[Violation]:
    """INV11: every ruling in force is obeyed, except where bytes or pixels are equal.

    standing: of the objects that rulings are about. named: as for ``check_duplicates``. INV3 checks
    that images ruled ``not_same`` do not represent each other.
    """
    for object_id, ruling in rulings.about.items():
        now = standing.get(object_id)
        if now is None or now.outcome not in ("kept", "duplicate"):
            continue
        equal = now.outcome == "duplicate" and now.reason in ("content", "pixels")
        match ruling.kind:
            case "useless":
                broken = True
            case "choose" | "also_keep":
                broken = now.outcome != "kept" and not equal
            case "same":
                of = named.get(ruling.other or 0)
                held = of is not None and of != object_id and not rulings.are_apart(object_id, of)
                broken = held and not equal and now.representative != of
            case _:
                broken = False
        if broken:
            yield Violation(
                "INV11",
                f"object {object_id} is {now.outcome} ({now.reason}), against its ruling "
                f"{ruling.kind}",
                (object_id,),
            )


def _what_is_wrong_by_ruling(
    claim: DuplicateClaim, rulings: Rulings, named: Mapping[int, int]
) -> str | None:
    target = rulings.same_as(claim.object_id)
    if target is None:
        return "no ruling in force says so"
    if named.get(target) != claim.representative:
        return f"the ruling names object {target}, which another image represents"
    return _measured(claim)


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
        return "its representative is not kept"
    if claim.reason in ("content", "pixels"):
        return _same(claim)
    if wrong := _measured(claim):
        return wrong
    a, b = claim.image, claim.representative_image
    assert a is not None and b is not None  # noqa: S101 - it was measured
    distance = cosine_distance(a.embedding, b.embedding)
    if rule.verdict(distance, a.look, b.look) is None:
        return f"their distance {distance:.6f} does not satisfy the rule"
    return None


def _measured(claim: DuplicateClaim) -> str | None:
    """What is wrong with the distance stored."""
    if not claim.representative_is_kept:
        return "its representative is not kept"
    if claim.image is None or claim.representative_image is None:
        return "a vector is missing"
    distance = cosine_distance(claim.image.embedding, claim.representative_image.embedding)
    if claim.distance is None or abs(distance - claim.distance) > DISTANCE_TOLERANCE:
        return f"the distance stored is {claim.distance} and the recomputed one {distance:.8f}"
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
