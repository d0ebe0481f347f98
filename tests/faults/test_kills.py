"""kill -9 at every named point and at random: the ledger is that of an undisturbed run."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.scene import Scene, scene
from pixsift_consumer.faults import POINTS


@pytest.fixture
def place(database_url: str, tmp_path: Path) -> Iterator[Scene]:
    # Fifteen kills may hit the same message; its receives are not what is tested here.
    with scene(database_url, tmp_path, max_receive_count=1000) as made:
        yield made


def kill_at(place: Scene, point: str, passage: int) -> None:
    """Start a consumer that dies at the given passage of a point, and see it die."""
    with place.consumer(PIXSIFT_FAULT_POINT=f"{point}:{passage}") as consumer:
        assert consumer.process.wait(90) == -9, consumer.log_text()


def kill_at_random(place: Scene, chance: random.Random) -> None:
    """Start a consumer, let it fetch something, kill it a moment later."""
    before = place.aws.calls["GetObject"]
    with place.consumer() as consumer:
        until = time.monotonic() + 90
        while place.aws.calls["GetObject"] == before and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        consumer.kill()


def kills(place: Scene, *, at_points: int, at_random: int, seed: int) -> None:
    chance = random.Random(seed)
    plan = [POINTS[n % len(POINTS)] for n in range(at_points)] + ["random"] * at_random
    for number, point in enumerate(plan):
        place.put_mixture(number)
        if point == "random":
            kill_at_random(place, chance)
        else:
            # "acked" comes once a second at most, the others once or more per batch.
            kill_at(place, point, 1 if point == "acked" else chance.randint(1, 3))
    place.settle()


def test_consumer__an_undisturbed_run(place: Scene) -> None:
    for seed in range(3):
        place.put_mixture(seed)
    place.settle()


def test_consumer__killed_at_every_point_and_at_random(place: Scene) -> None:
    kills(place, at_points=len(POINTS), at_random=1, seed=1)


@pytest.mark.full
def test_consumer__killed_forty_times(place: Scene) -> None:
    kills(place, at_points=28, at_random=12, seed=2)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_consumer__killed_five_hundred_times(place: Scene, seed: int) -> None:
    """Ten runs of fifty, each with a ledger of its own."""
    kills(place, at_points=30, at_random=20, seed=100 + seed)
