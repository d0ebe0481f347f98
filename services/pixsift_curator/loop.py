"""The curator's main loop: one request at a time, acknowledged once it has its end."""

import random
import threading
from collections.abc import Callable

from aws_lambda_powertools import Logger

from pixsift.adapters.sqs import Message, SqsQueue
from pixsift.errors import DependencyDownError, PixsiftError, TransientError
from pixsift.worker import VisibilityHeartbeat, backoff_seconds
from pixsift_curator.curator import Curator, RequestMessage

_DOWN_PAUSE_SECONDS = 5.0


def run(
    queue: SqsQueue,
    curator: Curator,
    heartbeat: VisibilityHeartbeat,
    *,
    stop: threading.Event,
    poll_seconds: int,
    visibility_timeout_seconds: int,
    logger: Logger,
    after_each: Callable[[], None] = lambda: None,
    pause_seconds: float = _DOWN_PAUSE_SECONDS,
) -> None:
    """Serve until ``stop`` is set. A dependency that is down stops receiving, not the process."""
    while not stop.is_set():
        try:
            messages = queue.receive(
                1,
                wait_seconds=poll_seconds,
                visibility_timeout_seconds=visibility_timeout_seconds,
            )
            for message in messages:
                serve(queue, curator, heartbeat, message, stop=stop, logger=logger)
            if not messages and not stop.is_set():
                curator.resume(stop)
        except DependencyDownError as error:
            logger.error("waiting for a dependency", reason=str(error))
            stop.wait(pause_seconds)
        except TransientError as error:
            logger.warning("will try again", reason=str(error))
        after_each()


def serve(
    queue: SqsQueue,
    curator: Curator,
    heartbeat: VisibilityHeartbeat,
    message: Message,
    *,
    stop: threading.Event,
    logger: Logger,
) -> None:
    """One message: kept hidden while it is worked on, then acknowledged or given back."""
    heartbeat.watch([message])
    try:
        reaction = curator.serve(RequestMessage(queue.name, message.message_id, message.body), stop)
    except PixsiftError:
        heartbeat.forget([message])
        queue.release(
            [message], delay_seconds=backoff_seconds(message.receive_count, random.random())
        )
        raise
    heartbeat.forget([message])
    if reaction == "done":
        queue.ack([message])
    else:
        queue.release([message])
        logger.info("request handed back", message_id=message.message_id)
