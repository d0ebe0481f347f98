"""Evaluation sets: nothing near is chosen, whenever they were declared; arrivals are flagged."""

from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from PIL import Image

from ledger_world import image, new_collection, rows, snapshot_of, space, turned, unit
from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.ledger.pool import pool_point
from pixsift.adapters.ledger.snapshots import Snapshots
from pixsift.adapters.models.stub_embedder import StubEmbedder
from pixsift.adapters.postgres.database import Database
from pixsift.core.dedup import Halves, cosine_distance
from pixsift.core.identity import S3Uri
from pixsift.core.sources import SourceRule
from pixsift.errors import ConflictError, NotFoundError, RequestError
from pixsift.messages import SnapshotRequest, parse_snapshot_request
from pixsift.operations.choose import choose, preview
from pixsift.operations.embedder import ModelChoice
from pixsift.operations.forget import Forgetting
from pixsift.operations.protect import (
    list_protected,
    protect_folder,
    protect_prefix,
    protect_snapshot,
    unprotect,
)
from pixsift.operations.rule import rule
from pixsift.ports import EmbeddingSpace

SAID: dict[str, Any] = {"who": "ann", "why": "our test set"}


def request(name: str = "n", schema: int = 2, **select: Any) -> SnapshotRequest:
    return parse_snapshot_request({
        "schema": f"pixsift.snapshot-request/{schema}", "request_id": f"{name}-{schema}",
        "collection": "c", "name": name, "select": {"strategy": "all"} | select,
    })  # fmt: skip


def chosen(database: Database, asked: SnapshotRequest, at_seq: int | None = None) -> set[str]:
    """Keys."""
    with choose(database, asked, pool_point(database, "c", at_seq)) as choice:
        shown = preview(database, asked, choice)
    return {image.uri.removeprefix("s3://raw/").split("?")[0] for image in shown.images}


@pytest.fixture
def kept(ledger: Ledger) -> Ledger:
    """Images 20 degrees (a distance of .06) from one to the next; eval/ lies at 100 degrees."""
    collection = ledger.collection("c")
    for n in range(5):
        ledger.commit(collection, [image(f"train/{n}", turned(20 * n))])
    ledger.commit(collection, [image("eval/0", turned(100))])
    return ledger


def test_protect__a_prefix_declared_after_arrival(database: Database, kept: Ledger) -> None:
    everything = {f"train/{n}" for n in range(5)} | {"eval/0"}
    assert chosen(database, request()) == everything
    told = protect_prefix(database, "c", S3Uri("raw", "eval/"), distance=0.1, **SAID)
    assert [(s.source, s.pictures, s.distance) for s in told.sets] == [("s3://raw/eval/", 1, 0.1)]
    assert chosen(database, request()) == {f"train/{n}" for n in range(4)}
    asked = request()
    with choose(database, asked) as choice:
        shown = preview(database, asked, choice)
    assert (shown.model_extra or {})["protected_out"] == 2
    assert chosen(database, request(protected="include")) == everything
    # What comes later counts as well, also at an earlier point, and when it is gone again.
    kept.commit(kept.collection("c"), [image("eval/1", turned(0, 16))])
    assert chosen(database, request(), 5) == {"train/2", "train/3"}
    kept.remove(kept.collection("c"), [image("eval/1", turned(0)).version])
    assert chosen(database, request(), 5) == {"train/2", "train/3"}
    unprotect(database, "c", [UUID(told.sets[0].protected_id)])
    assert chosen(database, request()) == everything
    with pytest.raises(NotFoundError, match="no evaluation set"):
        unprotect(database, "c", [UUID(told.sets[0].protected_id)])


def test_protect__version_1_knows_nothing_of_it(database: Database, kept: Ledger) -> None:
    before = snapshot_of(database, request("one", 1)), snapshot_of(database, request("two", 2))
    protect_prefix(database, "c", S3Uri("raw", "eval/"), distance=0.1, **SAID)
    assert "eval/0" in chosen(database, request(schema=1))
    # The same request of version 1 is the same snapshot; of version 2 it is another one now.
    again = request("one", 1).model_copy(update={"request_id": "again"})
    assert snapshot_of(database, again) == before[0]
    new = request("two", 2).model_copy(update={"request_id": "again-2"})
    assert snapshot_of(database, new) != before[1]
    report = Snapshots(database).get(snapshot_of(database, new)).report
    assert report["protected_out"] == 2
    assert [each["source"] for each in report["protected"]] == ["s3://raw/eval/"]


