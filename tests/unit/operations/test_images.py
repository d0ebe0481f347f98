"""What a newcomer asks first: which images were rejected, and why is this one not there."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from ledger_world import finding, image, ledger_of, new_collection, turned
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.postgres.database import Database
from pixsift.core.camera_health import HealthLimits
from pixsift.core.identity import S3Uri
from pixsift.core.sources import SourceRule
from pixsift.errors import NotFoundError, RequestError
from pixsift.operations.explain import explain
from pixsift.operations.images import images, ledger_time, wait_for_outcomes
from pixsift.operations.quality import cameras
from pixsift.operations.retrieve import only_collection

RULE = SourceRule("raw", "in/", include=("*.jpg", "*.txt"), exclude=("*.txt",))


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    """Two kept, one near the first, one black, one blurred."""
    with ledger_of(database_url) as made:
        collection = new_collection(made, sources=[RULE])
        made.commit(collection, [image("in/a.jpg", turned(0)), image("in/b.jpg", turned(90))])
        made.commit(collection, [image("in/near.jpg", turned(5))])
        made.commit(collection, [finding("in/dark.jpg", "rejected", "black")])
        made.commit(collection, [finding("in/soft.jpg", "rejected", "blurred")])
        yield made


@pytest.fixture
def database(database_url: str, ledger: Ledger) -> Iterator[Database]:
    with Database(database_url) as opened:
        yield opened


def test_images__by_outcome_and_reason_newest_first(database: Database) -> None:
    rejected = images(database, outcome="rejected").images
    assert [row.reason for row in rejected] == ["blurred", "black"]
    (dark,) = images(database, reason="black").images
    assert (dark.uri, dark.outcome) == ("s3://raw/in/dark.jpg?versionId=v1", "rejected")
    (near,) = images(database, outcome="duplicate").images
    assert near.representative == "s3://raw/in/a.jpg?versionId=v1"
    assert near.distance is not None and near.distance > 0
    assert len(images(database, limit=2).images) == 2
    assert [row.uri for row in images(database, prefix="in/b").images] == [
        "s3://raw/in/b.jpg?versionId=v1"
    ]


def test_images__what_does_not_exist_is_a_mistake(database: Database) -> None:
    with pytest.raises(RequestError, match="no outcome 'keep': there are kept"):
        images(database, outcome="keep")
    with pytest.raises(RequestError, match="no image has the reason 'dark': there are black"):
        images(database, reason="dark")


def test_explain__an_ignored_object_by_which_rule(database: Database) -> None:
    with pytest.raises(NotFoundError, match=r"ignored by the rule exclude '\*.txt' of collec") as e:
        explain(database, S3Uri("raw", "in/notes.txt"))
    assert e.value.code == "ignored_object"
    with pytest.raises(NotFoundError, match=r"ignored by the rule include '\*.jpg', '\*.txt'"):
        explain(database, S3Uri("raw", "in/film.mp4"))


def test_explain__what_nobody_judges_and_what_has_not_arrived(database: Database) -> None:
    with pytest.raises(NotFoundError, match=r"no collection judges s3://raw/out/a\.jpg"):
        explain(database, S3Uri("raw", "out/a.jpg"))
    with pytest.raises(NotFoundError, match=r"has not arrived; known keys like it: in/a\.jpg"):
        explain(database, S3Uri("raw", "in/a.jp.jpg"))


def test_wait_for_outcomes__counts_ignored_and_undecided(database: Database) -> None:
    keys = ["in/a.jpg", "in/dark.jpg", "in/notes.txt", "in/late.jpg"]
    told = wait_for_outcomes(database, "raw", keys, since=None, timeout_seconds=0)
    assert told.outcomes == {"kept (new)": 1, "rejected (black)": 1}
    assert (told.ignored, told.undecided) == (1, 1)


def test_wait_for_outcomes__what_was_there_before_does_not_count(
    database: Database, ledger: Ledger
) -> None:
    now = ledger_time(database)
    told = wait_for_outcomes(database, "raw", ["in/a.jpg"], since=now, timeout_seconds=0)
    assert told.undecided == 1
    earlier = now - timedelta(hours=1)
    told = wait_for_outcomes(database, "raw", ["in/a.jpg"], since=earlier, timeout_seconds=0)
    assert told.undecided == 0


def test_cameras__refuses_where_it_knows_no_camera(database: Database) -> None:
    with pytest.raises(RequestError, match="no frame of collection 'c' has the attribute") as e:
        cameras(database, None, by="camera", since=None, limits=HealthLimits())
    assert e.value.remedy is not None and e.value.remedy.code == "name_camera"


def test_only_collection__default_goes_before_others(database: Database, ledger: Ledger) -> None:
    assert only_collection(database, None).name == "c"
    new_collection(ledger, "other")
    with pytest.raises(RequestError, match="several collections exist"):
        only_collection(database, None)
    new_collection(ledger, "default")
    assert only_collection(database, None).name == "default"
