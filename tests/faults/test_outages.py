"""What fails, and what must not fail with it: refusals, outages, poison, shutdown, memory."""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

import psycopg
import pytest

from faults.consumer_process import outcomes, wait_until
from faults.harness import PlainDecoder, running
from faults.images import jpeg
from faults.lethal_consumer import LETHAL
from faults.scene import Scene, scene
from faults.stub_aws import RAW, Fault, StubAws
from pixsift.adapters.aws.sqs import SqsQueue
from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres
from pixsift.adapters.models.load import load_embedder
from pixsift.adapters.postgres.migrate import migrate
from pixsift.core.images import DecodeResult, Pixels
from pixsift.errors import DependencyDownError, DeviceLostError
from pixsift.messages import Backfill, BackfillObject
from pixsift.operations.redrive import peek
from pixsift.ports import EmbeddingResult
from pixsift_consumer.consumer import SLOW_LANE_RECEIVES


@pytest.fixture
def aws() -> Iterator[StubAws]:
    with StubAws(max_receive_count=2) as made:
        yield made


def test_consumer__one_refused_object_ends_as_failed_and_harms_nobody(
    aws: StubAws, database_url: str
) -> None:
    """403 is never "gone"; the DLQ's slow lane gives it its outcome."""
    aws.faults.append(Fault("(Get|Head)Object", 403, "AccessDenied", key="denied"))
    with running(aws, database_url) as consumer:
        aws.raw.put("first.jpg", jpeg(1))
        consumer.wait_until_drained()
        aws.raw.put("denied.jpg", jpeg(2))
        for number in range(5):
            aws.raw.put(f"{number}.jpg", jpeg(10 + number))
        consumer.wait_until_drained(seconds=120)
        found = Counter(consumer.outcomes().values())
        assert found == {("kept", "new"): 6, ("failed", "access_denied"): 1}
        assert consumer.telemetry.total("dependency_down") == 0


def test_consumer__a_refusal_of_everything_stops_receiving(aws: StubAws, database_url: str) -> None:
    """Receive counts must not burn while a policy is wrong; afterwards all is judged."""
    with running(aws, database_url) as consumer:
        aws.raw.put("first.jpg", jpeg(1))
        consumer.wait_until_drained()
        everything = Fault("(Get|Head)Object", 403, "AccessDenied")
        aws.faults.append(everything)
        for number in range(12):
            aws.raw.put(f"{number}.jpg", jpeg(10 + number))
        consumer.wait(lambda: everything.hits > 3)
        time.sleep(4)  # longer than anything was hidden for
        assert aws.ingest.most_received == 1 and not aws.dlq.messages
        aws.faults.clear()
        consumer.wait_until_drained(seconds=90)
        assert Counter(consumer.outcomes().values()) == {("kept", "new"): 13}


class LostDevice:
    """A model whose GPU falls off the bus after the first image."""

    def __init__(self) -> None:
        self._sound = load_embedder("stub")
        self.space, self.input_side = self._sound.space, self._sound.input_side
        self.batch_size = 4
        self._embedded = 0

    def embed(self, images: Sequence[Pixels]) -> EmbeddingResult:
        self._embedded += 1
        if self._embedded > 1:
            raise DeviceLostError("the device fails: CUDA error: unspecified launch failure")
        return self._sound.embed(images)


@pytest.mark.parametrize("receives", [2, 0], ids=["first lane", "slow lane"])
def test_consumer__a_lost_device_ends_it_and_no_image_pays(
    receives: int, database_url: str
) -> None:
    """Also in the slow lane, where other errors become ``failed``."""
    with (
        StubAws(max_receive_count=receives) as aws,
        running(aws, database_url, embedder=LostDevice()) as consumer,
    ):
        aws.raw.put("first.jpg", jpeg(1))
        consumer.wait_until_drained()
        for number in range(4):
            aws.raw.put(f"{number}.jpg", jpeg(10 + number))
        consumer.wait(lambda: consumer.ended_by)
        assert isinstance(consumer.ended_by[0], DeviceLostError)
        assert list(consumer.outcomes().values()) == [("kept", "new")]
        assert len(aws.ingest.messages) + len(aws.dlq.messages) == 4


