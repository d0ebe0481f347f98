"""A real consumer on LocalStack: notifications in, outcomes out."""

from pathlib import Path
from typing import Any

import pytest

from faults.consumer_process import ConsumerProcess, outcomes, wait_until
from faults.images import jpeg, truncated
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.local.events_stack import EventsStack
from pixsift.adapters.local.localstack import LocalStackPlace
from pixsift.adapters.models.load import load_embedder
from pixsift.adapters.postgres.database import Database
from pixsift.core.sources import SourceRule

pytestmark = pytest.mark.localstack


@pytest.fixture
def ledger(database_url: str) -> Any:
    with Database(database_url) as database:
        yield Ledger(database)


def test_consumer__every_upload_has_its_outcome(  # noqa: PLR0917 - fixtures
    localstack: LocalStackPlace,
    localstack_session: Any,
    events_stack: EventsStack,
    database_url: str,
    ledger: Ledger,
    tmp_path: Path,
) -> None:
    space = load_embedder("stub").space
    ledger.ensure_space(space)
    raw = events_stack.raw_bucket
    rule = SourceRule(raw, exclude=("*.json",))
    ledger.create_collection("test", sources=[rule], space_id=space.space_id, epsilon=0.02)
    s3 = localstack_session.client("s3")
    sent: dict[str, str] = {}

    def put(key: str, body: bytes) -> str:
        version: str = s3.put_object(Bucket=raw, Key=key, Body=body)["VersionId"]
        sent[key] = f"{key}@{version}"
        return version

    environment = {
        **localstack.environment(),
        **events_stack.environment(),
        "PIXSIFT_DATABASE_URL": database_url,
        "PIXSIFT_POLL_SECONDS": "1",
        "PIXSIFT_HEALTH_FILE": str(tmp_path / "alive"),
    }
    with ConsumerProcess(environment, log=tmp_path / "log") as consumer:
        put("one.jpg", jpeg(1))
        put("robot 2/a+b näher %25.jpg", jpeg(2))
        wait_until(lambda: len(outcomes(database_url)) == 2, seconds=90, what=consumer.log_text)
        put("again.jpg", jpeg(1))
        put("cut.jpg", truncated(3))
        put("text.jpg", b"not an image")
        put("empty.jpg", b"")
        put("sidecar.json", b"{}")
        put("deleted.jpg", jpeg(4))
        s3.delete_object(Bucket=raw, Key="deleted.jpg")
        wait_until(
            lambda: (
                len(outcomes(database_url)) == 7
                and outcomes(database_url).get(sent["deleted.jpg"], ("",))[0] == "gone"
            ),
            seconds=90,
            what=consumer.log_text,
        )
        found = outcomes(database_url)
        assert found[sent["one.jpg"]] == ("kept", "new")
        assert found[sent["robot 2/a+b näher %25.jpg"]] == ("kept", "new")
        assert found[sent["again.jpg"]] == ("duplicate", "content")
        assert found[sent["cut.jpg"]] == ("rejected", "truncated")
        assert found[sent["text.jpg"]] == ("rejected", "not_an_image")
        assert found[sent["empty.jpg"]] == ("rejected", "empty")
        assert sent["sidecar.json"] not in found
        assert (tmp_path / "alive").exists()
        assert consumer.stop() == 0
    thumbnails = s3.list_objects_v2(Bucket=events_stack.derived_bucket, Prefix="thumbnails/")
    assert thumbnails["KeyCount"] >= 2
