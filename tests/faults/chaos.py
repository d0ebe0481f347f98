"""A chaos run: robots, outages, kills and operators at the same time, on the real processes.

Everything is drawn from one seed; what the clock does is not, so a seed names a mixture and not a
course. Every few minutes the disturbances stop, the consumers drain their queues, and the oracle
(``chaos_oracle``) looks at the ledger.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from faults.chaos_oracle import World, complaints, leftovers
from faults.consumer_process import ROOT, ConsumerProcess, wait_until
from faults.images import jpeg, truncated
from faults.restore import backup, restore
from faults.stub_aws import RAW, Fault, StubAws
from faults.stub_sqs import StubQueue
from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres

FIRST, SECOND = "test", "second"
_SECOND_MODEL = "faults.second_model"
_DRAIN_SECONDS = 240.0
_UPLOADS_PER_SECOND = 4.0


@dataclass(slots=True, eq=False)
class Place:
    """Where it happens: S3 and SQS of the stub, PostgreSQL, and three consumers of two models."""

    aws: StubAws
    queues: dict[str, StubQueue]
    """By collection: each space has its own, as behind SNS."""
    server: EmbeddedPostgres
    folder: Path

    def environment(self, collection: str) -> dict[str, str]:
        queue = self.queues[collection].name
        return {
            **self.aws.environment(),
            "PIXSIFT_DATABASE_URL": self.server.url(),
            "PIXSIFT_INGEST_QUEUE": queue, "PIXSIFT_INGEST_DLQ": f"{queue}-dlq",
            "PIXSIFT_OWN_QUEUE": "true",
            "PIXSIFT_VISIBILITY_TIMEOUT_SECONDS": "5", "PIXSIFT_POLL_SECONDS": "1",
            "PIXSIFT_SLOW_LANE_EVERY_SECONDS": "0.5", "PIXSIFT_LOG_LEVEL": "WARNING",
            "PIXSIFT_DECODE_WORKERS": "1",
        }  # fmt: skip

    @property
    def is_drained(self) -> bool:
        return all(
            not queue.messages and (queue.dlq is None or not queue.dlq.messages)
            for queue in self.queues.values()
        )

    def send(self, body: str) -> None:
        for queue in self.queues.values():
            queue.send(body)


@dataclass(slots=True, eq=False)
class Chaos:
    """One run."""

    place: Place
    chance: random.Random
    world: World = field(default_factory=World)
    done: Counter[str] = field(default_factory=Counter)
    """How often each thing was done."""
    bodies: list[bytes] = field(default_factory=list)
    """Everything uploaded so far, to be uploaded again."""
    events: list[str] = field(default_factory=list)
    consumers: dict[str, ConsumerProcess] = field(default_factory=dict)
    stopped: dict[str, float] = field(default_factory=dict)
    """Consumers that hang, and until when."""
    seeds: int = 0

    # -- the robots -------------------------------------------------------------------------

    def upload(self) -> None:
        kind = self.chance.choices(
            ("new", "same", "near", "broken", "overwrite"), weights=(50, 12, 20, 6, 12)
        )[0]
        key = f"r{self.chance.randrange(4)}/{len(self.world.uploads):06d}.jpg"
        if kind == "overwrite" and self.world.uploads:
            key = self.chance.choice(list(self.world.uploads))[0]
        if kind == "same" and self.bodies:
            body = self.chance.choice(self.bodies)
        elif kind == "near" and self.seeds:
            seed, quality = self.chance.randrange(self.seeds), self.chance.randint(60, 95)
            body = jpeg(seed, quality=quality)
        elif kind == "broken":
            body = truncated(100_000 + len(self.world.uploads))
        else:
            body = jpeg(self.seeds)
            self.seeds += 1
        version = self.place.aws.raw.put(key, body)
        self.world.add(key, version.version_id, body)
        self.bodies.append(body)
        self.done[f"upload {kind}"] += 1

    def delete_version(self) -> None:
        if name := self._any_live():
            self.place.aws.raw.delete(*name)
            self.world.gone.add(name)
            self.done["delete"] += 1

    def delete_marker(self) -> None:
        if name := self._any_live():
            key = name[0]
            self.place.aws.raw.delete(key)
            self.world.gone |= {each for each in self.world.uploads if each[0] == key}
            self.done["delete marker"] += 1

    def deliver_again(self) -> None:
        for _ in range(self.chance.randint(1, 20)):
            if self.events:
                self.place.send(self.chance.choice(self.events))
                self.done["delivered again"] += 1

    def garbage(self) -> None:
        text = self.chance.choice(
            ["{", "[]", "\0", '{"Records": [{}]}', '{"Records": [{"eventName": "x", "s3": 7}]}',
             '{"schema": "pixsift.backfill/99"}', "x" * 2000]
        )  # fmt: skip
        self.place.send(text)
        self.done["garbage"] += 1

    # -- what breaks ------------------------------------------------------------------------

    def kill(self) -> None:
        name = self.chance.choice(list(self.consumers))
        self.consumers[name].kill()
        self.done["kill"] += 1

    def stop(self) -> None:
        name = self.chance.choice(list(self.consumers))
        process = self.consumers[name].process
        if name not in self.stopped and process.poll() is None:
            process.send_signal(signal.SIGSTOP)
            self.stopped[name] = time.monotonic() + self.chance.uniform(1, 12)
            self.done["hang"] += 1

    def terminate(self) -> None:
        name = self.chance.choice(list(self.consumers))
        if name not in self.stopped and self.consumers[name].process.poll() is None:
            self.consumers[name].process.send_signal(signal.SIGTERM)
            self.done["SIGTERM"] += 1

    def crash_postgres(self) -> None:
        self.place.server.stop(mode=self.chance.choice(("fast", "immediate")))
        time.sleep(self.chance.uniform(0, 3))
        self.place.server.start()
        self.done["PostgreSQL ended"] += 1

    def s3_outage(self) -> None:
        fault = self.chance.choice([
            Fault(".*Object.*", 503, "SlowDown"), Fault("GetObject", 500, "InternalError"),
            Fault("(Get|Head)Object", 403, "AccessDenied"),
            Fault("DeleteMessageBatch", 500, "InternalError"),
            Fault("SendMessageBatch", 500, "InternalError"),
        ])  # fmt: skip
        self.place.aws.faults.append(fault)
        time.sleep(self.chance.uniform(1, 6))
        self.place.aws.faults.remove(fault)
        self.done["outage of S3 or SQS"] += 1

    # -- the operators ----------------------------------------------------------------------

    def erase(self) -> None:
        """Also interrupted, and then repeated."""
        live = [each for each in self.world.live() if each.is_image]
        if not live:
            return
        chosen = self.chance.choice(live)
        # Everything under the key goes, and what has the same bytes as one of these versions. The
        # ledger can erase what it has read: of versions that are gone it may know no bytes.
        versions = [u for u in self.world.uploads.values() if u.key == chosen.key and u.is_image]
        self._wait_for(lambda: self._known(chosen.key) >= {
            u.version_id for u in versions if (u.key, u.version_id) not in self.world.gone
        })  # fmt: skip
        known = self._known(chosen.key)
        self.world.erased_bytes |= {u.sha256 for u in versions if u.version_id in known}
        self.world.maybe_erased |= {u.sha256 for u in versions}
        uri = f"s3://{RAW}/{chosen.key}"
        if self.chance.random() < 0.3:
            self.run("erase", uri, "--yes", killed_after=self.chance.uniform(0.5, 2.5))
        assert self.run("erase", uri, "--yes", "--reason", "chaos") == 0, self.report()
        self.done["erasure"] += 1

    def redecide(self) -> None:
        epsilon = self.chance.choice(("0.005", "0.01", "0.02"))
        kill = self.chance.uniform(0.5, 2.0) if self.chance.random() < 0.3 else None
        self.run("redecide", FIRST, "--epsilon", epsilon, "--take-over", killed_after=kill)
        self.done["redecide"] += 1

    def undo(self) -> None:
        self.run("undo", FIRST, "--take-over")
        self.done["undo"] += 1

    def go_back_in_time(self) -> None:
        """A backup, half a minute of life, and the backup in the place of the ledger."""
        with backup(self.place.server.url()) as copy:
            until = time.monotonic() + self.chance.uniform(5, 30)
            while time.monotonic() < until:
                self.step(self.robots())
            if self.chance.random() < 0.5:
                self.erase()
            restore(self.place.server.url(), copy)
        self.done["restore"] += 1
        self.reconcile()

    def reconcile(self) -> None:
        """What the runbook says after a restore; the queue must be empty of what is on its way."""
        self.settle()
        for collection in self.place.queues:
            self.run("reconcile", "--collection", collection, "--older-than", "0", of=collection)
        self.done["reconcile"] += 1

    def run(
        self, *arguments: str, of: str = FIRST, killed_after: float | None = None
    ) -> int | None:
        """A command as an operator types it; its status, None where it was killed."""
        folders = os.pathsep.join(str(ROOT / name) for name in ("shared", "services"))
        log = self.place.folder / "commands.log"
        with log.open("ab") as stream:
            stream.write(f"$ {arguments}\n".encode())
            stream.flush()
            process = subprocess.Popen(
                [sys.executable, "-c", "from pixsift_cli.main import main; main()", *arguments],
                env={"PATH": os.environ["PATH"], "PYTHONPATH": folders, "OMP_NUM_THREADS": "1",
                     "PIXSIFT_MODEL": "stub", **self.place.environment(of)},
                stdout=stream, stderr=stream, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                return process.wait(killed_after or 300)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                if killed_after is None:
                    raise
                self.done["command killed"] += 1
                return None

    # -- the course -------------------------------------------------------------------------

    def robots(self) -> list[tuple[Callable[[], None], float]]:
        """What robots and queues do, with weights."""
        return [
            (self.upload, 60), (self.delete_version, 4), (self.delete_marker, 3),
            (self.deliver_again, 5), (self.garbage, 2),
        ]  # fmt: skip

    def everything(self) -> list[tuple[Callable[[], None], float]]:
        return [
            *self.robots(), (self.kill, 1.5), (self.stop, 1.0), (self.terminate, 0.8),
            (self.crash_postgres, 0.3), (self.s3_outage, 0.8), (self.erase, 0.5),
            (self.redecide, 0.3), (self.undo, 0.2), (self.go_back_in_time, 0.12),
        ]  # fmt: skip

    def step(self, actions: list[tuple[Callable[[], None], float]]) -> None:
        names, weights = zip(*actions, strict=True)
        self.chance.choices(names, weights=weights)[0]()
        self.keep_up()
        time.sleep(self.chance.uniform(0, 2 / _UPLOADS_PER_SECOND))

    def keep_up(self) -> None:
        """As an orchestrator does: what ended is started, what hangs wakes up again."""
        for name, until in list(self.stopped.items()):
            if time.monotonic() > until:
                self._wake(name)
        for name, consumer in list(self.consumers.items()):
            if name not in self.stopped and consumer.process.poll() is not None:
                consumer.__exit__(None, None, None)
                self.start(name)

    def start(self, name: str) -> None:
        collection = name.partition("-")[0]
        module = "pixsift_consumer.main" if collection == FIRST else _SECOND_MODEL
        self.consumers[name] = ConsumerProcess(
            self.place.environment(collection), log=self.place.folder / f"{name}.log",
            module=module,
        )  # fmt: skip

    def settle(self) -> None:
        """Let the consumers drain what waits."""
        for name in list(self.stopped):
            self._wake(name)

        self._wait_for(lambda: self.place.is_drained)

    def check(self) -> None:
        """Drain, and ask the oracle. AssertionError with what is wrong."""
        self.settle()
        url = self.place.server.url()
        found = [
            *complaints(url, FIRST, self.world), *complaints(url, SECOND, self.world),
            *leftovers(url, self.world),
        ]  # fmt: skip
        assert not found, "\n".join([f"{len(found)} complaints", *found[:40], self.report()])
        self.done["checked"] += 1

    def run_for(self, seconds: float, *, check_every: float = 240.0) -> None:
        """The whole course."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            pause = min(ends, time.monotonic() + check_every)
            while time.monotonic() < pause:
                self.step(self.everything())
            self.check()

    def report(self) -> str:
        """Where things stand."""
        waiting = {
            name: (len(queue.messages), 0 if queue.dlq is None else len(queue.dlq.messages))
            for name, queue in self.place.queues.items()
        }
        return f"done: {dict(self.done)}; waiting (queue, DLQ): {waiting}"

    def end(self) -> None:
        for name in list(self.stopped):
            self._wake(name)
        for consumer in self.consumers.values():
            consumer.__exit__(None, None, None)

    def _wake(self, name: str) -> None:
        self.stopped.pop(name, None)
        if self.consumers[name].process.poll() is None:
            self.consumers[name].process.send_signal(signal.SIGCONT)

    def _any_live(self) -> tuple[str, str] | None:
        live = self.world.live()
        if not live:
            return None
        chosen = self.chance.choice(live)
        return chosen.key, chosen.version_id

    def _wait_for(self, holds: Callable[[], bool]) -> None:
        def checked() -> bool:
            self.keep_up()
            return holds()

        wait_until(checked, seconds=_DRAIN_SECONDS, what=self.report)

    def _known(self, key: str) -> set[str]:
        """Version ids under a key whose bytes the ledger has read, or that are erased already."""
        with psycopg.connect(self.place.server.url()) as connection:
            rows = connection.execute(
                "SELECT version_id FROM object WHERE key = %s"
                " AND (content_sha256 IS NOT NULL OR erased_at IS NOT NULL)",
                (key,),
            ).fetchall()
        return {version_id for (version_id,) in rows}