def test_consumer__throttling_cuts_and_stalls_are_tried_again(
    aws: StubAws, database_url: str
) -> None:
    aws.faults += [
        Fault("GetObject", 503, "SlowDown", key="/1", times=2),
        Fault("GetObject", key="/2", times=2, cut_at=100),
        Fault("GetObject", 500, "InternalError", key="/3", times=4),  # more than the SDK tries
        Fault("PutObject", 503, "SlowDown", times=1),
        Fault("DeleteMessageBatch", 500, "InternalError", times=3),
        Fault("ReceiveMessage", 500, "InternalError", times=3),
    ]
    with running(aws, database_url) as consumer:
        for number in range(1, 5):
            aws.raw.put(f"{number}.jpg", jpeg(number))
        consumer.wait_until_drained(seconds=90)
        assert list(consumer.outcomes().values()) == [("kept", "new")] * 4
    assert len(aws.derived.keys) == 4


def test_consumer__an_object_that_vanished_is_gone(aws: StubAws, database_url: str) -> None:
    version = aws.raw.put("a.jpg", jpeg(1))
    aws.raw.keys.clear()  # without a word: no removal event
    with running(aws, database_url) as consumer:
        consumer.wait_until_drained()
        assert consumer.outcomes() == {f"a.jpg@{version.version_id}": ("gone", "deleted")}
    assert aws.calls["GetObject"] == 4, "asked twice before it is believed, by both clients"


class PoisonDecoder(PlainDecoder):
    """Fails, as a bug would, for every batch that holds a poisonous blob; notes its company."""

    def __init__(self, poison: bytes) -> None:
        super().__init__()
        self.poison = poison
        self.batches: list[int] = []

    def decode(self, blobs: Sequence[bytes]) -> list[DecodeResult]:
        if self.poison in blobs:
            self.batches.append(len(blobs))
            raise RuntimeError("poison")
        return super().decode(blobs)


def test_consumer__poison_harms_nobody_and_ends_as_failed(aws: StubAws, database_url: str) -> None:
    poison = jpeg(999)
    decoder = PoisonDecoder(poison)
    for number in range(20):
        aws.raw.put(f"{number}.jpg", poison if number == 7 else jpeg(number))
    with running(aws, database_url, decoder=decoder) as consumer:
        consumer.wait_until_drained(seconds=120)
        found = Counter(consumer.outcomes().values())
        assert found == {("kept", "new"): 19, ("failed", "internal_error"): 1}
    assert set(decoder.batches[1:]) == {1}, "after the first failure it is processed alone"
    assert not aws.dlq.messages


class DeadDecoder(PlainDecoder):
    """Down until it was asked three times."""

    def __init__(self) -> None:
        super().__init__()
        self.probes = 0

    def decode(self, blobs: Sequence[bytes]) -> list[DecodeResult]:
        if self.probes < 3:
            raise DependencyDownError("the decoder's host process was lost twice")
        return super().decode(blobs)

    def ping(self) -> None:
        self.probes += 1
        if self.probes < 3:
            raise DependencyDownError("still lost")


def test_consumer__a_dead_decoder_stops_receiving(aws: StubAws, database_url: str) -> None:
    """It says nothing about the images: none ends as failed."""
    aws.raw.put("a.jpg", jpeg(1))
    decoder = DeadDecoder()
    with running(aws, database_url, decoder=decoder) as consumer:
        consumer.wait_until_drained()
        assert list(consumer.outcomes().values()) == [("kept", "new")]
    assert decoder.probes == 3 and aws.ingest.most_received == 1, "an outage costs no attempt"


def send_as_one(aws: StubAws, bodies: Sequence[bytes]) -> None:
    """Upload objects ``0.jpg``, ``1.jpg``, ... and announce all of them in one message."""
    notify, aws.raw.notify = aws.raw.notify, lambda body: None
    objects = [
        BackfillObject(key=f"{n}.jpg", version_id=aws.raw.put(f"{n}.jpg", body).version_id)
        for n, body in enumerate(bodies)
    ]
    aws.raw.notify = notify
    aws.ingest.send(Backfill(bucket=RAW, objects=objects).model_dump_json(by_alias=True))


def test_consumer__poison_in_a_message_of_many_harms_nobody(
    aws: StubAws, database_url: str
) -> None:
    poison = jpeg(999)
    send_as_one(aws, [poison if number == 7 else jpeg(number) for number in range(20)])
    with running(aws, database_url, decoder=PoisonDecoder(poison)) as consumer:
        consumer.wait_until_drained(seconds=120)
        found = Counter(consumer.outcomes().values())
        assert found == {("kept", "new"): 19, ("failed", "internal_error"): 1}


