"""The pure decision against a brute-force oracle."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import examples
from pixsift.core.dedup import (
    Image,
    Judge,
    Kept,
    NearRule,
    cosine_distance,
    decide_batch,
    foresee_batch,
)


class Parity:
    """A second look that agrees when both first bytes are even or both odd."""

    narrow = 0.08

    def agree(self, pairs: Sequence[tuple[float, bytes, bytes]]) -> list[bool]:
        return [a[0] % 2 == b[0] % 2 for _, a, b in pairs]


def picture(number: int, angle: float, *, content: int | None = None, look: bytes = b"") -> Image:
    same = number if content is None else content
    embedding = np.array([np.cos(angle), np.sin(angle)], np.float16)
    return Image(number, digest(same), digest(same + 1000), embedding, look)


def digest(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


angles = st.floats(0, 6.28, allow_nan=False)
looks = st.sampled_from([b"", b"\x00", b"\x01"])


@settings(max_examples=examples(quick=100, thorough=300), deadline=None)
@given(
    stored=st.lists(st.tuples(angles, looks), max_size=30),
    arriving=st.lists(st.tuples(angles, looks, st.integers(0, 5)), max_size=30),
    epsilon=st.floats(0.0, 0.3),
    with_look=st.booleans(),
)
def test_decide_batch__like_comparing_everything_with_everything(
    stored: list[tuple[float, bytes]],
    arriving: list[tuple[float, bytes, int]],
    epsilon: float,
    with_look: bool,
) -> None:
    rule = NearRule(epsilon, Parity() if with_look else None)
    old = [picture(i, angle, look=look) for i, (angle, look) in enumerate(stored)]
    same = {c: (angle, look) for angle, look, c in arriving if c}  # equal pixels, equal signals
    new = []
    for i, (own_angle, own_look, c) in enumerate(arriving):
        angle, look = same.get(c, (own_angle, own_look))
        new.append(picture(100 + i, angle, look=look, content=500 + c if c else None))
    # Half of the old ones were proposed by a search, the other half are newer than it.
    kept = Kept()
    for image in old[::2]:
        kept.candidates[image.object_id] = image
        kept.by_content[image.content_sha256] = image.object_id
        kept.by_pixels[image.pixel_sha256] = image.object_id
    for image in old[1::2]:
        kept.add(image)
    proposed = {
        item.object_id: [
            o.object_id
            for o in old[::2]
            if rule.verdict(cosine_distance(item.embedding, o.embedding), item.look, o.look)
        ]
        for item in new
    }
    fates = decide_batch(new, kept, rule, proposed)

    alive = list(old)
    for item, fate in zip(new, fates, strict=True):
        equal = [o for o in alive if o.content_sha256 == item.content_sha256]
        near = sorted(
            (cosine_distance(item.embedding, o.embedding), o.object_id)
            for o in alive
            if rule.verdict(cosine_distance(item.embedding, o.embedding), item.look, o.look)
        )
        if equal:
            assert (fate.reason, fate.representative_object_id) == (
                "content", equal[0].object_id,
            )  # fmt: skip
        elif near:
            assert (fate.distance, fate.representative_object_id) == near[0]
        else:
            assert fate.outcome == "kept"
            alive.append(item)


def test_decide_batch__the_boundary_belongs_to_the_duplicates() -> None:
    a, b = picture(1, 0.0), picture(2, 0.3)
    distance = cosine_distance(a.embedding, b.embedding)
    assert decide_batch([a, b], Kept(), NearRule(distance))[1].outcome == "duplicate"
    below = NearRule(np.nextafter(distance, 0.0))
    assert decide_batch([a, b], Kept(), below)[1].outcome == "kept"


def test_verdict__without_look_signals_the_embedding_alone_decides() -> None:
    rule = NearRule(0.1, Parity())
    assert rule.verdict(0.05, b"\x00", b"\x02") == "near_look"
    assert rule.verdict(0.05, b"\x00", b"\x01") is None
    assert rule.verdict(0.05, b"", b"\x01") == "near"
    assert rule.verdict(0.09, b"", b"\x01") is None  # beyond the narrow epsilon
    assert rule.verdict(0.11, b"\x00", b"\x02") is None


@pytest.mark.parametrize("dimension", [2, 384, 4000])
def test_cosine_distance__of_a_stored_vector_to_itself_is_zero(dimension: int) -> None:
    vector = np.random.default_rng(0).standard_normal(dimension)
    halves = (vector / np.linalg.norm(vector)).astype(np.float16)
    assert abs(cosine_distance(halves, halves)) < 1e-12
    assert cosine_distance(halves, -halves) == pytest.approx(2.0)


@settings(max_examples=100, deadline=None)
@given(
    stored=st.lists(st.tuples(angles, looks), max_size=30),
    arriving=st.lists(st.tuples(angles, looks), max_size=20),
    epsilon=st.floats(0.0, 0.3),
)
def test_foresee_batch__what_it_leaves_open_is_all_that_matters(
    stored: list[tuple[float, bytes]], arriving: list[tuple[float, bytes]], epsilon: float
) -> None:
    old = [picture(i, angle, look=look) for i, (angle, look) in enumerate(stored)]
    new = [picture(100 + i, angle, look=look) for i, (angle, look) in enumerate(arriving)]
    every = {item.object_id: [o.object_id for o in old] for item in new}
    rule, counting = NearRule(epsilon, Parity()), Counting()
    judge = Judge(NearRule(epsilon, counting))
    alive = {o.object_id: o for o in old}
    foreseen = foresee_batch(new, Kept(candidates=dict(alive)), judge, every)
    open_ones = {item.object_id: found.open for item, found in zip(new, foreseen, strict=True)}
    asked = counting.asked
    fates = decide_batch(new, Kept(candidates=dict(alive)), judge.rule, open_ones, judge)
    assert fates == decide_batch(new, Kept(candidates=dict(alive)), rule, every)
    assert counting.asked == asked  # no pair is judged again under the lock
    for found, fate in zip(foreseen, fates, strict=True):
        assert found.distance == (float("inf") if fate.distance is None else fate.distance)


class Counting(Parity):
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def agree(self, pairs: Sequence[tuple[float, bytes, bytes]]) -> list[bool]:
        self.asked += len(pairs)
        return super().agree(pairs)
