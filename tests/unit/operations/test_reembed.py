"""A collection in another embedding space: from real images at S3, with two stub models."""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import boto3
import numpy as np
import pytest
from moto import mock_aws
from PIL import Image

from faults.harness import PlainDecoder
from invariants import violations
from ledger_world import outcomes, rows
from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.decode.pool import DecodeLimits
from pixsift.adapters.decode.recipe import decode_image
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.models.stub_embedder import StubEmbedder
from pixsift.adapters.postgres.database import Database
from pixsift.core.calibration import Calibration
from pixsift.core.collection import Collection
from pixsift.core.identity import ObjectVersion, S3Uri
from pixsift.core.images import DecodedImage
from pixsift.core.outcomes import Judged
from pixsift.core.second_look import LookRule
from pixsift.core.sources import SourceRule
from pixsift.errors import ConflictError, SettingError, TransientError
from pixsift.operations.audit import Auditor
from pixsift.operations.compare_models import compare_models, pictures_of
from pixsift.operations.erase import new_erasure
from pixsift.operations.redecide import undo
from pixsift.operations.reembed import (
    Parts,
    Wanted,
    check_recipe,
    estimate,
    reembed,
    rule_in,
)
from pixsift.operations.rule import rule, undo_rulings
from pixsift.pages.models import models_page
from pixsift.ports import EmbeddingResult, FetchedObject

OLD, NEW = StubEmbedder(dimension=64), StubEmbedder(dimension=32, seed=8)


class CountingS3(S3Objects):
    """Counts what is fetched."""

    def __init__(self, client: Any) -> None:
        super().__init__(client=client, confirm_after_seconds=0)
        self.fetched: list[str] = []

    def fetch(self, version: ObjectVersion, **options: Any) -> FetchedObject:
        self.fetched.append(version.key)
        return super().fetch(version, **options)


class Failing(StubEmbedder):
    """Embeds so many images, then its machine is gone."""

    def __init__(self, left: int) -> None:
        super().__init__(dimension=32, seed=8, max_batch=4)
        self.left = left

    def embed(self, images: Any) -> EmbeddingResult:
        self.left -= len(images)
        if self.left < 0:
            raise TransientError("no machine")
        return super().embed(images)


@dataclass(frozen=True, slots=True)
class World:
    database: Database
    url: str
    s3: Any
    objects: CountingS3

    def parts(self, embedder: StubEmbedder = NEW) -> Parts:
        return Parts(self.database, self.objects, PlainDecoder(), embedder)

    def arrive(self, key: str, body: bytes) -> None:
        """Upload an image and judge it in the old space."""
        version = self.s3.put_object(Bucket="raw", Key=key, Body=body)["VersionId"]
        decoded = decode_image(body, 224, DecodeLimits())
        assert isinstance(decoded, DecodedImage)
        ledger = Ledger(self.database)
        ledger.commit(ledger.collection("c"), [
            Judged(
                ObjectVersion("raw", key, version), "embedded", size_bytes=len(body),
                content_sha256=hashlib.sha256(body).digest(), pixel_sha256=decoded.pixel_sha256,
                embedding=OLD.embed([decoded.model_input]).embeddings[0].astype(np.float16),
                look=decoded.look,
            )
        ])  # fmt: skip