def test_consumer__a_message_of_many_that_reaches_the_dlq_is_judged_object_by_object(
    aws: StubAws, database_url: str
) -> None:
    """As after an outage in which nothing of it was ever tried."""
    send_as_one(aws, [jpeg(number) for number in range(20)])
    [message] = aws.ingest.messages.values()
    message.receive_count = 50
    with running(aws, database_url) as consumer:
        consumer.wait_until_drained()
        assert Counter(consumer.outcomes().values()) == {("kept", "new"): 20}
        assert consumer.telemetry.total("messages_split") == 1


@pytest.mark.full
def test_consumer__what_ends_the_process_harms_nobody_in_its_message(
    database_url: str, tmp_path: Path
) -> None:
    with scene(database_url, tmp_path, max_receive_count=2) as place:
        files = [LETHAL if number == 7 else jpeg(number) for number in range(20)]
        send_as_one(place.aws, files)
        while len(outcomes(database_url)) < 19:
            die(place)
        left = [*place.aws.ingest.messages.values(), *place.aws.dlq.messages.values()]
        for message in left:  # the killer, and decided ones that were not acknowledged yet
            message.receive_count = 50  # as after many more such ends
        with place.consumer("faults.lethal_consumer"):
            wait_until(lambda: place.aws.is_drained, seconds=90, what=place.report)
        found = Counter(outcomes(database_url).values())
        assert found == {("kept", "new"): 19, ("failed", "ended_the_process"): 1}


def die(place: Scene) -> None:
    """Run a consumer until it meets what ends it, or the others have their outcomes."""
    with place.consumer("faults.lethal_consumer") as consumer:
        wait_until(
            lambda: consumer.process.poll() or len(outcomes(place.database_url)) == 19,
            seconds=90,
            what=place.report,
        )


def test_consumer__what_ended_the_process_every_time_is_given_up(
    aws: StubAws, database_url: str
) -> None:
    """Otherwise one message in the slow lane would end the process again and again."""
    version = aws.raw.put("killer.jpg", jpeg(1))
    [message] = aws.ingest.messages.values()
    message.receive_count = 2 + SLOW_LANE_RECEIVES  # the next receive is one too many
    with running(aws, database_url) as consumer:
        consumer.wait_until_drained()
        found = {f"killer.jpg@{version.version_id}": ("failed", "ended_the_process")}
        assert consumer.outcomes() == found
        assert consumer.decoder.decoded == 0 and aws.calls["GetObject"] == 0


def test_consumer__looks_at_the_dlq_do_not_condemn_what_waits_there(
    aws: StubAws, database_url: str
) -> None:
    aws.raw.put("healthy.jpg", jpeg(1))
    [message] = aws.ingest.messages.values()
    message.receive_count = 2
    assert aws.ingest.receive(1, 0) == [] and aws.dlq.messages  # its last move
    with patch.dict("os.environ", aws.environment()):
        for _ in range(5):
            peek(SqsQueue("pixsift-ingest-dlq"), 20)
    with running(aws, database_url) as consumer:
        consumer.wait_until_drained()
        assert list(consumer.outcomes().values()) == [("kept", "new")]


def test_consumer__a_removal_that_can_never_be_confirmed_becomes_an_anomaly(
    aws: StubAws, database_url: str
) -> None:
    aws.faults.append(Fault("ListObjectVersions", 400, "InvalidArgument"))
    aws.raw.delete("a.jpg")
    [message] = aws.ingest.messages.values()
    message.receive_count = 2 + SLOW_LANE_RECEIVES
    with running(aws, database_url) as consumer:
        consumer.wait_until_drained()
        with psycopg.connect(database_url) as connection:
            rows = connection.execute("SELECT reason FROM anomaly").fetchall()
        assert rows == [("gave_up",)]


def test_consumer__memory_is_bounded_by_bytes(aws: StubAws, database_url: str) -> None:
    limit = 1_000_000
    with running(aws, database_url, max_pipeline_bytes=limit) as consumer:
        for number in range(40):
            aws.raw.put(f"{number}.jpg", jpeg(number, side=512, quality=95))
        aws.raw.put("large.jpg", jpeg(99) + b"\0" * 2_000_000)  # larger than all of it: alone
        consumer.wait_until_drained(seconds=90)
        assert len(consumer.outcomes()) == 41
        budget = consumer.consumer.pipeline.budget
        assert budget.peak <= 2_300_000, "the large one alone"