def test_protect__who_represents_an_evaluation_image_is_left_out(
    database: Database, kept: Ledger
) -> None:
    """A duplicate in the set is the same picture as its representative, however far away."""
    rule(database, "c", "same", [S3Uri("raw", "eval/0")], other=S3Uri("raw", "train/0"),
         why="one shelf", who="ann")  # fmt: skip
    protect_prefix(database, "c", S3Uri("raw", "eval/"), distance=0.01, **SAID)
    assert chosen(database, request()) == {"train/1", "train/2", "train/3", "train/4"}


def test_protect__a_snapshot_of_another_collection(database: Database, kept: Ledger) -> None:
    other = new_collection(kept, "other", sources=[SourceRule("elsewhere")])
    kept.commit(other, [image("far", turned(41))])
    asked = request("exam").model_copy(update={"collection": "other"})
    snapshot_id = snapshot_of(database, asked)
    told = protect_snapshot(database, "c", "exam", distance=0.02, **SAID)
    assert told.sets[0].source == f"snapshot exam ({snapshot_id})"
    assert "train/2" not in chosen(database, request())
    assert len(chosen(database, request())) == 5
    with pytest.raises(NotFoundError, match="snapshot 'none'"):
        protect_snapshot(database, "c", "none", distance=0.02, **SAID)


def test_protect__images_without_vectors_in_the_space_are_refused(
    database: Database, kept: Ledger
) -> None:
    kept.ensure_space(EmbeddingSpace("other", "1", "11", "px1-224", "none", 16))
    second = EmbeddingSpace("other", "1", "11", "px1-224", "none", 16)
    other = kept.create_collection(
        "other", sources=[SourceRule("elsewhere")], space_id=second.space_id, epsilon=0.05
    )
    kept.commit(other, [image("x", turned(41))])
    asked = request("exam").model_copy(update={"collection": "other"})
    snapshot_of(database, asked)
    with pytest.raises(ConflictError, match=r"1 images of the evaluation set .* have no vector"):
        protect_snapshot(database, "c", "exam", distance=0.02, **SAID)
    assert list_protected(database, "c").sets == []
    with pytest.raises(ConflictError, match=r"no collection .* judges s3://elsewhere/exam/"):
        protect_prefix(database, "c", S3Uri("elsewhere", "exam/"), **SAID)


def test_protect__refuses(database: Database, kept: Ledger) -> None:
    for distance in (0.0, 1e-5, 2.5, float("nan")):
        with pytest.raises(RequestError, match="cosine distance between"):
            protect_prefix(database, "c", S3Uri("raw", "eval/"), distance=distance, **SAID)
    with pytest.raises(RequestError, match="needs a reason"):
        protect_prefix(database, "c", S3Uri("raw", "eval/"), who="ann", why=" ")
    protect_prefix(database, "c", S3Uri("raw", ""), distance=0.1, **SAID)
    with pytest.raises(RequestError, match="no candidates left: all 6 images"):
        chosen(database, request())


def test_protect__is_brute_force_over_the_whole_pool(database: Database, ledger: Ledger) -> None:
    rng = np.random.default_rng(5)
    vectors: dict[str, Halves] = {}
    for n in range(150):
        near = list(vectors.values())[n % 20] if n >= 20 else np.zeros(16)
        key = f"{'eval' if n % 9 == 0 else 'train'}/{n}"
        vectors[key] = unit(*(near + (0.25 if n >= 20 else 1.0) * rng.normal(size=16)))
    judged = [image(key, vector) for key, vector in vectors.items()]
    ledger.commit(ledger.collection("c"), judged)
    before = chosen(database, request())
    protect_prefix(database, "c", S3Uri("raw", "eval/"), distance=0.3, **SAID)
    exam = [vector for key, vector in vectors.items() if key.startswith("eval/")]
    stand_for = {
        key for (key,) in rows(
            database.url,
            "SELECT r.key FROM decision d JOIN object o USING (object_id) JOIN object r"
            " ON r.object_id = d.representative_object_id WHERE starts_with(o.key, 'eval/')",
        )
    }  # fmt: skip
    expected = {
        key for key in before - stand_for
        if not any(cosine_distance(vectors[key], v) <= 0.3 for v in exam)
    }  # fmt: skip
    assert chosen(database, request()) == expected
    assert 0 < len(expected) < len(before) - len(exam) / 2


