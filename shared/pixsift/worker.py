"""What both queue services share: the stop signal, the visibility heartbeat, settling messages.

The invariant: a message is acknowledged only after the outcomes of all its objects are committed.
Correctness does not depend on this module: if a heartbeat fails, an ack is lost or a process dies,
the message only comes back and finds its outcome.
"""

import signal
import threading
import time
from collections.abc import Sequence
from types import FrameType

from aws_lambda_powertools import Logger

from pixsift.adapters.aws.sqs import MAX_BATCH, Message, SqsQueue
from pixsift.errors import PixsiftError
from pixsift.threads import STOPPED_LATE, Clock, end_process, start_guarded

CLOSING_SECONDS = 5.0
"""How long a stop waits for a call that is running in another thread."""
_MAX_BACKOFF_SECONDS = 300


class StopSignal:
    """SIGTERM and SIGINT as an event; a context manager that puts the old handlers back.

    ``limit_seconds`` after the signal, the process is ended even if a call still waits: a call must
    not outlast the time that the process was given.
    """

    def __init__(self, *, limit_seconds: float | None = None, logger: Logger | None = None) -> None:
        self.event = threading.Event()
        self._limit = limit_seconds
        self._logger = logger
        self._ended = threading.Event()
        self._previous: dict[int, object] = {}

    def __enter__(self) -> threading.Event:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._stop)
        if self._limit is not None:
            threading.Thread(target=self._watch, name="stop-watch", daemon=True).start()
        return self.event

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _watch(self) -> None:
        while not self.event.wait(0.5):
            if self._ended.is_set():
                return
        if not self._ended.wait(self._limit):
            end_process(STOPPED_LATE, self._tell)

    def _tell(self) -> None:
        if self._logger is not None:
            self._logger.error("not stopped in time: a dependency hangs; ending now")

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.event.set()


def backoff_seconds(receive_count: int, jitter: float) -> int:
    """How long to hide a message after its n-th failed try: 2, 4, 8, ... at most 300 s.

    ``jitter`` in [0, 1) takes off up to half, so that messages that failed together are not retried
    together.
    """
    ceiling = min(2.0 ** min(max(receive_count, 1), 16), _MAX_BACKOFF_SECONDS)
    return max(1, round(ceiling * (1 - jitter / 2)))


class VisibilityHeartbeat:
    """Keeps the messages in hand hidden while they are worked on, until a deadline per message.

    A message is extended once a third of its hidden time has passed, ten per call. After
    ``deadline_seconds`` it is no longer extended and comes back by itself: its work is stuck.
    """

    def __init__(
        self,
        queue: SqsQueue,
        *,
        visibility_timeout_seconds: float,
        deadline_seconds: float,
        logger: Logger,
        clock: Clock = time.monotonic,
    ) -> None:
        self._queue = queue
        self._timeout = visibility_timeout_seconds
        self._deadline = deadline_seconds
        self._logger = logger
        self._clock = clock
        self._lock = threading.Lock()
        self._hidden_until: dict[str, tuple[Message, float]] = {}
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "VisibilityHeartbeat":
        self._thread = start_guarded(self._run, name="heartbeat", logger=self._logger)
        return self

    def __exit__(self, *_: object) -> None:
        self._wake.set()
        if self._thread is not None:
            self._thread.join(CLOSING_SECONDS)

    def watch(self, messages: Sequence[Message]) -> None:
        """Begin to keep ``messages`` hidden; their time counts from when they were received."""
        with self._lock:
            for message in messages:
                until = message.received_at + self._timeout
                self._hidden_until[message.receipt_handle] = (message, until)

    def forget(self, messages: Sequence[Message]) -> None:
        """Stop extending ``messages``."""
        with self._lock:
            for message in messages:
                self._hidden_until.pop(message.receipt_handle, None)

    def beat(self) -> int:
        """Extend what is due, drop what is past its deadline; the number extended."""
        now = self._clock()
        with self._lock:
            held = list(self._hidden_until.values())
        overdue = [m for m, _ in held if now - m.received_at > self._deadline]
        if overdue:
            self._logger.warning("messages past their deadline are left to come back",
                                 extra={"messages": [m.message_id for m in overdue]})  # fmt: skip
            self.forget(overdue)
        late = {m.receipt_handle for m in overdue}
        due = [
            m for m, until in held
            if until - now < 2 * self._timeout / 3 and m.receipt_handle not in late
        ]  # fmt: skip
        if due:
            self._queue.extend(due, round(self._timeout))
            with self._lock:
                for message in due:
                    if message.receipt_handle in self._hidden_until:
                        until = now + self._timeout
                        self._hidden_until[message.receipt_handle] = (message, until)
        return len(due)

    def _run(self) -> None:
        while not self._wake.wait(self._timeout / 6):
            try:
                self.beat()
            except PixsiftError as error:
                # Not fatal: the messages come back and find their outcomes.
                self._logger.warning("heartbeat failed", extra={"error": str(error)})


class AckBuffer:
    """Gathers finished messages into full batches of ten, so that an image costs 0.1 calls.

    A batch that is not full is sent once its oldest message has waited ``max_wait_seconds``.
    """

    def __init__(
        self, queue: SqsQueue, *, max_wait_seconds: float = 3.0, clock: Clock = time.monotonic
    ) -> None:
        self._queue = queue
        self._max_wait = max_wait_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: list[Message] = []
        self._since = 0.0
        self._sent_at: float | None = None
        """When a flush last succeeded while something waited; None: nothing waits."""

    @property
    def stuck_seconds(self) -> float:
        """For how long messages have waited while no acknowledgement came through."""
        with self._lock:
            return 0.0 if self._sent_at is None else self._clock() - self._sent_at

    def add(self, messages: Sequence[Message]) -> None:
        """Acknowledge ``messages`` soon; their outcomes are committed."""
        with self._lock:
            if messages and not self._waiting:
                self._since = self._sent_at = self._clock()
            self._waiting.extend(messages)

    def flush(self, *, everything: bool = False) -> list[Message]:
        """Send full batches, and what has waited long enough; returns what was sent.

        What could not be sent waits for the next flush, and the error is raised.
        """
        with self._lock:
            waited = bool(self._waiting) and self._clock() - self._since >= self._max_wait
            full = len(self._waiting) // MAX_BATCH * MAX_BATCH
            count = len(self._waiting) if everything or waited else full
            ready, self._waiting = self._waiting[:count], self._waiting[count:]
            if ready:
                self._since = self._clock()
        try:
            self._queue.ack(ready)
        except PixsiftError:
            with self._lock:
                self._waiting = ready + self._waiting
            raise
        if ready:
            with self._lock:
                self._sent_at = self._clock() if self._waiting else None
        return ready
