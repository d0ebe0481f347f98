"""``pixsift-curator``: serves snapshot requests until it is asked to stop.

Wiring only: settings, adapters, a check that each dependency answers, run.
"""

import os
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from pixsift.adapters.aws.event_bus import EventBus
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.aws.s3_stream import StreamWriter
from pixsift.adapters.aws.sqs import SqsQueue
from pixsift.adapters.aws.thread_copier import ThreadCopier
from pixsift.adapters.ledger.login import ledger_login
from pixsift.adapters.ledger.snapshots import Snapshots
from pixsift.adapters.postgres.database import Database
from pixsift.adapters.postgres.migrate import check_migrated
from pixsift.config import CuratorSettings
from pixsift.errors import LoginRefusedError, PixsiftError, UserError
from pixsift.health import Heartbeat
from pixsift.operations.export import Exporter, ExportSettings
from pixsift.operations.obligations import obligations_of
from pixsift.operations.resolve import resolve
from pixsift.operations.serve_request import renew_lease
from pixsift.remedies import one_line
from pixsift.serving import Lane, Pace, run
from pixsift.telemetry import Telemetry, make_logger
from pixsift.worker import StopSignal, VisibilityHeartbeat
from pixsift_curator.curator import Curator
from pixsift_curator.lease import Lease

FAULT_VARIABLE = "PIXSIFT_FAULT_POINT"
"""Test hook: the process kills itself (SIGKILL) when it reaches this point the n-th time, as in
``image_copied:3``. Points: claimed, image_copied, copied, file_written, shard_written, described,
descriptor_written."""

_STOP_SECONDS = 28.0
"""Longest time of a stop, even if a call hangs: below the 30 s that container platforms give."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the process.

    Exit 2 for a wrong setting, 3 for a dependency that does not answer, 5 for a login that
    PostgreSQL went on refusing.
    """
    ArgumentParser(
        prog="pixsift-curator",
        description="Serves snapshot requests until SIGTERM. It takes no arguments: environment "
        "variables PIXSIFT_* configure it (docs/settings.md).",
    ).parse_args(arguments)
    try:
        serve(CuratorSettings())
    except PixsiftError as error:
        sys.stderr.write(f"pixsift-curator: {one_line(error)}\n")
        sys.exit(_status(error))


def _status(error: PixsiftError) -> int:
    if isinstance(error, UserError):
        return 2
    return 5 if isinstance(error, LoginRefusedError) else 3


def serve(settings: CuratorSettings) -> None:
    """Wire, verify, run until SIGTERM or SIGINT."""
    logger = make_logger("pixsift-curator", settings.log_level)
    login = ledger_login(
        settings.database_url.get_secret_value(),
        secret=settings.database_secret,
        iam=settings.database_iam,
    )
    telemetry = Telemetry("pixsift-curator", stage=settings.stage)
    queue = SqsQueue(settings.snapshot_queue, longest_poll_seconds=settings.request_poll_seconds)
    objects = S3Objects()
    # One connection for the work, one for the lease. A pool of millions takes its time to read.
    with (
        Database(
            login,
            max_connections=4,
            connect_seconds=settings.database_connect_seconds,
            session={"statement_timeout": "10min"},
        ) as database,
        StopSignal(limit_seconds=_STOP_SECONDS, logger=logger) as stop,
    ):
        snapshots = Snapshots(database)
        exporter = Exporter(
            ExportSettings(
                bucket=settings.curated_bucket,
                lease_seconds=settings.lease_seconds,
                shard_bytes=settings.shard_bytes,
                give_up_seconds=settings.request_give_up_seconds,
            ),
            snapshots=snapshots,
            copier=ThreadCopier(settings.curated_bucket, concurrency=settings.copy_concurrency),
            objects=objects,
            writer=StreamWriter(settings.curated_bucket),
            keep_lease=partial(
                Lease,
                partial(renew_lease, snapshots, seconds=settings.lease_seconds),
                seconds=settings.lease_seconds,
                logger=logger,
            ),
            logger=logger,
            at_point=fault_point(os.environ.get(FAULT_VARIABLE, "")),
        )
        spill_dir = Path(settings.spill_dir) if settings.spill_dir else None
        curator = Curator(
            snapshots=snapshots,
            resolve=partial(resolve, database, spill_dir=spill_dir),
            exporter=exporter,
            events=EventBus(settings.event_bus),
            logger=logger,
            telemetry=telemetry,
        )
        queue.depth()
        objects.check_bucket(settings.curated_bucket)
        snapshots.unfinished()
        check_migrated(login)
        obligations = obligations_of(database, objects, settings.journal)
        obligations.catch_up()

        def meet_and_write() -> None:
            obligations.ensure()
            try:
                obligations.write_rulings()
            except PixsiftError as error:
                logger.warning("rulings not journaled", reason=str(error))

        logger.info("curator ready", queue=queue.name, bucket=settings.curated_bucket)
        dead_letters = SqsQueue(settings.snapshot_dead_letters)
        with (
            VisibilityHeartbeat(
                queue,
                visibility_timeout_seconds=settings.visibility_timeout_seconds,
                deadline_seconds=settings.request_deadline_seconds,
                logger=logger,
            ) as heartbeat,
            VisibilityHeartbeat(
                dead_letters,
                visibility_timeout_seconds=settings.visibility_timeout_seconds,
                deadline_seconds=settings.request_deadline_seconds,
                logger=logger,
            ) as last_heartbeat,
        ):
            run(
                Lane(queue, heartbeat),
                curator,
                Pace(
                    settings.request_poll_seconds,
                    settings.visibility_timeout_seconds,
                    give_up=settings.request_give_up_seconds,
                    longest=settings.request_deadline_seconds,
                ),
                dead_letters=Lane(dead_letters, last_heartbeat, is_last=True),
                stop=stop,
                logger=logger,
                before_each=meet_and_write,
                after_each=telemetry.flush,
                health=Heartbeat(settings.health_file),
            )
        logger.info("curator stopped")


def fault_point(setting: str) -> Callable[[str], None]:
    """The function to call at named points: it does nothing, or ends this process at one of
    them."""
    name, _, count = setting.partition(":")
    left = {name: int(count or 1)} if name else {}

    def at_point(point: str) -> None:
        if point in left:
            left[point] -= 1
            if left[point] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return at_point


if __name__ == "__main__":
    main()
