"""Two models side by side: no message that another embedding space wants is acknowledged."""

import threading
import time
from collections.abc import Iterator

import pytest

from faults.harness import PlainDecoder, running
from faults.images import jpeg
from faults.stub_aws import StubAws
from faults.stub_sqs import StubQueue
from invariants import violations
from ledger_world import rows
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.models.stub_embedder import StubEmbedder
from pixsift.adapters.postgres.database import Database
from pixsift.operations.reembed import Parts, Wanted, reembed

OLD, NEW = StubEmbedder(), StubEmbedder(dimension=32, seed=8)


@pytest.fixture
def aws() -> Iterator[StubAws]:
    with StubAws() as made:
        yield made


@pytest.fixture
def second(aws: StubAws) -> StubQueue:
    """A queue for the new space; the bucket's events reach both."""
    dlq = aws.sqs.create("second-dlq", visibility_seconds=30)
    queue = aws.sqs.create("second", visibility_seconds=30, max_receive_count=10, dlq=dlq)

    def fan_out(body: str) -> None:
        aws.ingest.send(body)
        queue.send(body)

    aws.raw.notify = fan_out
    return queue


def test_shared_queue__both_spaces_get_every_object(aws: StubAws, database_url: str) -> None:
    with running(aws, database_url, embedder=NEW, collections={"other": {}}):
        pass  # makes the collection: the consumers know both from the start
    with (
        running(aws, database_url, embedder=OLD) as old,
        running(aws, database_url, embedder=NEW, collections={"other": {}}) as new,
    ):
        versions = {f"{i}.jpg": aws.raw.put(f"{i}.jpg", jpeg(i)) for i in range(8)}
        aws.raw.delete("3.jpg", versions["3.jpg"].version_id)
        old.wait_until_drained(seconds=120)
        for outcomes in (old.outcomes("test"), new.outcomes("other")):
            assert len(outcomes) == 8
            assert {outcome for outcome, _ in outcomes.values()} == {"kept", "gone"}
    assert not aws.dlq.messages


def test_shared_queue__a_message_waits_for_the_consumers_of_its_space(
    aws: StubAws, database_url: str
) -> None:
    with running(aws, database_url, embedder=OLD):
        pass  # makes the collection
    with running(aws, database_url, embedder=NEW, collections={"other": {}}) as new:
        aws.raw.put("a.jpg", jpeg(1))
        new.wait(lambda: new.outcomes("other"))
        time.sleep(1)
        assert len(aws.ingest.messages) == 1
    with running(aws, database_url, embedder=OLD) as old:
        old.wait_until_drained()
        assert list(old.outcomes().values()) == [("kept", "new")]
    (message,) = rows(database_url, "SELECT count(*) FROM anomaly")
    assert message == (0,)


@pytest.mark.full  # 25 s: three models' worth of images; the switch itself is in test_spaces
def test_own_queues__a_new_model_is_built_next_to_the_old_one_and_misses_nothing(
    aws: StubAws, second: StubQueue, database_url: str
) -> None:
    with (
        running(aws, database_url, embedder=OLD, own_queue=True) as old,
        running(
            aws, database_url, embedder=NEW, collections={}, queue="second", own_queue=True
        ) as new,
        Database(database_url, max_connections=6) as database,
    ):
        versions = {f"{i}.jpg": aws.raw.put(f"{i}.jpg", jpeg(i)) for i in range(6)}
        old.wait(lambda: len(old.outcomes()) == 6)

        def robot() -> None:
            for number in range(6, 30):
                time.sleep(0.4)
                key = f"{number}.jpg"
                versions[key] = aws.raw.put(key, jpeg(number))
                if number % 4 == 0:
                    aws.raw.delete(f"{number - 3}.jpg", versions[f"{number - 3}.jpg"].version_id)

        thread = threading.Thread(target=robot)
        thread.start()
        parts = Parts(database, S3Objects(confirm_after_seconds=0.01), PlainDecoder(), NEW)
        reembed(parts, "test", Wanted(), patience_seconds=60)
        thread.join()
        new.wait(lambda: not second.messages and not aws.ingest.messages, seconds=120)
        found = new.outcomes()
    assert len(found) == len(versions) == 30
    assert {outcome for outcome, _ in found.values()} <= {"kept", "duplicate", "gone"}
    assert violations(database_url, "test") == []
    assert rows(database_url, "SELECT DISTINCT space_id FROM collection") == [(NEW.space.space_id,)]
