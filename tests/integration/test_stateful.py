"""A rule-based state machine: the ledger on a real PostgreSQL against the brute-force oracle.

Hypothesis puts, overwrites, deletes, expires, redelivers, reorders, erases, changes epsilon, goes
back, takes decisions back, makes rulings and takes them back, in any order it can think of. After
every step the ledger's outcomes are those of the oracle, which measures every pair, each duplicate
names an image that the oracle keeps and that is near it, and the audit finds nothing, neither in
the decisions nor in the counters.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from uuid import uuid4

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from ledger_world import digest, new_collection, outcomes
from oracle import Oracle, Picture
from pixsift.adapters.aws.journal import Journal
from pixsift.adapters.ledger.generations import Generations
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.ledger.rejudge import Rejudge
from pixsift.adapters.ledger.ruling_book import RulingBook, new_ruling
from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres
from pixsift.adapters.postgres.database import Database
from pixsift.core.collection import ExpiryPolicy
from pixsift.core.identity import ObjectVersion
from pixsift.core.outcomes import Judged
from pixsift.core.rulings import Kind, Ruling
from pixsift.errors import ConflictError, NotFoundError
from pixsift.operations.audit import Auditor
from pixsift.operations.erase import Erasure

KEYS = ("a", "b", "c", "d")
EPSILONS = (0.01, 0.05, 0.2)
ANGLES = tuple(range(0, 180, 7))
"""Neighbors are 7 degrees apart: distance 0.0075; 14: 0.030; 21: 0.066; 35: 0.18."""


class NoObjects:
    """Stands in for S3 in an erasure: nothing lies there."""

    def head(self, bucket: str, key: str) -> None:
        return None

    def put(self, bucket: str, key: str, body: bytes, **_: object) -> bool:
        return True


class NoSnapshots:
    """Stands in for the redactor: no snapshot holds anything."""

    def redact(self, object_id: int) -> list[str]:
        return []


class LedgerMachine(RuleBasedStateMachine):
    """Every rule does to the ledger what it does to the oracle."""

    postgres: EmbeddedPostgres
    template: str
    versions = Bundle("versions")

    def __init__(self) -> None:
        super().__init__()
        self.cleanup = ExitStack()
        self.url = self.cleanup.enter_context(fresh_database(self.postgres, self.template))
        self.database = self.cleanup.enter_context(Database(self.url))
        self.ledger = Ledger(self.database)
        self.oracle = Oracle(0.05)
        self.judged: dict[str, Judged] = {}
        self.erased: set[str] = set()
        self.blocked: set[bytes] = set()
        """Content of erased images."""
        self.failed: set[str] = set()
        """Their outcome is failed."""
        self.unread: set[str] = set()
        """Their bytes were never read, whatever their outcome is now."""

    @initialize(remembers=st.booleans(), keep_best=st.sampled_from([None, 1.0]))
    def create(self, remembers: bool, keep_best: float | None) -> None:
        policy: ExpiryPolicy = "remember" if remembers else "redecide"
        self.collection = new_collection(self.ledger, expiry_policy=policy, keep_best=keep_best)
        self.oracle.remembers, self.oracle.keep_best = remembers, keep_best

    @rule(
        target=versions,
        key=st.sampled_from(KEYS),
        angle=st.sampled_from(ANGLES),
        sharpness=st.integers(0, 3),
        twin=st.sampled_from(["", "", "", "pixels", "content"]),
    )
    def put(self, key: str, angle: int, sharpness: int, twin: str) -> str:
        """A new version of a key: the first is a put, the others overwrite."""
        name = f"{key}@v{len(self.judged)}"
        self.judged[name] = self._image(name, angle, sharpness, twin)
        self._deliver([name])
        return name

    @rule(target=versions, key=st.sampled_from(KEYS), angle=st.sampled_from(ANGLES))
    def fail(self, key: str, angle: int) -> str:
        """A version that could not be decided at first; a redelivery may do better."""
        name = f"{key}@v{len(self.judged)}"
        self.judged[name] = self._image(name, angle, 1, "")
        self.ledger.commit(
            self.collection, [Judged(self.judged[name].version, "failed", "timeout")]
        )
        self.failed.add(name)
        self.unread.add(name)
        return name

    @rule(names=st.lists(versions, min_size=1, max_size=5))
    def redeliver(self, names: list[str]) -> None:
        """Messages come again, in another order, several in one batch, even twice in one."""
        self._deliver(names)

    @rule(
        key=st.sampled_from(KEYS),
        angles=st.lists(st.sampled_from(ANGLES), min_size=2, max_size=4),
        removed=st.integers(0, 1),
    )
    def burst_with_a_delete_that_overtakes(self, key: str, angles: list[int], removed: int) -> None:
        """One batch of versions of a key; the delete of one of them comes before its create."""
        names = [f"{key}@v{len(self.judged) + n}" for n in range(len(angles))]
        for name, angle in zip(names, angles, strict=True):
            self.judged[name] = self._image(name, angle, 1, "")
        self.ledger.remove(self.collection, [self.judged[names[removed]].version])
        self.oracle.remove(names[removed])
        self._deliver(names)

    @rule(names=st.lists(versions, min_size=1, max_size=3, unique=True))
    def delete(self, names: list[str]) -> None:
        """Versions go away one after the other, representatives among them."""
        for name in names:
            self.ledger.remove(self.collection, [self.judged[name].version])
            self.failed.discard(name)
            self.oracle.remove(name)

    @rule(name=versions)
    def expire(self, name: str) -> None:
        """A lifecycle rule removes a version; its vector may go on filtering."""
        version = self.judged[name].version
        decided = self.ledger.remove(self.collection, [version], reason="expired")
        self.failed.discard(name)
        if decided[0].is_new:
            self.oracle.expire(name)

    @rule(names=st.lists(versions, min_size=1, max_size=3, unique=True))
    def take_back(self, names: list[str]) -> None:
        """What is not kept or a duplicate is undecided again, unless it was erased."""
        ids = self._object_ids()
        told = outcomes(self.url)
        undone = [
            name for name in names
            if name in told and told[name][0] in ("failed", "gone") and told[name][1] != "erased"
        ]  # fmt: skip
        rejudge = Rejudge(self.database)
        taken = rejudge.take_back(self.collection, [ids[name] for name in names])
        assert set(taken) == {ids[name] for name in undone}
        # As the command does: the duplicates of one that was remembered.
        rejudge.again(self.collection, taken, why="test")
        self.failed -= set(undone)
        self.oracle.take_back(set(undone))

    @rule(epsilon=st.sampled_from(EPSILONS))
    def change_epsilon_and_go_back(self, epsilon: float) -> None:
        """An undo brings every decision back as it was."""
        before = self._decisions()
        generations = Generations(self.database)
        generations.redecide(self.collection, epsilon=epsilon)
        generations.undo(self.collection)
        assert self._decisions() == before
        self.oracle.begin_generation()

    @rule(epsilon=st.sampled_from(EPSILONS))
    def change_epsilon(self, epsilon: float) -> None:
        asked = Generations(self.database).what_if(self.collection, epsilon=epsilon)
        done = Generations(self.database).redecide(self.collection, epsilon=epsilon)
        assert (asked.kept, asked.duplicate) == (done.kept, done.duplicate)
        self.oracle.change_epsilon(epsilon)

    @rule(name=versions)
    def erase(self, name: str) -> None:
        """The image goes with all its copies, and none of them comes back."""
        version = self.judged[name].version
        eraser = Erasure(
            self.database, self.ledger, NoObjects(), NoSnapshots(),  # type: ignore[arg-type]
            derived_bucket="derived",
            journal=Journal(NoObjects(), "journal"),  # type: ignore[arg-type]
        )  # fmt: skip
        found = eraser.find(version.bucket, version.key, version.version_id)
        eraser.erase(found, reason="test")
        erased = {f"{row['key']}@{row['version_id']}" for row in found}
        # For a version whose bytes were never read, only the version itself is marked.
        known = erased - self.unread
        self.blocked |= {self.judged[n].content_sha256 or b"" for n in known}
        self.erased |= erased
        # One transaction removes them all; then everybody else is decided again, in order.
        self.failed -= erased
        self.oracle.remove_together(erased)

    @rule(name=versions, kind=st.sampled_from(["choose", "choose", "also_keep", "useless"]))
    def rule_one(self, name: str, kind: Kind) -> None:
        """Make a ruling about an image; a contradiction is refused and changes nothing."""
        self._say(kind, name, None)

    @rule(name=versions, other=versions, kind=st.sampled_from(["same", "not_same"]))
    def rule_pair(self, name: str, other: str, kind: Kind) -> None:
        """Make a ruling about a pair."""
        self._say(kind, name, other)

    @rule(name=versions)
    def take_rulings_back(self, name: str) -> None:
        """Everything that was said of an image."""
        ids = self._object_ids()
        book = RulingBook(self.database)
        found = book.records(self.collection, object_id=ids.get(name, 0), in_force=True)
        if found:
            book.take_back(self.collection, [record.ruling_id for record in found])
            self.oracle.unrule(name)

    @rule(names=st.lists(versions, min_size=1, max_size=3))
    def rejudge(self, names: list[str]) -> None:
        """Deciding again what is right changes nothing."""
        ids = self._object_ids()
        before = self.ledger.collection("c").seq
        chosen = [ids[name] for name in names if name in ids]
        kept_before = {n for n, v in outcomes(self.url).items() if v[0] == "kept"}
        Rejudge(self.database).again(self.collection, chosen, why="test")
        assert kept_before == {n for n, v in outcomes(self.url).items() if v[0] == "kept"}
        assert self.ledger.collection("c").seq >= before

    @invariant()
    def equals_the_oracle(self) -> None:
        told = outcomes(self.url) if self.judged else {}
        assert {name: row[0] for name, row in told.items()} == {
            name: "failed" if name in self.failed else self.oracle.outcome(name) for name in told
        }
        assert set(told) == set(self.judged) - self.oracle.undecided
        for name, (outcome, _, of) in told.items():
            if name in self.oracle.by_ruling:
                assert of == self.oracle.children[name].split("@")[0]
            elif outcome == "duplicate":
                near = [k for k in self.oracle.kept if self.oracle.within(name, k)]
                assert of in {k.split("@")[0] for k in near}

    @invariant()
    def audit_finds_nothing(self) -> None:
        if hasattr(self, "collection"):
            assert Auditor(self.database).audit(self.collection).findings == []

    def teardown(self) -> None:
        self.cleanup.close()

    def _image(self, name: str, angle: int, sharpness: int, twin: str) -> Judged:
        key, version = name.split("@")
        content, pixels = digest(name), digest("px" + name)
        radians = np.radians(angle)
        # The third axis keeps equal angles from being equal vectors.
        vector = np.zeros(16)
        vector[:3] = np.cos(radians), np.sin(radians), 0.001 * (len(self.judged) % 7)
        embedding = (vector / np.linalg.norm(vector)).astype(np.float16)
        if twin and self.judged:
            other = list(self.judged.values())[angle % len(self.judged)]
            assert other.content_sha256 and other.pixel_sha256 and other.embedding is not None
            pixels, embedding = other.pixel_sha256, other.embedding
            content = other.content_sha256 if twin == "content" else content
        return Judged(
            ObjectVersion("raw", key, version), "embedded", content_sha256=content,
            pixel_sha256=pixels, embedding=embedding, quality={"sharpness": float(sharpness)},
        )  # fmt: skip

    def _deliver(self, names: list[str]) -> None:
        self.ledger.commit(self.collection, [self.judged[name] for name in names])
        self.failed -= set(names)
        self.unread -= set(names) - self.erased
        pictures = []
        for name in dict.fromkeys(names):
            judged = self.judged[name]
            assert judged.content_sha256 and judged.pixel_sha256
            if judged.content_sha256 in self.blocked:
                self.oracle.gone.add(name)
            assert judged.embedding is not None
            pictures.append(
                Picture(
                    name, judged.content_sha256, judged.pixel_sha256, judged.embedding,
                    (judged.quality or {})["sharpness"],
                )
            )  # fmt: skip
        self.oracle.deliver(pictures)

    def _say(self, kind: Kind, name: str, other: str | None) -> None:
        ids = self._object_ids()
        told = Ruling(kind, ids[name], None if other is None else ids[other])
        before = self.ledger.collection("c").seq
        try:
            RulingBook(self.database).say(self.collection, [new_ruling(told, who="a", why="b")])
        except (ConflictError, NotFoundError):
            assert self.ledger.collection("c").seq == before
            return
        self.oracle.rule(kind, name, other)

    def _decisions(self) -> dict[int, tuple[object, ...]]:
        """What holds now, by object id."""
        with psycopg.connect(self.url) as connection:
            found = connection.execute(
                "SELECT object_id, outcome, reason, representative_object_id, distance, detail"
                " FROM decision JOIN collection USING (collection_id, generation)"
                " WHERE valid_to_seq IS NULL"
            ).fetchall()
        return {row[0]: row[1:] for row in found}

    def _object_ids(self) -> dict[str, int]:
        with psycopg.connect(self.url) as connection:
            found = connection.execute("SELECT key, version_id, object_id FROM object").fetchall()
        return {f"{key}@{version}": object_id for key, version, object_id in found}


@contextmanager
def fresh_database(postgres: EmbeddedPostgres, template: str) -> Iterator[str]:
    """A migrated database of an example's own."""
    name = f"s_{uuid4().hex[:12]}"
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute(
            f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY".encode()
        )
        yield postgres.url(name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def run_machine(postgres: EmbeddedPostgres, template: str, *, examples: int, steps: int) -> None:
    machine = type("Machine", (LedgerMachine,), {"postgres": postgres, "template": template})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None,
            suppress_health_check=list(HealthCheck), print_blob=True,
            phases=(Phase.explicit, Phase.generate, Phase.shrink),
        ),
    )  # fmt: skip


def test_ledger_equals_the_oracle(postgres: EmbeddedPostgres, template_database: str) -> None:
    run_machine(postgres, template_database, examples=8, steps=12)


@pytest.mark.full
def test_ledger_equals_the_oracle__many(postgres: EmbeddedPostgres, template_database: str) -> None:
    run_machine(postgres, template_database, examples=200, steps=50)
