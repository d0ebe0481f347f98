"""A consumer under which the ledger goes back to a time before an erasure."""

from pathlib import Path
from unittest.mock import patch

from faults.consumer_process import outcomes, wait_until
from faults.images import jpeg
from faults.restore import backup, restore
from faults.scene import Scene, scene
from faults.stub_aws import CURATED, RAW, Fault
from invariants import violations
from ledger_world import rows
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.postgres.database import Database
from pixsift.core.identity import S3Uri
from pixsift.operations.erase import new_erasure
from pixsift.operations.obligations import obligations_of
from pixsift.operations.rule import rule


def erase(place: Scene, key: str) -> None:
    with patch.dict("os.environ", place.environment()), Database(place.database_url) as database:
        eraser = new_erasure(
            database, S3Objects(), derived_bucket="pixsift-derived",
            curated_bucket="pixsift-curated", journal_bucket="pixsift-curated",
        )  # fmt: skip
        eraser.erase(eraser.find(RAW, key, None), reason="ticket 7")


def say(place: Scene, kind: str, key: str) -> None:
    with patch.dict("os.environ", place.environment()), Database(place.database_url) as database:
        rule(
            database, "test", kind, [S3Uri(RAW, key)], why="seen", who="ann",
            obligations=obligations_of(database, S3Objects(), "pixsift-curated"),
        )  # fmt: skip


def test_consumer__meets_the_journal_before_it_decides_in_a_restored_ledger(
    database_url: str, tmp_path: Path
) -> None:
    """Ten images, a backup, one of them erased, the backup back; then its bytes once more."""
    with scene(database_url, tmp_path) as place, place.consumer() as consumer:
        for seed in range(10):
            place.put(f"g{seed}", jpeg(seed), "kept")
        wait_until(lambda: place.aws.is_drained, seconds=120, what=place.report)
        secret = next(key for key in place.group_of if place.group_of[key] == "g0").split("@")[0]
        with backup(database_url) as copy:
            erase(place, secret)
            restore(database_url, copy)
        place.put("again", jpeg(0), "gone")
        place.put("near", jpeg(0, quality=80), "kept")  # what was erased filters nothing
        wait_until(lambda: place.aws.is_drained, seconds=120, what=place.report)
        found = {key.split("@")[0]: value for key, value in outcomes(database_url).items()}
        assert found[secret] == ("gone", "erased")
        assert found["again/11.jpg"] == ("gone", "erased")
        assert found["near/12.jpg"][0] == "kept"
        assert rows(database_url, "SELECT count(*) FROM obligation") == [(1,)]
        assert violations(database_url, "test") == []
        assert consumer.stop() == 0, consumer.log_text()


def test_consumer__obeys_the_rulings_of_the_journal_before_it_decides(
    database_url: str, tmp_path: Path
) -> None:
    """A backup, then two rulings, the backup back: the consumer that runs on obeys them."""
    with scene(database_url, tmp_path) as place, place.consumer() as consumer:
        place.put("g0", jpeg(0), "kept")
        # Of two at once, either may be kept.
        wait_until(lambda: place.aws.is_drained, seconds=120, what=place.report)
        place.put("g0", jpeg(0, quality=80), "duplicate")
        place.put("g1", jpeg(1), "kept")
        wait_until(lambda: place.aws.is_drained, seconds=120, what=place.report)
        first, near, other = (f"{key}.jpg" for key in ("g0/1", "g0/2", "g1/3"))
        with backup(database_url) as copy:
            say(place, "also_keep", near)
            say(place, "useless", other)
            restore(database_url, copy)
        place.put("g2", jpeg(2), "kept")
        wait_until(lambda: place.aws.is_drained, seconds=120, what=place.report)
        found = {key.split("@")[0]: value for key, value in outcomes(database_url).items()}
        assert found[near] == ("kept", "ruled") and found[other] == ("rejected", "ruled")
        assert found[first] == ("kept", "new") and found["g2/4.jpg"][0] == "kept"
        assert rows(database_url, "SELECT kind, count(*) FROM obligation GROUP BY kind") == [
            ("ruling", 2)
        ]
        assert violations(database_url, "test") == []
        assert consumer.stop() == 0, consumer.log_text()


def test_consumer__a_journal_that_is_away_costs_no_image(database_url: str, tmp_path: Path) -> None:
    """In a restored ledger nothing can be decided without the journal: that is an outage."""
    with scene(database_url, tmp_path, max_receive_count=2) as place, place.consumer() as consumer:
        place.put("g0", jpeg(0), "kept")
        wait_until(lambda: place.aws.is_drained, seconds=120, what=place.report)
        with backup(database_url) as copy:
            say(place, "useless", "g0/1.jpg")
            restore(database_url, copy)
        fault = Fault("GetObject|ListObjectVersions", key=f"/{CURATED}")
        place.aws.faults.append(fault)
        place.put("g1", jpeg(1), "kept")
        asked = fault.hits
        wait_until(lambda: fault.hits >= asked + 6, seconds=120, what=place.report)
        assert place.aws.ingest.messages and not place.aws.dlq.messages, place.report()
        place.aws.faults.clear()
        wait_until(lambda: place.aws.is_drained, seconds=120, what=place.report)
        found = {key.split("@")[0]: value for key, value in outcomes(database_url).items()}
        assert found == {"g0/1.jpg": ("rejected", "ruled"), "g1/2.jpg": ("kept", "new")}
        assert place.aws.dlq.most_received == 0, "an outage costs no attempt"
        assert consumer.stop() == 0, consumer.log_text()
