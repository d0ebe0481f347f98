"""Near-duplicate races: threads that commit variants of one image at the same moment."""

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier, BrokenBarrierError

import numpy as np
from numpy.typing import NDArray

from ledger_world import DIMENSION, finding, image, ledger_of, new_collection
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.core.outcomes import Judged
from pixsift.errors import DependencyDownError, TransientError


@dataclass(frozen=True, slots=True)
class Races:
    """How a run is made; the seed decides the images and the pauses, not the interleaving."""

    rounds: int
    """In a round every thread commits variants of the round's image at once."""
    threads: int = 2
    images: int = 2
    """Per thread and round."""
    pauses: bool = True
    removals: bool = True
    """Whether now and then a representative is deleted while others arrive."""
    seed: int = 7
    sharpness: bool = False
    """Whether images are of different sharpness."""

    @property
    def count(self) -> int:
        """Races: pairs of transactions after the same image at the same moment."""
        return self.rounds * self.threads * (self.threads - 1) // 2


def run(url: str, races: Races, prepare: Callable[[Ledger], None] = lambda ledger: None) -> int:
    """Run the races in a collection ``c``; returns the number of transactions committed."""
    barrier = Barrier(races.threads, timeout=60)
    chance = random.Random(races.seed)

    def pause(point: str) -> None:
        # One point in six waits for up to two milliseconds: wide enough for others to pass by.
        if races.pauses and chance.random() < 1 / 6:
            time.sleep(chance.random() * 0.002)

    with ledger_of(url, pause=pause, max_connections=races.threads + 2) as ledger:
        prepare(ledger)
        collection = new_collection(ledger)

        def racer(number: int) -> int:
            committed = 0
            try:
                for index in range(races.rounds):
                    batch = _batch(races, number, index)
                    barrier.wait()
                    committed += _commit(ledger, collection, batch)
            except BrokenBarrierError:
                pass  # another racer failed, and says why
            except BaseException:
                barrier.abort()
                raise
            return committed

        with ThreadPoolExecutor(races.threads) as pool:
            return sum(pool.map(racer, range(races.threads)))


def _commit(ledger: Ledger, collection: object, batch: list[Judged]) -> int:
    while True:
        try:
            ledger.commit(collection, batch)  # type: ignore[arg-type]
            return 1
        except (TransientError, DependencyDownError):  # a lost race, or a lock not to be had
            continue  # as the queue would: the same batch once more


def _batch(races: Races, number: int, index: int) -> list[Judged]:
    """Variants of the round's image, now and then of the round before; one may be deleted."""
    chance = np.random.default_rng((races.seed, number, index))
    batch = [
        image(
            f"{index}/{number}/{i}",
            _variant(races, index - int(chance.random() < 0.2), chance),
            quality={"sharpness": float(chance.random())} if races.sharpness else None,
        )
        for i in range(races.images)
    ]
    if races.removals and index > 1 and chance.random() < 0.15:
        victim = f"{index - 1}/{chance.integers(races.threads)}/{chance.integers(races.images)}"
        batch.append(finding(victim, "gone", "deleted"))
    return batch


def _variant(races: Races, index: int, chance: np.random.Generator) -> NDArray[np.float16]:
    """Near the round's direction: variants are 0.01 to 0.06 from each other, around epsilon."""
    center = np.random.default_rng((races.seed, max(index, 0))).standard_normal(DIMENSION)
    center /= np.linalg.norm(center)
    noisy = center + chance.standard_normal(DIMENSION) * 0.035
    return (noisy / np.linalg.norm(noisy)).astype(np.float16)
