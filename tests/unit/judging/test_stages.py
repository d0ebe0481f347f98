"""What a removal really removed, and what an erasure in between leaves of an arrival."""

from typing import Any
from unittest.mock import MagicMock, Mock

import numpy as np
import pytest

from pixsift.core.collection import Collection
from pixsift.core.events import ObjectCreated, ObjectEvent, ObjectRemoved
from pixsift.core.identity import ListedVersion, ObjectVersion
from pixsift.core.images import DecodedImage, ImageFacts
from pixsift.core.outcomes import Decision, Outcome
from pixsift.errors import (
    AccessDeniedError,
    BucketDownError,
    DependencyDownError,
    PixsiftError,
    TransientError,
)
from pixsift.judging.arrivals import Arrival
from pixsift.judging.stages import Commit, Fetch, Thumbnails
from pixsift_consumer.dependencies import SourceAccess


def gone_after_a_marker(listing: list[ListedVersion], known: list[str]) -> list[str]:
    """Version ids that a delete marker on ``raw/k`` turns into ``gone``."""
    objects, ledger, anything = Mock(), Mock(), Mock()
    objects.list_versions.return_value = listing
    ledger.versions_of.return_value = [ObjectVersion("raw", "k", name) for name in known]
    fetch = Fetch(objects, ledger, anything, max_object_bytes=1, telemetry=anything)
    arrival = Arrival(anything, ObjectRemoved("raw", "k", delete_marker=True), [])

    def reserve(size: int) -> Any:
        raise AssertionError("a removal reads no bytes")

    fetch.run(arrival, reserve)
    return [judged.version.version_id for judged in arrival.others]


def test_removed__with_versioning_suspended_the_marker_takes_the_place_of_the_object() -> None:
    marker = ListedVersion("null", is_delete_marker=True)
    assert gone_after_a_marker([marker], ["etag:a"]) == ["etag:a"]
    below = ListedVersion("v1", etag="b")
    assert gone_after_a_marker([marker, below], ["etag:a", "v1"]) == ["v1", "etag:a"]


def test_removed__an_object_that_is_still_there_stays() -> None:
    there = ListedVersion("null", etag="a")
    assert gone_after_a_marker([there], ["etag:a"]) == []


@pytest.mark.parametrize(
    "event",
    [
        ObjectRemoved("raw", "k", "v1"),  # HEAD of the version
        ObjectRemoved("raw", "k", delete_marker=True),  # LIST
        ObjectRemoved("raw", "k"),  # HEAD of the key
        ObjectCreated("raw", "k"),  # HEAD for the version
    ],
)
def test_fetch__a_refusal_is_judged_whatever_was_asked(event: ObjectEvent) -> None:
    """While a canary answers it is the object's own affair, and receiving goes on."""
    objects, anything = Mock(), Mock()
    canary = ObjectVersion("raw", "canary", "v")

    def head(bucket: str, key: str, *, version: ObjectVersion | None = None) -> None:
        if version != canary:
            raise AccessDeniedError("403")

    def list_versions(bucket: str, key: str) -> None:
        if key != canary.key:
            raise AccessDeniedError("403")

    objects.head.side_effect = head
    objects.list_versions.side_effect = list_versions
    access = SourceAccess(objects, logger=Mock(), telemetry=MagicMock(), first_pause_seconds=0.0)
    fetch = Fetch(objects, anything, access, max_object_bytes=1, telemetry=anything)
    arrival = Arrival(anything, event, [])
    with pytest.raises(BucketDownError):
        fetch.run(arrival, Mock())
    access.probe_due()
    assert access.is_down("raw")  # the very call was made again
    access.succeeded(canary, size_bytes=1)
    access.probe_due()
    assert not access.is_down("raw")
    with pytest.raises(TransientError) as raised:
        fetch.run(arrival, Mock())
    assert raised.value.reason == "access_denied"
    assert not access.is_down("raw")


@pytest.mark.parametrize(
    ("outcome", "reason", "in_use", "deleted"),
    [
        ("gone", "erased", set(), ["thumbnails/p.webp"]),
        ("gone", "erased", {b"p"}, []),  # another object has the same pixels
        ("kept", "new", set(), []),
    ],
)
def test_commit__of_an_image_erased_on_its_way_no_thumbnail_stays(
    outcome: Outcome, reason: str, in_use: set[bytes], deleted: list[str]
) -> None:
    objects, ledger, telemetry = Mock(), Mock(), MagicMock()
    version = ObjectVersion("raw", "k", "v1")
    ledger.commit.return_value = [Decision(version, 1, outcome, reason, None, None, 1, True)]
    ledger.pixels_in_use.return_value = in_use
    collection = Mock(spec=Collection, collection_id=1, quality_policy={})
    arrival = Arrival(
        Mock(), ObjectCreated("raw", "k"), [collection], version, thumbnail_key="thumbnails/p.webp",
        decoded=DecodedImage(ImageFacts("JPEG", 1, 1, "RGB"), b"p", np.empty((0, 0, 3), np.uint8)),
    )  # fmt: skip
    Commit(ledger, Thumbnails(objects, "derived", telemetry=telemetry), telemetry=telemetry).run(
        [arrival]
    )
    assert [call.args for call in objects.delete.call_args_list] == [
        ("derived", key) for key in deleted
    ]


@pytest.mark.parametrize(
    ("error", "seconds", "is_paused"),
    [
        (TransientError("503"), 0.1, False),
        (TransientError("timed out"), 20.0, True),
        (DependencyDownError("no route"), 0.1, True),
    ],
)
def test_thumbnails__a_bucket_that_does_not_answer_holds_few_images(
    error: PixsiftError, seconds: float, is_paused: bool
) -> None:
    now = [0.0]

    def put(*_: object, **__: object) -> None:
        now[0] += seconds
        raise error

    objects = Mock()
    objects.put.side_effect = put
    thumbnails = Thumbnails(objects, "derived", telemetry=MagicMock(), clock=lambda: now[0])
    for _ in range(3):
        arrival = Mock(decoded=Mock(thumbnail_webp=b"x"), thumbnail_key="k")
        thumbnails.run(arrival)
        assert arrival.thumbnail_key is None
    assert objects.put.call_count == (1 if is_paused else 3)
    now[0] += 60
    thumbnails.run(Mock(decoded=Mock(thumbnail_webp=b"x"), thumbnail_key="k"))
    assert objects.put.call_count == (2 if is_paused else 4), "and it is tried again"
