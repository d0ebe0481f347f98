"""What the fault tests upload, and the one ledger that must come of it, whatever happens."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from faults.consumer_process import ConsumerProcess, outcomes, wait_until
from faults.images import jpeg, truncated
from faults.stub_aws import RAW, StubAws
from invariants import violations
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.models.load import load_embedder
from pixsift.adapters.postgres.database import Database
from pixsift.core.sources import SourceRule


@dataclass(slots=True, eq=False)
class Scene:
    """A stub AWS, a database with a collection, and a record of what was uploaded."""

    aws: StubAws
    database_url: str
    folder: Path
    expected: dict[str, Counter[str]] = field(default_factory=dict)
    """Group of alike objects -> how many of each outcome."""
    group_of: dict[str, str] = field(default_factory=dict)
    """Key with version -> its group."""
    uploads: int = 0

    def environment(self, **more: str) -> dict[str, str]:
        return {
            **self.aws.environment(),
            "PIXSIFT_DATABASE_URL": self.database_url,
            "PIXSIFT_VISIBILITY_TIMEOUT_SECONDS": "2",
            "PIXSIFT_POLL_SECONDS": "1",
            "PIXSIFT_SLOW_LANE_EVERY_SECONDS": "0.5",
            "PIXSIFT_LOG_LEVEL": "WARNING",
            **more,
        }

    def consumer(
        self, module: str = "pixsift_consumer.main", *, log: Path | None = None, **more: str
    ) -> ConsumerProcess:
        log = log or self.folder / "consumer.log"
        return ConsumerProcess(self.environment(**more), log=log, module=module)

    def put(self, group: str, body: bytes, outcome: str) -> None:
        """Upload one object of a group; its outcome is ``outcome``, but for who is first."""
        self.uploads += 1
        key = f"{group}/{self.uploads}.jpg"
        version = self.aws.raw.put(key, body)
        self.group_of[f"{key}@{version.version_id}"] = group
        self.expected.setdefault(group, Counter())[outcome] += 1

    def put_mixture(self, seed: int) -> None:
        """Eight objects: new, the same bytes, nearly the same, broken, and one deleted again."""
        self.put(f"alike-{seed}", jpeg(seed), "kept")
        self.put(f"alike-{seed}", jpeg(seed), "duplicate")
        self.put(f"alike-{seed}", jpeg(seed, quality=80), "duplicate")
        for number in range(3):
            self.put(f"new-{seed}-{number}", jpeg(10_000 + 10 * seed + number), "kept")
        self.put(f"cut-{seed}", truncated(seed), "rejected")
        self.put(f"gone-{seed}", jpeg(20_000 + seed), "gone")
        self.aws.raw.delete(f"gone-{seed}/{self.uploads}.jpg")

    def found(self) -> dict[str, Counter[str]]:
        """What the ledger says, in the form of ``expected``."""
        result: dict[str, Counter[str]] = {}
        for key, (outcome, _) in outcomes(self.database_url).items():
            result.setdefault(self.group_of[key], Counter())[outcome] += 1
        return result

    def settle(self, *, seconds: float = 180.0) -> None:
        """Let an undisturbed consumer finish: all is judged as it was sent, no promise broken."""
        with self.consumer() as consumer:
            wait_until(lambda: self.aws.is_drained, seconds=seconds, what=self.report)
            assert consumer.stop() == 0, consumer.log_text()
        assert self.found() == self.expected
        assert violations(self.database_url, "test") == []

    def report(self) -> str:
        """Where things stand, for a failed test."""
        path = self.folder / "consumer.log"
        log = path.read_text("utf-8", "replace") if path.exists() else ""
        return (
            f"{len(self.aws.ingest.messages)} messages left, {len(self.aws.dlq.messages)} in the "
            f"DLQ, {len(outcomes(self.database_url))} decided of {self.uploads}\n{log[-4000:]}"
        )


@contextmanager
def scene(database_url: str, folder: Path, **options: float) -> Iterator[Scene]:
    """A scene with a collection ``test`` over the stub's raw bucket."""
    space = load_embedder("stub").space
    with Database(database_url) as database:
        ledger = Ledger(database)
        ledger.ensure_space(space)
        ledger.create_collection(
            "test", sources=[SourceRule(RAW)], space_id=space.space_id, epsilon=0.01
        )
    with StubAws(**options) as aws:  # type: ignore[arg-type]
        yield Scene(aws, database_url, folder)
