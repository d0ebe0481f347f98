"""A stub AWS, a PostgreSQL and consumers on the device: for the phases that need the whole."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.bench_pipeline import RAW, facts, ledger_of, rate_while, stub, wait_for
from bench.device.options import Options
from faults.consumer_process import ConsumerProcess, outcomes
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres

_MODULE = "bench.device.consumer_main"


@dataclass(frozen=True, slots=True)
class World:
    """One server, one stub; each run gets a database of its own."""

    server: EmbeddedPostgres
    url: str
    options: Options

    @contextmanager
    def ledger(self, name: str, model: Path) -> Iterator[str]:
        """A fresh database with a collection of the model's space; its URL."""
        with ledger_of(self.server, name, str(model)) as database_url:
            yield database_url

    def consumer(
        self, database_url: str, model: Path, *, batch: int, log: str,
        more: Mapping[str, str] | None = None,
    ) -> ConsumerProcess:  # fmt: skip
        """A consumer on the device; its log is next to the figures."""
        environment = {
            **{name: value for name, value in os.environ.items()
               if name.startswith(("AWS_", "LD_", "CUDA_", "PYTHON"))},
            "PIXSIFT_DATABASE_URL": database_url, "PIXSIFT_MODEL": str(model),
            "PIXSIFT_DEVICE": self.options.device, "PIXSIFT_MAX_BATCH": str(batch),
            "PIXSIFT_MAX_IN_FLIGHT": str(4 * batch), "PIXSIFT_LOG_LEVEL": "WARNING",
            "PIXSIFT_POLL_SECONDS": "1", "PIXSIFT_FETCH_THREADS": "16", **(more or {}),
        }  # fmt: skip
        return ConsumerProcess(environment, log=self.options.out / f"{log}.log", module=_MODULE)

    def upload(self, images: list[bytes]) -> None:
        """Many at a time: the stub's own speed is the limit."""
        objects = S3Objects()
        with ThreadPoolExecutor(8) as threads:
            for done in [threads.submit(objects.put, RAW, f"{number}.jpg", image)
                         for number, image in enumerate(images)]:  # fmt: skip
                done.result()

    def left(self) -> int:
        """Messages not acknowledged, the dead-letter queue's included."""
        told = facts(self.url)
        return int(told["left"]) + int(told["dlq"])

    def drain(self) -> None:
        wait_for(self.url, 0, self.options.patience)

    def rate(self, count: int) -> float:
        """Images per second between the first and the last tenth."""
        return rate_while(self.url, count, patience=self.options.patience)

    def decided(self, database_url: str) -> dict[str, tuple[str, str]]:
        return outcomes(database_url)


@contextmanager
def world(options: Options) -> Iterator[World]:
    """Everything started; stopped afterwards."""
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedPostgres(options.work / f"pg-{options.phase}"))
        url = stack.enter_context(stub())
        yield World(server, url, options)


def kept_pairs_of(database_url: str) -> int:
    """Objects with the same pixels that were both kept: there must be none."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM (SELECT 1 FROM representative"
            " GROUP BY collection_id, generation, pixel_sha256 HAVING count(*) > 1) AS twice"
        ).fetchone()
    assert row is not None
    return int(row[0])
