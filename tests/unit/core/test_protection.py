"""What lies near an evaluation set, against the definition of distance pair by pair."""

from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsift.core import protection as module
from pixsift.core.choosing.rows import ArrayRows
from pixsift.core.dedup import Halves, cosine_distance
from pixsift.core.protection import Protected, Protection, within
from pools import unit_rows


def a_set(vectors: Halves, distance: float) -> Protected:
    pixels = tuple(sorted(bytes([i % 256, i // 256]) for i in range(len(vectors))))
    return Protected(uuid4(), "s3://raw/eval/", distance, pixels, vectors)


def by_brute_force(rows: Halves, protection: Protection) -> list[bool]:
    return [
        any(
            cosine_distance(row, vector) <= each.distance
            for each in protection.sets
            for vector in each.vectors
        )
        for row in rows
    ]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000), count=st.integers(1, 60), members=st.integers(0, 20),
    where=st.floats(0, 1), second=st.booleans(),
)  # fmt: skip
def test_within__is_every_pair_measured(
    seed: int, count: int, members: int, where: float, second: bool
) -> None:
    """Also where the stated distance is the very distance of a pair: the boundary is protected."""
    rows = unit_rows(count, 12, seed=seed, centers=3)
    vectors = unit_rows(members, 12, seed=seed, centers=3)
    found = sorted(cosine_distance(row, vector) for row in rows for vector in vectors)
    distance = found[int(where * (len(found) - 1))] if found else 0.1
    sets = [a_set(vectors, max(distance, 1e-4))]
    if second:
        sets.append(a_set(unit_rows(2, 12, seed=seed + 1), 0.3))
    protection = Protection(tuple(sets))
    assert within(ArrayRows(rows), protection).tolist() == by_brute_force(rows, protection)


def test_within__many_rows_and_pictures_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 16)
    monkeypatch.setattr(module, "_MEMBERS", 8)
    rows, vectors = unit_rows(100, 8, seed=1, centers=5), unit_rows(30, 8, seed=2, centers=5)
    for distance in (0.02, 0.9, 0.4):
        protection = Protection((a_set(vectors, distance),))
        found = within(ArrayRows(rows), protection)
        assert found.tolist() == by_brute_force(rows, protection)
    assert found.any() and not found.all()


def test_digest__changes_with_whatever_changes_the_choice() -> None:
    one = a_set(unit_rows(3, 8), 0.1)
    digests = {
        Protection(sets).digest()
        for sets in (
            (one,),
            (Protected(one.protected_id, "", 0.2, one.pixels, one.vectors),),
            (Protected(one.protected_id, "", 0.1, one.pixels[:2], one.vectors[:2]),),
            (Protected(one.protected_id, "", 0.1, one.pixels, one.vectors, frozenset({7})),),
            (Protected(uuid4(), "", 0.1, one.pixels, one.vectors),),
            (one, a_set(unit_rows(1, 8), 0.1)),
        )
    }  # fmt: skip
    assert len(digests) == 6
    assert (
        Protection((Protected(one.protected_id, "x", 0.1, one.pixels, one.vectors),)).digest()
        in digests
    )
