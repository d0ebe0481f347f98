"""``pixsift-consumer``: wire the parts, check that each dependency answers, run until SIGTERM."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from aws_lambda_powertools import Logger

from pixsift.adapters.decode import DecodeLimits, DecoderPool, forbid_inspection, recipe_id
from pixsift.adapters.ledger import Ledger
from pixsift.adapters.migrate import pending
from pixsift.adapters.models import load_embedder
from pixsift.adapters.postgres import Database
from pixsift.adapters.s3 import S3Objects
from pixsift.adapters.search import new_search
from pixsift.adapters.sqs import SqsQueue
from pixsift.config import ConsumerSettings
from pixsift.errors import DependencyDownError, PixsiftError, UserError
from pixsift.ports import Embedder
from pixsift.telemetry import Telemetry, make_logger
from pixsift.worker import StopSignal
from pixsift_consumer import faults
from pixsift_consumer.dependencies import Dependencies, SourceAccess
from pixsift_consumer.faults import FaultPoints
from pixsift_consumer.inbox import Inbox
from pixsift_consumer.intake import Collections, Intake
from pixsift_consumer.loop import Loop
from pixsift_consumer.pipeline import Limits, Pipeline
from pixsift_consumer.stages import Commit, Decode, Embed, Fetch, Thumbnails

_HOUSEKEEPING_SECONDS = 0.2
_METRICS_EVERY = 50
"""Turns of the housekeeping between two EMF documents: ten seconds."""


def main() -> None:
    """Run the consumer; exit 2 for a wrong setting, 3 for a dependency that does not answer."""
    settings = ConsumerSettings()
    logger = make_logger("pixsift-consumer", settings.log_level)
    try:
        forbid_inspection()
        run(settings, logger)
    except UserError as error:
        _give_up(logger, error, 2)
    except DependencyDownError as error:
        _give_up(logger, error, 3)


def run(settings: ConsumerSettings, logger: Logger) -> None:
    """Build everything, then loop until SIGTERM or SIGINT."""
    embedder = _load(settings)
    with StopSignal() as stop, ExitStack() as stack:
        telemetry = Telemetry("pixsift-consumer")
        points = FaultPoints(os.environ.get(faults.VARIABLE, ""))
        database = stack.enter_context(Database(_database_url(settings), max_connections=6))
        search = new_search(
            database,
            settings.search,
            memory_bytes=settings.search_memory_bytes,
            device=settings.search_device,
        )
        ledger = Ledger(database, search=search, pause=points.passed)
        objects = S3Objects(connections=settings.fetch_threads + 8)
        queue = SqsQueue(settings.ingest_queue)
        dlq = SqsQueue(settings.ingest_dlq)
        _verify(settings, ledger, objects, queue, dlq)
        ledger.ensure_space(embedder.space)

        access = SourceAccess(objects)
        dependencies = Dependencies(
            {"PostgreSQL": ledger.ping, "SQS": queue.depth, "S3": access.probe},
            logger=logger,
            telemetry=telemetry,
        )
        decoder = stack.enter_context(
            DecoderPool(
                embedder.input_side,
                workers=settings.decode_workers,
                limits=DecodeLimits(max_bytes=settings.max_object_bytes),
            )
        )
        pipeline = Pipeline(
            fetch=Fetch(
                objects,
                ledger,
                access,
                max_object_bytes=settings.max_object_bytes,
                telemetry=telemetry,
            ),
            decode=Decode(decoder, ledger, space_id=embedder.space.space_id, telemetry=telemetry),
            thumbnails=Thumbnails(objects, settings.derived_bucket, telemetry=telemetry),
            embed=Embed(embedder, ledger, telemetry=telemetry),
            commit=Commit(ledger, telemetry=telemetry),
            dependencies=dependencies,
            limits=Limits(
                max_in_flight=settings.max_in_flight,
                max_bytes=settings.max_pipeline_bytes,
                fetch_threads=settings.fetch_threads,
                embed_batch=embedder.batch_size,
            ),
            faults=points,
            logger=logger,
            telemetry=telemetry,
        )
        inbox, slow_lane = (
            stack.enter_context(
                Inbox(
                    each,
                    visibility_timeout_seconds=settings.visibility_timeout_seconds,
                    deadline_seconds=settings.message_deadline_seconds,
                    logger=logger,
                    last_chance=each is dlq,
                )
            )
            for each in (queue, dlq)
        )
        collections = Collections(ledger, embedder.space.space_id)
        loop = Loop(
            inbox=inbox,
            slow_lane=slow_lane,
            intake=Intake(ledger, collections, logger=logger, telemetry=telemetry),
            collections=collections,
            pipeline=pipeline,
            dependencies=dependencies,
            faults=points,
            logger=logger,
            telemetry=telemetry,
            poll_seconds=settings.poll_seconds,
            slow_lane_every_seconds=settings.slow_lane_every_seconds,
            turned=_health(settings.health_file),
        )
        logger.info("started", extra={"model": embedder.space.model,
                                      "space_id": embedder.space.space_id})  # fmt: skip
        with _housekeeping(inbox, slow_lane, pipeline, points, telemetry):
            loop.run(stop)
            logger.info("stopping", extra={"in_flight": pipeline.in_flight})
            pipeline.finish(settings.stop_seconds)
        logger.info("stopped")


def _load(settings: ConsumerSettings) -> Embedder:
    embedder = load_embedder(
        settings.model,
        revision=settings.model_revision,
        device=settings.device,
        max_batch=settings.max_batch,
        weights_sha256=settings.model_weights_sha256,
        compiled=settings.torch_compile,
    )
    if embedder.space.recipe_id != recipe_id(embedder.input_side):
        raise UserError(
            f"model {settings.model} expects pixels by recipe {embedder.space.recipe_id}, this "
            f"decoder makes {recipe_id(embedder.input_side)}: use the release that wrote it"
        )
    return embedder


def _database_url(settings: ConsumerSettings) -> str:
    url = settings.database_url.get_secret_value()
    if not url:
        raise UserError("no ledger: set PIXSIFT_DATABASE_URL, or start the local loop: pixsift up")
    return url


def _verify(
    settings: ConsumerSettings,
    ledger: Ledger,
    objects: S3Objects,
    queue: SqsQueue,
    dlq: SqsQueue,
) -> None:
    """Each dependency answers now, or the process does not start."""
    ledger.ping()
    if names := pending(_database_url(settings)):
        raise UserError(f"the ledger lacks {', '.join(names)}: run pixsift migrate")
    queue.depth()
    dlq.depth()
    objects.check_bucket(settings.derived_bucket)


def _health(path: str) -> Callable[[], None]:
    if not path:
        return lambda: None
    file = Path(path)
    return file.touch


@contextmanager
def _housekeeping(
    inbox: Inbox,
    slow_lane: Inbox,
    pipeline: Pipeline,
    points: FaultPoints,
    telemetry: Telemetry,
) -> Iterator[None]:
    """Acknowledgements and metrics beside the loop; what is left is sent at the end."""
    done = threading.Event()

    def keep_house() -> None:
        turn = 0
        while not done.wait(_HOUSEKEEPING_SECONDS):
            turn += 1
            if inbox.flush_acks() + slow_lane.flush_acks():
                points.passed("acked")
            if turn % _METRICS_EVERY == 0:
                _observe(inbox, pipeline, telemetry)

    thread = threading.Thread(target=keep_house, name="housekeeping", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        inbox.flush_acks(everything=True)
        slow_lane.flush_acks(everything=True)
        telemetry.flush()


def _observe(inbox: Inbox, pipeline: Pipeline, telemetry: Telemetry) -> None:
    telemetry.observe("in_flight", pipeline.in_flight)
    try:
        waiting, _ = inbox.queue.depth()
        telemetry.observe("backlog", waiting)
    except PixsiftError:
        pass  # a figure less; the loop notices an outage by itself
    telemetry.flush()


def _give_up(logger: Logger, error: PixsiftError, status: int) -> None:
    logger.error(str(error))
    sys.stderr.write(f"pixsift-consumer: {error}\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
