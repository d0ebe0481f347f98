"""Deciding again and auditing, against the brute-force oracle."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from oracle import Oracle, Picture, distance
from pixsift.core.audit import (
    DuplicateClaim,
    check_dense,
    check_duplicates,
    check_kept_pairs,
    close_pairs,
)
from pixsift.core.dedup import Image, NearRule
from pixsift.core.replay import Replay, in_blocks

EPSILON = 0.05


def pictures(seed: int, count: int, *, clusters: int = 12, spread: float = 0.08) -> list[Picture]:
    """Clustered vectors at distances on both sides of epsilon, with some equal bytes and pixels."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(clusters, 16))
    found: list[Picture] = []
    for number in range(count):
        vector = centers[rng.integers(clusters)] + spread * rng.normal(size=16)
        pixels = content = b"%d" % number
        if number and rng.random() < 0.1:  # the same pixels in another file
            earlier = found[rng.integers(number)]
            vector, pixels = earlier.vector, earlier.pixels
            content = earlier.content if rng.random() < 0.5 else content
        unit = (vector / np.linalg.norm(vector)).astype(np.float16)
        found.append(Picture(str(number), content, pixels, unit))
    return found


def image(picture: Picture) -> Image:
    return Image(int(picture.name), picture.content, picture.pixels, picture.vector)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), block=st.sampled_from([1, 3, 17, 512]))
def test_replay__equals_the_oracle(seed: int, block: int) -> None:
    known = pictures(seed, 60)
    oracle = Oracle(EPSILON)
    replay = Replay(NearRule(EPSILON), 16)
    for picture in known:
        oracle.put(picture)
    images = [image(picture) for picture in known]
    fates = [r for part in in_blocks(images, block) for r in replay.decide(part)]
    for picture, fate in zip(known, fates, strict=True):
        assert fate.outcome == oracle.outcome(picture.name)
        if fate.outcome == "duplicate":
            assert str(fate.representative_object_id) == oracle.children[picture.name]
    assert len(replay) == len(oracle.kept)
    assert not list(check_kept_pairs([i for i in images if i.object_id in replay], replay.rule))


def test_replay__a_removed_image_stands_for_nobody() -> None:
    one = image(pictures(1, 1)[0])
    twin = Image(2, b"other", one.pixel_sha256, one.embedding)
    replay = Replay(NearRule(EPSILON), 16)
    assert replay.decide([one])[0].outcome == "kept"
    replay.remove(one.object_id)
    assert replay.decide([twin])[0].outcome == "kept"


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.sampled_from([1, 7, 64]))
def test_close_pairs__all_pairs_and_no_other(seed: int, rows: int) -> None:
    images = [image(picture) for picture in pictures(seed, 40)]
    found = {(i, j) for i, j, _, _ in close_pairs(images, NearRule(EPSILON), rows_at_once=rows)}
    expected = {
        (i, j)
        for j in range(len(images))
        for i in range(j)
        if distance(images[i].embedding, images[j].embedding) <= EPSILON
        or images[i].pixel_sha256 == images[j].pixel_sha256
    }
    assert found == expected


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.sampled_from([1, 7, 64]))
def test_close_pairs__of_a_sample_each_once(seed: int, rows: int) -> None:
    images = [image(picture) for picture in pictures(seed, 40)]
    drawn = np.random.default_rng(seed).choice(40, 9, replace=False)
    every = [(i, j) for i, j, _, _ in close_pairs(images, NearRule(EPSILON))]
    found = [
        (i, j)
        for i, j, _, _ in close_pairs(images, NearRule(EPSILON), only=drawn, rows_at_once=rows)
    ]
    assert sorted(found) == sorted(p for p in every if set(p) & set(drawn.tolist()))


class NeverAgrees:
    narrow = 1.0

    def agree(self, pairs: Sequence[tuple[float, bytes, bytes]]) -> list[bool]:
        return [False for _ in pairs]


def test_close_pairs__the_second_look_counts() -> None:
    embedding: NDArray[np.float16] = np.eye(4, dtype=np.float16)[0]
    pair = [Image(n, b"c%d" % n, b"p%d" % n, embedding, b"look") for n in (1, 2)]
    assert list(close_pairs(pair, NearRule(EPSILON)))
    assert not list(close_pairs(pair, NearRule(EPSILON, NeverAgrees())))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"representative_is_kept": False}, "not kept"),
        ({"distance": 0.02}, "recomputed"),
        ({"reason": "content"}, "bytes differ"),
        ({"reason": "pixels"}, "pixels differ"),
        ({"image": None}, "missing"),
    ],
)
def test_check_duplicates__names_what_is_wrong(
    change: dict[str, object], words: str | None
) -> None:
    a = Image(1, b"a", b"a", np.array([1, 0], np.float16))
    b = Image(2, b"b", b"b", np.array([1, 0.1], np.float16))
    facts: dict[str, object] = {
        "object_id": 2, "representative": 1, "reason": "near",
        "distance": distance(a.embedding, b.embedding),
        "representative_is_kept": True, "image": b, "representative_image": a,
    } | change  # fmt: skip
    findings = list(check_duplicates([DuplicateClaim(**facts)], NearRule(EPSILON)))  # type: ignore[arg-type]
    assert [(words or "") in f.message for f in findings] == ([] if words is None else [True])


def test_check_duplicates__beyond_epsilon() -> None:
    a = Image(1, b"a", b"a", np.array([1, 0], np.float16))
    b = Image(2, b"b", b"b", np.array([1, 1], np.float16))
    claim = DuplicateClaim(2, 1, "near", distance(a.embedding, b.embedding), True, b, a)
    (finding,) = check_duplicates([claim], NearRule(EPSILON))
    assert "does not satisfy" in finding.message


def test_check_dense__gaps_and_overruns() -> None:
    assert not list(check_dense([1, 2, 3, 3], 3))
    assert "1 gaps" in next(check_dense([1, 3], 3)).message
    assert "above" in next(check_dense([1, 2, 3, 4], 3)).message
