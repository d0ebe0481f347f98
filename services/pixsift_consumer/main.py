"""``pixsift-consumer``: wire the parts, check that each dependency answers, run until SIGTERM."""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np
from aws_lambda_powertools import Logger

from pixsift.adapters.aws.event_bus import EventBus
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.aws.sqs import SqsQueue
from pixsift.adapters.decode.pool import (
    DecodeLimits,
    DecoderPool,
    forbid_inspection,
    seccomp_available,
)
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.ledger.login import ledger_login
from pixsift.adapters.postgres.database import Database
from pixsift.adapters.postgres.migrate import check_migrated
from pixsift.adapters.search.choose import new_search
from pixsift.config import ConsumerSettings
from pixsift.errors import (
    DependencyDownError,
    DeviceLostError,
    LoginRefusedError,
    PixsiftError,
    SettingError,
    UserError,
)
from pixsift.operations.announce import announce_hits
from pixsift.operations.embedder import ModelChoice, load
from pixsift.operations.obligations import obligations_of
from pixsift.ports import Embedder
from pixsift.remedies import one_line
from pixsift.telemetry import Telemetry, make_logger
from pixsift.worker import StopSignal
from pixsift_consumer import faults
from pixsift_consumer.consumer import Adapters, Consumer
from pixsift_consumer.faults import FaultPoints

_STOP_GRACE_SECONDS = 14.0
"""For the running calls when SIGTERM comes; the poll comes on top."""
_LONGEST_POLL_SECONDS = 8
"""Of those that a stop waits for; a stop stays below 30 s in total."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the consumer.

    Exit 2 for a wrong setting, 3 for a dependency that does not answer, 4 for an accelerator that
    failed, 5 for a login that PostgreSQL went on refusing.
    """
    ArgumentParser(
        prog="pixsift-consumer",
        description="Judges images as they land in S3, until SIGTERM. It takes no arguments: "
        "environment variables PIXSIFT_* configure it (docs/settings.md).",
    ).parse_args(arguments)
    logger = make_logger("pixsift-consumer")
    try:
        settings = ConsumerSettings()
        logger.setLevel(settings.log_level.upper())
        forbid_inspection()
        warn_if_unconfined(logger)
        run(settings, logger)
    except UserError as error:
        _give_up(logger, error, 2)
    except DeviceLostError as error:
        _give_up(logger, error, 4)
    except LoginRefusedError as error:
        _give_up(logger, error, 5)
    except DependencyDownError as error:
        _give_up(logger, error, 3)


def warn_if_unconfined(logger: Logger) -> None:
    """Log that one of the decoder's locks is missing here."""
    if not seccomp_available():
        logger.warning(
            "libseccomp is missing: the decoder's processes may make any system call "
            "(pixsift doctor lists the locks that hold; see docs/decoding.md)"
        )


def run(settings: ConsumerSettings, logger: Logger) -> None:
    """Build everything, then loop until SIGTERM or SIGINT."""
    embedder = load(ModelChoice.of(settings))
    login = ledger_login(
        settings.database_url.get_secret_value(),
        secret=settings.database_secret,
        iam=settings.database_iam,
    )
    poll = min(settings.poll_seconds, _LONGEST_POLL_SECONDS)
    limit = settings.stop_seconds + poll + _STOP_GRACE_SECONDS
    with StopSignal(limit_seconds=limit, logger=logger) as stop, ExitStack() as stack:
        points = FaultPoints(os.environ.get(faults.VARIABLE, ""))
        database = stack.enter_context(
            Database(login, max_connections=6, connect_seconds=settings.database_connect_seconds)
        )
        search = new_search(
            database,
            settings.search,
            memory_bytes=settings.search_memory_bytes,
            device=settings.search_device,
        )
        decoder = DecoderPool(
            embedder.input_side,
            workers=settings.decode_workers,
            limits=_decode_limits(settings),
        )
        objects = S3Objects(connections=settings.fetch_threads + 8, quick=True)
        obligations = obligations_of(database, objects, settings.journal)
        adapters = Adapters(
            ledger=Ledger(
                database, search=search, actor="consumer", pause=points.passed, duties=obligations
            ),
            objects=objects,
            obligations=obligations,
            queue=SqsQueue(settings.ingest_queue, longest_poll_seconds=settings.poll_seconds),
            dlq=SqsQueue(settings.ingest_dlq, longest_poll_seconds=0),
            decoder=stack.enter_context(decoder),
            embedder=embedder,
            announce=partial(announce_hits, database, EventBus(settings.event_bus).announce_all),
        )
        _verify(settings, adapters)
        check_migrated(login)
        if repeated := obligations.catch_up():
            logger.warning("obligations of the journal met", extra={"entries": repeated})
        adapters.ledger.ensure_space(embedder.space)
        telemetry = Telemetry("pixsift-consumer", stage=settings.stage)
        Consumer(adapters, settings, faults=points, logger=logger, telemetry=telemetry).run(stop)


def _decode_limits(settings: ConsumerSettings) -> DecodeLimits:
    return DecodeLimits(
        formats=tuple(settings.decode_formats.split(",")),
        max_bytes=settings.max_object_bytes,
        max_pixels=settings.decode_max_pixels,
        memory_bytes=settings.decode_memory_bytes,
        wall_seconds=settings.decode_wall_seconds,
    )


def _verify(settings: ConsumerSettings, adapters: Adapters) -> None:
    """Check that each dependency answers; otherwise the process does not start."""
    adapters.ledger.ping()
    adapters.queue.depth()
    adapters.dlq.depth()
    adapters.objects.check_bucket(settings.derived_bucket)
    adapters.decoder.ping()
    _try_model(adapters.embedder)


def _try_model(embedder: Embedder) -> None:
    """Embed one image, so that an error of every image shows at the start."""
    ramp = np.arange(embedder.input_side**2 * 3, dtype=np.uint32) % 251
    image = ramp.astype(np.uint8).reshape(embedder.input_side, embedder.input_side, 3)
    if failures := embedder.embed([image]).failures:
        raise SettingError(
            f"model {embedder.space.model} makes no vector of a test image ({failures[0]}): "
            "are its weights sound? set PIXSIFT_MODEL to another copy"
        )


def _give_up(logger: Logger, error: PixsiftError, status: int) -> None:
    logger.error(one_line(error), extra={"code": error.code})
    sys.stderr.write(f"pixsift-consumer: {one_line(error)}\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