def test_consumer__its_heart_beats_within_a_message_of_many(
    aws: StubAws, database_url: str, tmp_path: Path
) -> None:
    """A turn of the loop lasts as long as its messages; a healthy consumer is not to be killed."""
    heart = tmp_path / "alive"

    class Watching(PlainDecoder):
        beats: float = -1.0

        def decode(self, blobs: Sequence[bytes]) -> list[DecodeResult]:
            if self.decoded == 1:
                os.utime(heart, (0, 0))
            if self.decoded == 3:
                self.beats = heart.stat().st_mtime
            return super().decode(blobs)

    decoder = Watching()
    send_as_one(aws, [jpeg(number) for number in range(5)])
    with running(
        aws, database_url, decoder=decoder, max_in_flight=1, health_file=str(heart)
    ) as consumer:
        consumer.wait_until_drained()
    assert decoder.beats > 0


def test_consumer__too_large_is_rejected_unread(aws: StubAws, database_url: str) -> None:
    with running(aws, database_url, max_object_bytes=1000) as consumer:
        aws.raw.put("large.jpg", b"x" * 1001)
        consumer.wait_until_drained()
        assert list(consumer.outcomes().values()) == [("rejected", "too_large")]
        assert aws.calls["GetObject"] == 0


def test_consumer__works_on_while_visibility_runs_out(aws: StubAws, database_url: str) -> None:
    """Slower than the visibility timeout: the heartbeat keeps the message, once is enough."""

    class SlowDecoder(PlainDecoder):
        def decode(self, blobs: Sequence[bytes]) -> list[DecodeResult]:
            time.sleep(4.0)
            return super().decode(blobs)

    with running(aws, database_url, decoder=SlowDecoder(), visibility_timeout_seconds=2) as it:
        aws.raw.put("a.jpg", jpeg(1))
        it.wait_until_drained()
        assert list(it.outcomes().values()) == [("kept", "new")]
    assert aws.ingest.most_received == 1
    assert aws.calls["ChangeMessageVisibilityBatch"] >= 2


def test_consumer__sigterm_finishes_or_gives_back(database_url: str, tmp_path: Path) -> None:
    with scene(database_url, tmp_path) as place:
        for seed in range(20):
            place.put_mixture(seed)
        with place.consumer(PIXSIFT_STOP_SECONDS="0.2") as consumer:
            wait_until(lambda: place.aws.calls["GetObject"] > 20, seconds=90, what=place.report)
            assert consumer.stop(seconds=20) == 0
        waiting, hidden = place.aws.ingest.depth()
        assert waiting > 0 and hidden == 0, "what was not finished is there for others at once"
        place.settle()


def test_consumer__sigterm_does_not_wait_for_a_queue_that_stalls(
    database_url: str, tmp_path: Path
) -> None:
    with scene(database_url, tmp_path) as place:
        stalled = Fault("ReceiveMessage", stall_seconds=60)
        place.aws.faults.append(stalled)
        with place.consumer() as consumer:
            wait_until(lambda: stalled.hits, seconds=90, what=place.report)
            assert consumer.stop(seconds=10) == 0  # a poll of one second, and three of grace


@pytest.fixture
def server() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL of the test's own, durable: it is going to crash."""
    with tempfile.TemporaryDirectory(prefix="px-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "pg") as made:
            migrate(made.url())
            yield made


def test_consumer__postgres_restarted_under_load(server: EmbeddedPostgres, tmp_path: Path) -> None:
    """A restart and a crash: nothing lost, nothing in the DLQ, few receives spent."""
    with scene(server.url(), tmp_path, max_receive_count=6) as place:
        for seed in range(16):
            place.put_mixture(seed)
        with place.consumer():
            for mode in ("fast", "immediate"):
                wait_for_fetches(place, 15)
                server.stop(mode=mode)
                time.sleep(1)
                server.start()
            wait_until(lambda: place.aws.is_drained, seconds=120, what=place.report)
        assert place.found() == place.expected
        assert place.aws.ingest.most_received <= 5


def wait_for_fetches(place: Scene, count: int) -> None:
    goal = place.aws.calls["GetObject"] + count
    wait_until(lambda: place.aws.calls["GetObject"] >= goal, seconds=90, what=place.report)
