"""Hand-over between stages."""

import threading
import time

from pixsift.judging.batching import BatchQueue, ByteBudget, InOrder


def test_take__what_is_there_up_to_the_limit() -> None:
    queue: BatchQueue[int] = BatchQueue(10)
    for number in range(5):
        queue.put(number)
    assert queue.take(3) == [0, 1, 2]
    assert queue.take(3) == [3, 4]


def test_take__the_window_starts_at_the_first_item() -> None:
    """An idle reader does not wait for company longer than the window, however long it idled."""
    queue: BatchQueue[int] = BatchQueue(10)
    got: list[tuple[list[int], float]] = []

    def read() -> None:
        batch = queue.take(8, lambda: 1.0)
        got.append((batch, time.monotonic()))

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(1.1)  # longer than the window: it must not have begun
    first = time.monotonic()
    queue.put(1)
    time.sleep(0.1)
    queue.put(2)
    reader.join(20)
    [(batch, at)] = got
    assert batch == [1, 2]
    assert 0.9 < at - first < 10


def test_take__waits_for_a_full_batch_while_the_oldest_is_young() -> None:
    now = [0.0]
    queue: BatchQueue[int] = BatchQueue(10, clock=lambda: now[0])
    queue.put(1)
    now[0] = 5.0  # the reader was busy meanwhile
    assert queue.take(8, lambda: 4.0) == [1]
    queue.put(2)
    threading.Timer(0.05, lambda: queue.put(3)).start()
    assert queue.take(2, lambda: 4.0) == [2, 3]


def test_take__many_readers_and_writers_lose_nothing() -> None:
    queue: BatchQueue[int] = BatchQueue(4)
    got: list[int] = []

    def read() -> None:
        while batch := queue.take(3, lambda: 0.001):
            got.extend(batch)

    def write(number: int) -> None:
        for item in range(500):
            queue.put(number * 500 + item)

    readers = [threading.Thread(target=read) for _ in range(4)]
    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join(20)
    deadline = time.monotonic() + 20
    while len(got) < 2000 and time.monotonic() < deadline:
        time.sleep(0.01)
    queue.close()
    for thread in readers:
        thread.join(5)
        assert not thread.is_alive()
    assert sorted(got) == list(range(2000))


def test_close__wakes_readers_and_drops_late_items() -> None:
    queue: BatchQueue[int] = BatchQueue(1)
    queue.put(1)
    threading.Timer(0.05, queue.close).start()
    queue.put(2)  # full: blocks until the close, then is dropped
    assert queue.take(5) == [1]
    assert queue.take(5) == []


def test_budget__blocks_until_there_is_room() -> None:
    budget = ByteBudget(100)
    held = budget.resize(0, 80)
    entered = threading.Event()

    def second() -> None:
        budget.resize(0, 40)
        entered.set()

    threading.Thread(target=second, daemon=True).start()
    assert not entered.wait(0.1)
    budget.resize(held, 10)
    assert entered.wait(5)
    assert budget.peak == 80


def test_budget__one_larger_than_all_of_it_goes_alone() -> None:
    budget = ByteBudget(100)
    assert budget.resize(0, 500) == 500
    entered = threading.Event()

    def second() -> None:
        budget.resize(0, 1)
        entered.set()

    threading.Thread(target=second, daemon=True).start()
    assert not entered.wait(0.1)
    budget.resize(500, 0)
    assert entered.wait(5)


def test_budget__a_large_one_is_not_passed_by_small_ones() -> None:
    budget = ByteBudget(100)
    budget.resize(0, 60)
    order: list[int] = []

    def grow(size: int) -> None:
        budget.resize(0, size)
        order.append(size)

    threads = [threading.Thread(target=grow, args=(size,)) for size in (90, 10)]
    for thread in threads:
        thread.start()
        time.sleep(0.3)  # the large one asks first, and would have to wait
    assert order == []
    budget.resize(60, 0)
    for thread in threads:
        thread.join(5)
    assert order == [90, 10]


def test_in_order__hands_on_by_number_whatever_comes_first() -> None:
    handed: list[str] = []
    order = InOrder(handed.append)
    order.put(2, "c")
    order.put(1, "b")
    assert handed == []
    order.put(0, "a")
    assert handed == ["a", "b", "c"]


def test_in_order__nobody_waits_for_a_skipped_number() -> None:
    handed: list[str] = []
    order = InOrder(handed.append)
    order.put(1, "b")
    order.skip(0)
    order.skip(1)  # what was handed on ends later: no second time
    order.put(2, "c")
    assert handed == ["b", "c"]