def picture(seed: int) -> bytes:
    """Large colored cells: no two seeds look alike."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(cells).resize((320, 240), Image.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue()


def nearly(seed: int) -> bytes:
    """The same picture, saved with loss."""
    out = io.BytesIO()
    Image.open(io.BytesIO(picture(seed))).save(out, "JPEG", quality=90)
    return out.getvalue()


@pytest.fixture
def world(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws(), Database(database_url, max_connections=6) as database:
        s3 = boto3.client("s3")
        for bucket in ("raw", "derived", "curated"):
            s3.create_bucket(Bucket=bucket)
        s3.put_bucket_versioning(Bucket="raw", VersioningConfiguration={"Status": "Enabled"})
        ledger = Ledger(database)
        ledger.ensure_space(OLD.space)
        ledger.create_collection(
            "c", sources=[SourceRule("raw")], space_id=OLD.space.space_id, epsilon=0.01
        )
        yield World(database, database_url, s3, CountingS3(s3))


def test_reembed__all_is_judged_in_the_new_space(world: World) -> None:
    for seed in range(6):
        world.arrive(f"k{seed}.png", picture(seed))
    world.arrive("twin.png", picture(0))
    found = estimate(world.parts(), "c", Wanted())
    assert (found.objects, found.fetches, found.forgotten) == (7, 6, 0)
    assert found.bytes == sum(len(picture(seed)) for seed in range(6))
    assert found.seconds and found.seconds > 0 and not found.calibrated
    before = outcomes(world.url)
    world.objects.fetched.clear()
    done = reembed(world.parts(), "c", Wanted(), patience_seconds=5, notice_seconds=0)
    assert len(world.objects.fetched) == 6
    assert (done.kept, done.duplicate) == (6, 1)
    assert violations(world.url) == []
    collection = Ledger(world.database).collection("c")
    assert collection.space_id == NEW.space.space_id and collection.epsilon == found.epsilon
    undo(world.database, "c", take_over=False, progress=lambda what, done, of: None)
    assert outcomes(world.url) == before and violations(world.url) == []


def test_compare_models__shows_what_differs_and_changes_nothing(world: World) -> None:
    """The shadow continues with what arrives, and the switch fetches nothing twice."""
    for seed in range(4):
        world.arrive(f"k{seed}.png", picture(seed))
    world.arrive("near.png", nearly(0))
    before, seq = outcomes(world.url), Ledger(world.database).collection("c").seq
    loose = compare_models(world.parts(), "c", Wanted(epsilon=1.9), notice_seconds=0)
    assert outcomes(world.url) == before
    assert (loose.now.kept, loose.other.kept, loose.at_seq) == (4, 1, seq)
    assert (loose.newly_duplicate, loose.newly_kept, loose.otherwise) == (3, 0, 0)
    assert loose.agreeing == 2 and len(loose.would_be_duplicates) == 3
    assert {row.representative for row in loose.would_be_duplicates} == {
        next(f"s3://raw/k0.png?versionId={key.split('@')[1]}" for key in before if "k0" in key)
    }
    world.arrive("late.png", picture(9))
    strict = compare_models(world.parts(), "c", Wanted(epsilon=1e-7), notice_seconds=0)
    assert (strict.newly_kept, strict.newly_duplicate, strict.now.kept) == (1, 0, 5)
    (pair,) = strict.would_be_kept
    assert "near.png" in pair.uri and pair.representative and "k0.png" in pair.representative
    page = models_page(strict, pictures_of(world.parts(), "derived", strict))
    assert "Duplicates today, kept with stub: 1" in page and "near.png" in page
    assert "not calibrated with stub" in page
    world.objects.fetched.clear()
    done = reembed(world.parts(), "c", Wanted(epsilon=1e-7), patience_seconds=5, notice_seconds=0)
    assert (done.kept, world.objects.fetched) == (6, [])
    assert violations(world.url) == []


def test_compare_models__shows_examples_from_both_ends(world: World) -> None:
    for seed in range(12):
        world.arrive(f"k{seed}.png", picture(seed))
    found = compare_models(world.parts(), "c", Wanted(epsilon=1.9), notice_seconds=0, examples=4)
    distances = [row.distance for row in found.would_be_duplicates]
    assert found.newly_duplicate == 11 and len(distances) == 4
    assert distances == sorted(d for d in distances if d is not None)


def test_reembed__a_run_that_died_goes_on(world: World) -> None:
    for seed in range(40):
        world.arrive(f"k{seed:02d}.png", picture(seed))
    with pytest.raises(TransientError):
        reembed(world.parts(Failing(20)), "c", Wanted(), patience_seconds=5, notice_seconds=0)
    left = estimate(world.parts(), "c", Wanted())
    assert 0 < left.objects < 40
    world.objects.fetched.clear()
    done = reembed(world.parts(), "c", Wanted(), patience_seconds=5, notice_seconds=0)
    assert len(world.objects.fetched) == left.fetches and done.kept == 40
    assert violations(world.url) == []


def test_reembed__what_is_gone_at_s3_is_gone_there_and_its_twin_is_not(world: World) -> None:
    world.arrive("a.png", picture(1))
    world.arrive("twin.png", picture(1))
    world.arrive("b.png", picture(2))
    for line in world.s3.list_object_versions(Bucket="raw", Prefix="a.png")["Versions"]:
        world.s3.delete_object(Bucket="raw", Key="a.png", VersionId=line["VersionId"])
    reembed(world.parts(), "c", Wanted(), patience_seconds=5, notice_seconds=0)
    now = {key.partition("@")[0]: value[0] for key, value in outcomes(world.url).items()}
    assert now == {"a.png": "gone", "twin.png": "kept", "b.png": "kept"}
    assert violations(world.url) == []


def test_reembed__an_erased_image_leaves_nothing_in_either_space(world: World) -> None:
    world.arrive("a.png", picture(1))
    world.arrive("b.png", picture(2))

    def interrupted(what: str, done: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reembed(
            world.parts(), "c", Wanted(), patience_seconds=0, notice_seconds=0, progress=interrupted
        )
    assert rows(world.url, "SELECT count(*) FROM object_in_space") == [(2,)]
    erasure = new_erasure(
        world.database,
        world.objects,
        derived_bucket="derived",
        curated_bucket="curated",
        journal_bucket="curated",
    )
    erasure.erase(erasure.find("raw", "a.png", None), reason="asked")
    reembed(world.parts(), "c", Wanted(), patience_seconds=5, notice_seconds=0)
    assert rows(world.url, "SELECT count(*) FROM object_in_space") == [(1,)]
    assert rows(world.url, "SELECT count(*) FROM embedding") == [(2,)]
    erasure.erase(erasure.find("raw", "b.png", None), reason="asked")
    assert rows(world.url, "SELECT count(*) FROM object_in_space") == [(0,)]
    assert rows(world.url, "SELECT count(*) FROM embedding") == [(0,)]
    assert violations(world.url) == []


def test_reembed__rulings_hold_in_the_new_space_and_in_the_old_one_again(world: World) -> None:
    """Said before, said since, and taken back since: obeyed on both sides of the move."""
    for seed in range(5):
        world.arrive(f"k{seed}.png", picture(seed))
    said = {
        "same": rule(world.database, "c", "same", [key(1)], other=key(0), **SAID),
        "useless": rule(world.database, "c", "useless", [key(2)], **SAID),
    }

    def now() -> dict[str, str]:
        assert Auditor(world.database).audit(Ledger(world.database).collection("c")).findings == []
        return {k[:2]: value[0] for k, value in outcomes(world.url).items()}

    before = now()
    assert before == {
        "k0": "kept", "k1": "duplicate", "k2": "rejected", "k3": "kept", "k4": "kept",
    }  # fmt: skip
    reembed(world.parts(), "c", Wanted(), patience_seconds=5, notice_seconds=0)
    assert now() == before
    undo_rulings(world.database, "c", ruling_ids=[UUID(said["useless"].ruling_ids[0])])
    rule(world.database, "c", "same", [key(4)], other=key(3), **SAID)
    since = {**before, "k2": "kept", "k4": "duplicate"}
    assert now() == since
    undo(world.database, "c", take_over=False, progress=lambda what, done, of: None)
    assert now() == since and violations(world.url) == []
    assert Ledger(world.database).collection("c").space_id == OLD.space.space_id


def key(number: int) -> S3Uri:
    return S3Uri("raw", f"k{number}.png")


SAID: dict[str, Any] = {"why": "seen", "who": "ann"}


def test_reembed__to_its_own_space_is_a_conflict(world: World) -> None:
    with pytest.raises(ConflictError) as refused:
        estimate(world.parts(OLD), "c", Wanted())
    assert refused.value.code == "same_space"


def test_check_recipe__names_the_release_that_is_needed() -> None:
    check_recipe(NEW.space, None)
    check_recipe(NEW.space, NEW.space.recipe_id)
    check_recipe(NEW.space, NEW.space.recipe_id.partition("-")[0])
    with pytest.raises(SettingError, match="px1"):
        check_recipe(NEW.space, "px1")


def collection(epsilon: float, look: LookRule | None) -> Collection:
    return Collection(1, "c", (), None, "s", epsilon, None if look is None else look.to_json())


KNOWN = Calibration("m", "w", "r", 0.07, LookRule().to_json(), True, "")


def test_rule_in__a_preset_and_a_mask_stay_and_the_narrow_epsilon_is_the_new_models() -> None:
    masked = LookRule(mask=((0.0, 0.0, 0.2, 0.1),))
    rule, vouched = rule_in(collection(0.20, masked), KNOWN, same_weights=False, wanted=Wanted())
    look = LookRule.from_json(rule.second_look or {})
    assert (rule.epsilon, look.narrow, look.mask) == (0.20, 0.07, masked.mask)
    assert look.limits == LookRule().limits and vouched is not None


def test_rule_in__a_rule_of_its_own_goes_on_where_only_the_recipe_changes() -> None:
    own = collection(0.11, LookRule.without_change())
    rule, vouched = rule_in(own, KNOWN, same_weights=True, wanted=Wanted())
    assert (rule.epsilon, rule.second_look) == (own.epsilon, own.second_look) and vouched is None
    rule, _ = rule_in(own, KNOWN, same_weights=True, wanted=Wanted(preset="photos"))
    assert rule.epsilon == 0.20


def test_rule_in__without_a_second_look_the_new_models_epsilon_decides_alone() -> None:
    rule, _ = rule_in(collection(0.11, None), KNOWN, same_weights=False, wanted=Wanted())
    assert (rule.epsilon, rule.second_look) == (0.07, None)