@contextmanager
def chaos(server: EmbeddedPostgres, folder: Path, *, seed: int) -> Iterator[Chaos]:
    """Three consumers of two models over one bucket; the ledger is new."""
    from faults.second_model import SECOND_MODEL
    from pixsift.adapters.ledger.ledger import Ledger
    from pixsift.adapters.models.load import load_embedder
    from pixsift.adapters.postgres.database import Database
    from pixsift.core.sources import SourceRule

    with Database(server.url()) as database:
        ledger = Ledger(database)
        for name, space in ((FIRST, load_embedder("stub").space), (SECOND, SECOND_MODEL.space)):
            ledger.ensure_space(space)
            ledger.create_collection(
                name, sources=[SourceRule(RAW)], space_id=space.space_id, epsilon=0.01
            )
    with ExitStack() as stack:
        aws = stack.enter_context(StubAws(visibility_seconds=5.0, max_receive_count=5))
        dlq = aws.sqs.create("second-dlq", visibility_seconds=5.0)
        queue = aws.sqs.create("second", visibility_seconds=5.0, max_receive_count=5, dlq=dlq)
        place = Place(aws, {FIRST: aws.ingest, SECOND: queue}, server, folder)
        run = Chaos(place, random.Random(seed))

        def fan_out(body: str) -> None:
            run.events.append(body)
            place.send(body)

        aws.raw.notify = fan_out
        stack.callback(run.end)
        for name in (f"{FIRST}-1", f"{FIRST}-2", f"{SECOND}-1"):
            run.start(name)
        yield run
