"""The whole consumer in this process, on the stub AWS and a real PostgreSQL, with parts to swap."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from unittest.mock import patch

from faults.consumer_process import outcomes, wait_until
from faults.stub_aws import RAW, StubAws
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.aws.sqs import SqsQueue
from pixsift.adapters.decode.pool import DecodeLimits
from pixsift.adapters.decode.recipe import decode_image
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.models.load import load_embedder
from pixsift.adapters.postgres.database import Database
from pixsift.config import ConsumerSettings
from pixsift.core.images import DecodeResult
from pixsift.core.sources import SourceRule
from pixsift.errors import PixsiftError
from pixsift.operations.announce import Send, announce_hits
from pixsift.ports import Embedder
from pixsift.telemetry import Telemetry, make_logger
from pixsift_consumer.consumer import Adapters, Consumer
from pixsift_consumer.faults import FaultPoints


class PlainDecoder:
    """Decodes in this process: tests of the consumer trust their images."""

    def __init__(self) -> None:
        self.decoded = 0

    def decode(self, blobs: Sequence[bytes]) -> list[DecodeResult]:
        self.decoded += len(blobs)
        return [decode_image(blob, 224, DecodeLimits()) for blob in blobs]

    def ping(self) -> None:
        """There is nothing that could be down."""


@dataclass(slots=True, eq=False)
class Harness:
    """A running consumer and what surrounds it."""

    aws: StubAws
    ledger: Ledger
    database_url: str
    consumer: Consumer
    decoder: PlainDecoder
    telemetry: Telemetry
    stop: threading.Event
    ended_by: list[PixsiftError] = field(default_factory=list)
    """What made the consumer end by itself."""

    def outcomes(self, collection: str = "test") -> dict[str, tuple[str, str]]:
        return outcomes(self.database_url, collection)

    def wait(self, holds: Callable[[], object], *, seconds: float = 60.0) -> None:
        wait_until(holds, seconds=seconds, what=self.report)

    def wait_until_drained(self, *, seconds: float = 60.0) -> None:
        """Both queues are empty, nothing is hidden."""
        self.wait(lambda: self.aws.is_drained, seconds=seconds)

    def report(self) -> str:
        return (
            f"ingest {list(self.aws.ingest.messages.values())[:5]}, dlq "
            f"{list(self.aws.dlq.messages.values())[:5]}, {self.outcomes()}"
        )


@contextmanager
def running(
    aws: StubAws,
    database_url: str,
    *,
    decoder: PlainDecoder | None = None,
    embedder: Embedder | None = None,
    collections: Mapping[str, Mapping[str, object]] = MappingProxyType({"test": {}}),
    rule: SourceRule | Sequence[SourceRule] = SourceRule(RAW),  # noqa: B008  (frozen)
    queue: str = "pixsift-ingest",
    send: Send | None = None,
    faults: FaultPoints | None = None,
    **settings: object,
) -> Iterator[Harness]:
    """Run a consumer until the block ends; it must stop within thirty seconds.

    collections: name -> quality policy. send: takes what is announced of watches. faults: gets
    every named point that is passed.
    """
    embedder = embedder or load_embedder("stub")
    decoder = decoder or PlainDecoder()
    logger = make_logger("test", "CRITICAL")
    telemetry = Telemetry("test")
    stop = threading.Event()
    with patch.dict("os.environ", aws.environment()), Database(database_url) as database:
        faults = faults or FaultPoints()
        ledger = Ledger(database, pause=faults.passed)
        ledger.ensure_space(embedder.space)
        rules = [rule] if isinstance(rule, SourceRule) else list(rule)
        known = {collection.name for collection in ledger.collections()}
        for name in sorted(set(collections) - known):
            ledger.create_collection(
                name, sources=rules, space_id=embedder.space.space_id,
                epsilon=0.01, quality_policy=collections[name],
            )  # fmt: skip
        options: dict[str, object] = {
            "poll_seconds": 1, "slow_lane_every_seconds": 0.5, "stop_seconds": 5.0,
            "visibility_timeout_seconds": 2, "max_batch": 8,
        }  # fmt: skip
        consumer = Consumer(
            Adapters(
                ledger=ledger,
                objects=S3Objects(confirm_after_seconds=0.01, quick=True),
                queue=SqsQueue(queue),
                dlq=SqsQueue(f"{queue}-dlq"),
                decoder=decoder,
                embedder=embedder,
                announce=None if send is None else partial(announce_hits, database, send),
            ),
            ConsumerSettings.model_validate(options | settings),
            faults=faults,
            logger=logger,
            telemetry=telemetry,
        )
        harness = Harness(aws, ledger, database_url, consumer, decoder, telemetry, stop)

        def run() -> None:
            try:
                consumer.run(stop)
            except PixsiftError as error:
                harness.ended_by.append(error)

        thread = threading.Thread(target=run, name="consumer")
        thread.start()
        try:
            yield harness
        finally:
            stop.set()
            thread.join(30)
            assert not thread.is_alive(), "the consumer does not stop"
