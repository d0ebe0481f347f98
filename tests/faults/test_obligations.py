"""A consumer under which the ledger goes back to a time before an erasure."""

from pathlib import Path
from unittest.mock import patch

from faults.consumer_process import outcomes, wait_until
from faults.images import jpeg
from faults.restore import backup, restore
from faults.scene import Scene, scene
from faults.stub_aws import RAW
from invariants import violations
from ledger_world import rows
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.postgres.database import Database
from pixsift.operations.erase import new_erasure


def erase(place: Scene, key: str) -> None:
    with patch.dict("os.environ", place.environment()), Database(place.database_url) as database:
        eraser = new_erasure(
            database, S3Objects(), derived_bucket="pixsift-derived",
            curated_bucket="pixsift-curated", journal_bucket="pixsift-curated",
        )  # fmt: skip
        eraser.erase(eraser.find(RAW, key, None), reason="ticket 7")


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
