"""The lifecycle commands as processes, with a real consumer process and a stub of S3 and SQS."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faults.consumer_process import outcomes, wait_until
from faults.images import jpeg
from faults.scene import Scene, scene
from faults.stub_aws import RAW

_COMMAND = "from pixsift_cli.main import main; main()"


def pixsift(place: Scene, *arguments: str, status: Sequence[int] = (0,)) -> Any:
    """Run the command as a user would; its JSON."""
    environment = place.environment(PYTHONPATH=":".join(sys.path), PIXSIFT_MODEL="stub")
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, *arguments, "--json"],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode in status, done.stderr + done.stdout
    return json.loads(done.stdout)


def test_lifecycle__lost_events_erasure_undo_and_audit(database_url: str, tmp_path: Path) -> None:
    with scene(database_url, tmp_path) as place:
        place.put_mixture(1)
        place.put("secret", jpeg(777), "gone")
        secret = f"secret/{place.uploads}.jpg"
        with place.consumer() as consumer:

            def settled() -> None:
                wait_until(lambda: place.aws.is_drained, seconds=60, what=place.report)

            settled()
            # Events that S3 never delivered: new objects, and a deletion.
            told, place.aws.raw.notify = place.aws.raw.notify, None
            place.put_mixture(2)
            lost = next(k for k in outcomes(database_url) if k.startswith("new-1-0"))
            place.aws.raw.delete(lost.split("@")[0])
            place.aws.raw.notify = told

            (found,) = pixsift(place, "reconcile", "--older-than", "0", status=[1]).values()
            assert found["missing"] == 7  # the eighth is hidden by its delete marker
            assert found["gone"] == 1
            assert found["messages"] == 1
            settled()
            (found,) = pixsift(place, "reconcile", "--older-than", "0").values()
            assert (found["missing"], found["gone"]) == (0, 0)
            assert pixsift(place, "backfill", f"s3://{RAW}/")["missing"] == 0
            assert outcomes(database_url)[lost][0] == "gone"

            erased = pixsift(place, "erase", f"s3://{RAW}/{secret}", "--yes", "--source")
            assert (erased["vectors"], erased["source_versions"]) == (1, 1)
            place.aws.raw.put("again.jpg", jpeg(777))
            settled()
            now = {k.split("@")[0]: v for k, v in outcomes(database_url).items()}
            assert now[secret] == now["again.jpg"] == ("gone", "erased")

            cut = next(k for k, v in outcomes(database_url).items() if v[0] == "rejected")
            undone = pixsift(place, "undo", "test", f"s3://{RAW}/{cut.split('@')[0]}")
            assert len(undone["sent_again"]) == 1
            settled()
            assert outcomes(database_url)[cut][0] == "rejected"
            assert consumer.stop() == 0
        letters = pixsift(place, "dlq", "list")
        assert (letters["dlq"]["waiting"], letters["failed"]) == (0, [])
        (report,) = pixsift(place, "audit")
        assert report["findings"] == []
