"""Serves the messages of a queue one at a time; each is acknowledged when its work is finished."""

import random
import threading
from collections.abc import Callable
from typing import Literal, Protocol

from aws_lambda_powertools import Logger

from pixsift.adapters.aws.sqs import Message, SqsQueue
from pixsift.errors import DependencyDownError, LoginRefusedError, TransientError
from pixsift.health import Heartbeat
from pixsift.operations.serve_request import RequestMessage
from pixsift.worker import VisibilityHeartbeat, backoff_seconds

_DOWN_PAUSE_SECONDS = 5.0
Reaction = Literal["done", "stopped"]
"""``done``: acknowledge; ``stopped``: hand the message back at once."""


class Handler(Protocol):
    """What is done with a message, and while there are none."""

    def serve(self, message: RequestMessage, stop: threading.Event) -> Reaction: ...

    def resume(self, stop: threading.Event) -> bool: ...


def run(
    queue: SqsQueue,
    handler: Handler,
    heartbeat: VisibilityHeartbeat,
    *,
    stop: threading.Event,
    poll_seconds: int,
    visibility_timeout_seconds: int,
    logger: Logger,
    before_each: Callable[[], None] = lambda: None,
    after_each: Callable[[], None] = lambda: None,
    pause_seconds: float = _DOWN_PAUSE_SECONDS,
    health: Heartbeat | None = None,
    longest_seconds: float = 43_200.0,
) -> None:
    """Serve until ``stop`` is set. A dependency that is down stops receiving, not the process. A
    bug does not stop it either: one request must not block those behind it. before_each: called
    before a request is served or resumed; what it raises sends the message back. longest_seconds:
    how long one request may take before the health check fails. Raises LoginRefusedError, where
    only a new process can continue.
    """
    health = health or Heartbeat("")
    while not stop.is_set():
        health.touch()
        try:
            messages = queue.receive(
                1,
                wait_seconds=poll_seconds,
                visibility_timeout_seconds=visibility_timeout_seconds,
            )
            with health.busy(longest_seconds):
                for message in messages:
                    serve(
                        queue, handler, heartbeat, message,
                        stop=stop, logger=logger, before=before_each,
                    )  # fmt: skip
                if not messages and not stop.is_set():
                    before_each()
                    handler.resume(stop)
        except LoginRefusedError as error:
            health.refuse(str(error))
            raise
        except DependencyDownError as error:
            logger.error("waiting for a dependency", reason=str(error))
            stop.wait(pause_seconds)
        except TransientError as error:
            logger.warning("will try again", reason=str(error))
        except Exception:
            logger.exception("unexpected error outside a request: pausing")
            stop.wait(pause_seconds)
        after_each()


def serve(
    queue: SqsQueue,
    handler: Handler,
    heartbeat: VisibilityHeartbeat,
    message: Message,
    *,
    stop: threading.Event,
    logger: Logger,
    before: Callable[[], None] = lambda: None,
) -> None:
    """One message: kept hidden while it is worked on, then acknowledged or given back.

    After a bug it comes back later, and after its last receive the queue moves it to its DLQ.
    """
    heartbeat.watch([message])
    try:
        before()
        reaction = handler.serve(RequestMessage(queue.name, message.message_id, message.body), stop)
    except (TransientError, DependencyDownError):
        _release_later(queue, heartbeat, message)
        raise
    except Exception:
        logger.exception("unexpected error while serving a request", message_id=message.message_id,
                         receive_count=message.receive_count)  # fmt: skip
        _release_later(queue, heartbeat, message)
        return
    heartbeat.forget([message])
    if reaction == "done":
        queue.ack([message])
    else:
        queue.release([message])
        logger.info("request returned to the queue", message_id=message.message_id)


def _release_later(queue: SqsQueue, heartbeat: VisibilityHeartbeat, message: Message) -> None:
    heartbeat.forget([message])
    queue.release([message], delay_seconds=backoff_seconds(message.receive_count, random.random()))
