"""What comes back after it was gone, in a bucket without versioning."""

from datetime import UTC, datetime

import pytest

from pixsift.core.identity import ObjectVersion
from pixsift.core.outcomes import Ended, Finding, Judged, comes_back, replaces

EARLY, LATE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("version", "finding", "sequencer", "stored_at", "ended", "expected"),
    [
        # by S3's order of events, padded on the right
        ("etag:x", "embedded", "0A3", EARLY, Ended("0A2", LATE), True),
        ("etag:x", "embedded", "0A3", LATE, Ended("0A31", EARLY), False),
        ("etag:x", "rejected", "0a3", None, Ended("0A2", None), True),
        # by the time of the write, where there is no order of events
        ("etag:x", "embedded", None, LATE, Ended("0A2", EARLY), True),
        ("etag:x", "embedded", None, EARLY, Ended(None, EARLY), False),
        ("etag:x", "embedded", "0A3", None, Ended(None, EARLY), False),
        ("file:1-2-3", "embedded", None, LATE, Ended(None, EARLY), True),
        # a version of its own never comes back; what is gone does not either
        ("v1", "embedded", "0A3", LATE, Ended("0A2", EARLY), False),
        ("etag:x", "gone", "0A3", LATE, Ended("0A2", EARLY), False),
    ],
)
def test_comes_back(
    *, version: str, finding: Finding, sequencer: str | None, stored_at: datetime | None,
    ended: Ended, expected: bool,
) -> None:  # fmt: skip
    item = Judged(
        ObjectVersion("raw", "a", version), finding, sequencer=sequencer, stored_at=stored_at
    )
    assert comes_back(item, ended) == expected


def test_replaces__an_erasure_is_for_good() -> None:
    assert replaces("embedded", "", "gone", "overwritten", came_back=True)
    assert not replaces("embedded", "", "gone", "overwritten")
    assert not replaces("embedded", "", "gone", "erased", came_back=True)
