"""What a request chooses: the same for a preview and for the curator."""

import pytest

from ledger_world import image, turned
from pixsift.adapters.ledger.ledger import Ledger
from pixsift.adapters.ledger.pool import pool_point
from pixsift.adapters.postgres.database import Database
from pixsift.errors import NotFoundError, RequestError
from pixsift.messages import Select, SnapshotRequest, Split
from pixsift.operations.choose import choose, preview


@pytest.fixture
def kept(ledger: Ledger) -> Ledger:
    """Six kept images, 30 degrees from one to the next, in two turns."""
    for start in (0, 3):
        batch = [image(f"{n}.jpg", turned(30 * n)) for n in range(start, start + 3)]
        ledger.commit(ledger.collection("c"), batch)
    return ledger


def request(**select: object) -> SnapshotRequest:
    chosen = {"strategy": "k_center", "k": 3, "seed": 7} | select
    return SnapshotRequest(
        request_id="r", collection="c", name="n", select=Select.model_validate(chosen),
        split=Split(train=0.5, val=0.5, test=0.0),
    )  # fmt: skip


def test_choose__at_an_earlier_point_sees_what_was_kept_then(
    database: Database, kept: Ledger
) -> None:
    point = pool_point(database, "c", 1)
    with choose(database, request(k=3), point) as choice:
        earlier = preview(database, request(k=3), choice)
    assert (earlier.candidates, earlier.at_seq) == (3, 1)
    assert {image.uri for image in earlier.images} == {
        f"s3://raw/{n}.jpg?versionId=v1" for n in range(3)
    }
    with choose(database, request(k=3)) as choice:
        assert len(choice.pool.object_ids) == 6


def test_choose__twice_is_the_same_choice(database: Database, kept: Ledger) -> None:
    with choose(database, request()) as one, choose(database, request()) as other:
        assert one.selection.object_ids.tolist() == other.selection.object_ids.tolist()
        assert list(one.splits) == list(other.splits)


def test_preview__counts_its_splits_and_ranks_its_images(database: Database, kept: Ledger) -> None:
    with choose(database, request(k=4)) as choice:
        shown = preview(database, request(k=4), choice)
    assert [image.rank for image in shown.images] == [0, 1, 2, 3]
    assert sum(shown.splits.values()) == 4
    assert all(image.split in shown.splits for image in shown.images)


def test_choose__more_than_there_are_names_the_numbers(database: Database, kept: Ledger) -> None:
    with pytest.raises(RequestError, match="6"), choose(database, request(k=7)):
        pass


def test_choose__an_unknown_snapshot_to_grow_from_names_the_field(
    database: Database, kept: Ledger
) -> None:
    grown = request(preselected_snapshot="absent")
    with (
        pytest.raises(NotFoundError, match=r"^select\.preselected_snapshot: "),
        choose(database, grown),
    ):
        pass
