"""Bounded hand-over between stages: by count in a queue, by bytes in the whole pipeline."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from pixsift.threads import Clock

T = TypeVar("T")


class BatchQueue(Generic[T]):
    """A bounded queue whose reader takes batches: at most N, or what came within T of the first.

    The age window starts when the oldest item came, so an idle reader never waits longer than T,
    and items that waited while the reader was busy do not wait again. After closing, readers finish
    what is there and then get empty batches.
    """

    def __init__(self, capacity: int, *, clock: Clock = time.monotonic) -> None:
        self._items: deque[tuple[float, T]] = deque()
        """With the time each came."""
        self._capacity = capacity
        self._clock = clock
        self._closed = False
        # Two conditions over one lock: waking every thread for every item costs more than the item.
        lock = threading.Lock()
        self._readable = threading.Condition(lock)
        self._writable = threading.Condition(lock)

    def put(self, item: T) -> None:
        """Hand over ``item``; blocks while the queue is full. Dropped once it is closed."""
        with self._writable:
            self._writable.wait_for(lambda: self._closed or len(self._items) < self._capacity)
            if not self._closed:
                self._items.append((self._clock(), item))
                self._readable.notify()

    def take(self, limit: int, wait: Callable[[], float] = lambda: 0.0) -> list[T]:
        """At least one item, at most ``limit``; empty only when the queue is closed.

        wait: called once the first item is there; returns how many seconds it may wait for more.
        """
        limit = min(limit, self._capacity)
        with self._readable:
            while True:
                self._readable.wait_for(lambda: self._closed or bool(self._items))
                if not self._items:
                    return []
                self._gather(limit, wait)
                if self._items:  # else another reader was faster
                    break
            batch = [self._items.popleft()[1] for _ in range(min(limit, len(self._items)))]
            self._writable.notify(len(batch))
            if self._items:
                self._readable.notify()
            return batch

    def close(self) -> None:
        """No more items; wakes all waiting threads."""
        with self._readable:
            self._closed = True
            self._readable.notify_all()
            self._writable.notify_all()

    def _gather(self, limit: int, wait: Callable[[], float]) -> None:
        """Wait until there is a full batch, or the oldest item has waited long enough."""
        until = self._items[0][0] + wait()
        while self._items and len(self._items) < limit and not self._closed:
            left = until - self._clock()
            if left <= 0:
                return
            self._readable.wait(left)


class InOrder(Generic[T]):
    """Hands items on in the order of their numbers, 0, 1, 2, ...; each is put or skipped once."""

    def __init__(self, hand_on: Callable[[T], None]) -> None:
        """hand_on: called under a lock, so it must not wait."""
        self._hand_on = hand_on
        self._lock = threading.Lock()
        self._next = 0
        self._held: dict[int, T | None] = {}
        """Items that came before their turn; None: skipped."""

    def put(self, number: int, item: T) -> None:
        """Hand ``item`` on when its turn comes."""
        self._take(number, item)

    def skip(self, number: int) -> None:
        """Do not wait for this number; harmless once its turn has passed."""
        self._take(number, None)

    def _take(self, number: int, item: T | None) -> None:
        with self._lock:
            if number < self._next:
                return
            self._held[number] = item
            while self._next in self._held:
                found = self._held.pop(self._next)
                self._next += 1
                if found is not None:
                    self._hand_on(found)


class ByteBudget:
    """How many bytes the pipeline may hold; one reservation larger than all of it goes alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._changed = threading.Condition()
        self._turn = threading.Lock()
        self.peak = 0

    def resize(self, held: int, wanted: int) -> int:
        """Change a reservation from ``held`` to ``wanted`` bytes; blocks only to grow.

        Each holder grows once, when it holds nothing, so no one waits while holding. Waiting
        requests are served in order: small ones cannot starve a large one.
        """
        more = wanted - held
        if more > 0:
            with self._turn:
                self._add(more, when=lambda: self._used + more <= self._limit or self._used == held)
        else:
            self._add(more, when=lambda: True)
        return wanted

    def _add(self, more: int, *, when: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(when)
            self._used += more
            self.peak = max(self.peak, self._used)
            self._changed.notify_all()
