"""Coverage and novelty over a real ledger whose answer is known."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from ledger_world import finding, image, ledger_of, new_collection, turned
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.postgres.database import Database
from pixsift.api import Example
from pixsift.api_coverage import CoverageAsk, NoveltyAsk
from pixsift.errors import NotFoundError
from pixsift.operations import coverage
from pixsift.pages.coverage import coverage_page

DAY = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    with ledger_of(database_url) as made:
        yield made


@pytest.fixture
def database(ledger: Ledger) -> Database:
    """References at 0 and 150 degrees; images around 25, and three around -90."""
    found = new_collection(ledger, key_pattern=r"(?P<robot>[^/]+)/.*")
    ledger.commit(found, [image("ref/0.jpg", turned(0)), image("ref/150.jpg", turned(150))])
    ledger.commit(found, [
        image("r1/25.jpg", turned(25), captured_at=DAY),
        image("r1/26.jpg", turned(26), captured_at=DAY + timedelta(days=1)),  # a duplicate
        image("r2/-70.jpg", turned(-70), captured_at=DAY),
        image("r2/-90.jpg", turned(-90), captured_at=DAY + timedelta(days=1)),
        image("r2/-110.jpg", turned(-110), stored_at=DAY + timedelta(days=1)),
        finding("r1/dark.jpg", "rejected", "black"),
    ])  # fmt: skip
    return ledger._database


def test_compare__gaps_and_regions(database: Database) -> None:
    found = coverage.compare(database, "c", CoverageAsk(radius=0.2, folder="s3://raw/ref/"))
    assert (found.references, found.images, found.gaps, found.uncovered) == (2, 4, 1, 3)
    (gap,) = found.gap_list
    assert gap.reference.uri.startswith("s3://raw/ref/150.jpg") and gap.nearest is not None
    assert gap.nearest.uri.startswith("s3://raw/r2/-110.jpg") or gap.distance is not None
    assert sum(region.images for region in found.regions) == 3
    assert abs(sum(region.share for region in found.regions) - 0.75) < 1e-9
    assert 0 <= found.image_distances["p10"] <= found.image_distances["max"]
    page = coverage_page(found, {})
    assert "150.jpg" in page and "3 images" in page and "<script" not in page


def test_compare__by_examples_and_a_radius_that_covers_all(database: Database) -> None:
    ask = CoverageAsk(radius=2, examples=[Example(uri="s3://raw/ref/0.jpg")])
    found = coverage.compare(database, None, ask)
    assert (found.references, found.images, found.gaps, found.uncovered) == (1, 5, 0, 0)
    assert found.regions == [] and found.gap_list == []


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        (CoverageAsk(radius=0.1, folder="s3://raw/none/"), "empty_reference"),
        (CoverageAsk(radius=0.1, snapshot="none"), "unknown_snapshot"),
        (CoverageAsk(radius=0.1, examples=[Example(object_id=999)]), "unknown_object"),
    ],
)
def test_compare__without_a_reference_says_so(
    database: Database, ask: CoverageAsk, code: str
) -> None:
    with pytest.raises(NotFoundError) as refused:
        coverage.compare(database, "c", ask)
    assert refused.value.code == code


def test_compare__a_collection_that_holds_nothing_else_is_all_gaps(ledger: Ledger) -> None:
    found = new_collection(ledger)
    ledger.commit(found, [image("ref/0.jpg", turned(0))])
    report = coverage.compare(ledger._database, "c", CoverageAsk(radius=1, folder="s3://raw/ref/"))
    assert (report.gaps, report.images, report.uncovered) == (1, 0, 0)
    assert report.gap_list[0].distance is None and report.reference_distances == {}


def test_novelty__by_robot_by_day_and_of_the_last_frames(database: Database) -> None:
    robots = coverage.novelty(database, "c", NoveltyAsk(by="robot", where={"robot": ["r1", "r2"]}))
    assert [(g.group, g.frames, g.kept, g.rejected) for g in robots.groups] == [
        ("r1", 2, 1, 1), ("r2", 3, 3, 0)
    ]  # fmt: skip
    assert (robots.frames, robots.kept, robots.novelty) == (5, 4, 0.8)
    last = coverage.novelty(database, "c", NoveltyAsk(by="robot", last=1, where={"robot": ["r1"]}))
    assert [(g.group, g.frames, g.kept) for g in last.groups] == [("r1", 1, 0)]
    days = coverage.novelty(database, "c", NoveltyAsk(by="day", where={"robot": ["r1", "r2"]}))
    assert [(g.group, g.frames, g.kept) for g in days.groups] == [
        ("2026-03-01", 2, 2), ("2026-03-02", 3, 2), (None, 0, 0)
    ]  # fmt: skip
    first = coverage.novelty(
        database, "c", NoveltyAsk(by="day", captured_before=DAY + timedelta(hours=1))
    )
    assert [g.group for g in first.groups] == ["2026-03-01"]