def test_protect__arrivals_near_it_are_flagged(database: Database, kept: Ledger) -> None:
    collection = kept.collection("c")
    told = protect_prefix(database, "c", S3Uri("raw", "eval/"), distance=0.1, **SAID)
    late = image("late", turned(120), detail={"flags": ["dark"]})
    kept.commit(collection, [late, image("far", turned(160)), image("eval/1", turned(121))])
    assert flags(database) == {"late": ["dark", "near_protected"]}
    # It is not a flag of the picture: a request that takes in what is near gets it.
    flagged = request(protected="include").model_copy(
        update={"where": request().where.model_copy(update={"flags": ["near_protected"],
                                                             "flagged": "include"})}
    )  # fmt: skip
    assert chosen(database, flagged) == {"late"}
    unprotect(database, "c", [UUID(told.sets[0].protected_id)])
    kept.commit(collection, [image("later", turned(122))])
    assert "later" not in flags(database)
    # Deciding again keeps the flag: it says what was so when the image arrived.
    kept.remove(collection, [image("eval/0", turned(100)).version])
    assert flags(database)["late"] == ["dark", "near_protected"]


def flags(database: Database) -> dict[str, list[str]]:
    found = rows(
        database.url,
        "SELECT o.key, d.detail -> 'flags' FROM decision d JOIN object o USING (object_id)"
        " WHERE d.valid_to_seq IS NULL AND d.detail ? 'flags'",
    )
    return dict(found)


@pytest.fixture
def exam(tmp_path: Path) -> Path:
    """A folder with one picture, twice."""
    folder = tmp_path / "exam"
    (folder / "more").mkdir(parents=True)
    values = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    for name in ("a.png", "more/b.png"):
        Image.fromarray(values).save(folder / name)
    (folder / ".DS_Store").write_bytes(b"x")
    return folder


def test_protect__a_folder_of_this_machine(database: Database, exam: Path) -> None:
    ledger, embedder = Ledger(database), StubEmbedder()
    ledger.ensure_space(embedder.space)
    collection = ledger.create_collection(
        "c", sources=[SourceRule("raw")], space_id=embedder.space.space_id, epsilon=0.01
    )
    model = ModelChoice("stub")
    told = protect_folder(database, "c", exam, model=model, distance=0.01, **SAID)
    assert [(s.kind, s.source, s.pictures) for s in told.sets] == [("folder", str(exam), 1)]
    (vector,) = rows(database.url, "SELECT embedding::text FROM protected_image")
    twin = np.array(vector[0].strip("[]").split(","), np.float16)
    far = np.roll(twin, 7)
    ledger.commit(collection, [image("twin", twin), image("far", far)])
    assert chosen(database, request()) == {"far"}
    assert list(flags(database)) == ["twin"]
    (exam / "notes.txt").write_text("no image")
    with pytest.raises(RequestError, match=r"1 of 3 files have no vector .*notes\.txt"):
        protect_folder(database, "c", exam, model=model, **SAID)
    with pytest.raises(NotFoundError, match="is not a folder"):
        protect_folder(database, "c", exam / "none", model=model, **SAID)


def test_protect__an_erasure_takes_the_picture_out_of_a_folder_too(
    database: Database, ledger: Ledger
) -> None:
    collection = Collections(database).collection("c")
    ledger.commit(collection, [image("a", turned(0)), image("b", turned(90))])
    with database.connection() as connection:
        connection.execute(
            "INSERT INTO protected_set (collection_id, kind, folder, distance, who, why)"
            " VALUES (%s, 'folder', 'x', 0.1, 'a', 'b')", (collection.collection_id,)
        )  # fmt: skip
        connection.execute(
            "INSERT INTO protected_image SELECT protected_id, %s, pixel_sha256, embedding"
            " FROM protected_set, embedding", (space().space_id,)
        )  # fmt: skip
    forgetting = Forgetting(database, ledger)
    found = forgetting.find("raw", "a", None, copies=True)
    forgetting.remove(found)
    forgetting.forget(found)
    assert rows(database.url, "SELECT count(*) FROM protected_image") == [(1,)]
