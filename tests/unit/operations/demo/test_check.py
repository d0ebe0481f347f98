"""The demo's check: silent over a right ledger, and each way of being wrong is named."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pixsift.core.outcomes import ObjectOutcome, SnapshotObject
from pixsift.operations.demo.check import check_ledger, check_snapshot, is_complete
from pixsift.operations.demo.robots import DemoPlan, Upload
from pixsift.operations.demo.run import Standing, Standstill

PLAN = DemoPlan({
    "robot-1": [
        Upload("a.jpg", b"a", "frame"),
        Upload("b.jpg", b"b", "frame"),
        Upload("a-again.jpg", b"a", "copy"),
        Upload("dark.jpg", b"d", "dark"),
        Upload("gone.jpg", b"g", "deleted"),
        Upload("a.json", b"{}", "sidecar"),
    ]
})  # fmt: skip
SENT = {upload.key: f"v-{upload.key}" for upload in PLAN.uploads}
SHA = {upload.key: upload.sha256() for upload in PLAN.uploads}


def row(object_id: int, key: str, outcome: Any, reason: str, **more: Any) -> ObjectOutcome:
    facts: dict[str, Any] = {
        "content_sha256": SHA[key], "thumbnail_key": None, "quality": None,
        "representative_object_id": None, "distance": None, **more,
    }  # fmt: skip
    return ObjectOutcome(
        object_id=object_id, bucket="raw", key=key, version_id=SENT[key],
        outcome=outcome, reason=reason, **facts,
    )  # fmt: skip


ROWS = [
    row(1, "a.jpg", "kept", "new"),
    row(2, "b.jpg", "duplicate", "near", representative_object_id=1, distance=0.05),
    row(3, "a-again.jpg", "duplicate", "content", representative_object_id=1),
    row(4, "dark.jpg", "rejected", "black"),
    row(5, "gone.jpg", "gone", "deleted"),
]


def test_check_ledger__silent_when_all_is_right() -> None:
    assert check_ledger(PLAN, SENT, ROWS, epsilon=0.1) == []


def changed(index: int, **fields: Any) -> list[ObjectOutcome]:
    rows = list(ROWS)
    rows[index] = replace(rows[index], **fields)
    return rows


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (ROWS[1:], "a.jpg: 0 outcomes"),
        ([*ROWS, ROWS[0]], "a.jpg: 2 outcomes"),
        (changed(0, version_id="other"), "a.jpg: 0 outcomes"),
        (changed(3, reason="blurred"), "dark.jpg (dark): rejected/blurred"),
        (changed(3, outcome="kept", reason="new"), "dark.jpg (dark): kept/new"),
        (changed(4, outcome="kept", reason="new"), "gone.jpg (deleted): kept/new"),
        (changed(1, outcome="failed", reason="embed"), "b.jpg (frame): failed/embed"),
        (changed(2, outcome="kept", reason="new"), "equal bytes are kept twice"),
        (changed(1, representative_object_id=4), "b.jpg: its representative is not kept"),
        (changed(1, representative_object_id=None), "b.jpg: its representative is not kept"),
        (changed(1, distance=0.11), "b.jpg: 0.1100 from its representative"),
        (changed(1, content_sha256=b"x"), "b.jpg: the ledger's content hash"),
        ([*ROWS, row(6, "a.json", "rejected", "not_an_image")], "a.json: in the ledger"),
    ],
)
def test_check_ledger__names_what_is_wrong(rows: list[ObjectOutcome], complaint: str) -> None:
    complaints = check_ledger(PLAN, SENT, rows, epsilon=0.1)
    assert any(complaint in text for text in complaints), complaints


def test_check_ledger__what_was_never_sent_is_named() -> None:
    sent = {key: version for key, version in SENT.items() if key != "b.jpg"}
    assert check_ledger(PLAN, sent, ROWS, epsilon=0.1) == ["b.jpg: 0 outcomes, 1 was due"]


ITEM = SnapshotObject(
    object_id=1, rank=0, split="train", destination_key="data/train/a.jpg", bucket="raw",
    key="a.jpg", version_id=SENT["a.jpg"], content_sha256=SHA["a.jpg"],
)  # fmt: skip


@pytest.mark.parametrize(
    ("items", "copies", "complaint"),
    [
        ([ITEM], {"data/train/a.jpg": b"a"}, None),
        ([], {}, "holds 0 images, 1 were due"),
        ([ITEM], {}, "the copy of a.jpg is missing"),
        ([ITEM], {"data/train/a.jpg": b"b"}, "the copy of a.jpg has other bytes"),
        ([replace(ITEM, object_id=2)], {"data/train/a.jpg": b"a"}, "a.jpg, which is not kept"),
    ],
)
def test_check_snapshot__names_what_is_wrong(
    items: list[SnapshotObject], copies: dict[str, bytes], complaint: str | None
) -> None:
    complaints = check_snapshot(items, ROWS, copies, wanted=5)
    assert len(complaints) == (complaint is not None)
    assert all(complaint is not None and complaint in text for text in complaints)


@pytest.mark.parametrize(
    ("change", "complete"),
    [
        (lambda outcomes: None, True),
        (lambda outcomes: outcomes.pop("gone"), False),
        (lambda outcomes: outcomes.update(gone=0, kept=2), False),
    ],
)
def test_is_complete__waits_for_the_deleted_to_be_gone(
    change: Callable[[dict[str, int]], object], complete: bool
) -> None:
    outcomes = {"kept": 1, "duplicate": 2, "rejected": 1, "gone": 1}
    change(outcomes)
    assert is_complete(PLAN, outcomes) is complete


def test_standstill__every_change_gives_new_time() -> None:
    standstill = Standstill(120)
    standing = Standing(planned=5, uploaded=1, backlog=1, outcomes={})
    assert not standstill.is_reached(standing, now=1000)
    assert not standstill.is_reached(standing, now=1119)
    decided = replace(standing, outcomes={"kept": 1})
    assert not standstill.is_reached(decided, now=1120)
    assert not standstill.is_reached(decided, now=1239)
    assert standstill.is_reached(decided, now=1240)
