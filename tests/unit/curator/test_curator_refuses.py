"""Requests that lead to no snapshot, and what else goes wrong on the way."""

import json
import threading
from typing import Any

import pytest

from ledger_world import finding
from pixsift.adapters.local.events_stack import events_template
from pixsift.errors import DependencyDownError, TransientError
from snapshot_world import Kill, KilledError, World, expire_leases, images_in, refusal, request


def test_serve__a_source_that_is_gone_fails_the_snapshot(world: World) -> None:
    version, _ = world.uploaded[5]
    world.s3.delete_object(Bucket="raw", Key=version.key, VersionId=version.version_id)
    assert world.serve(request(select={"strategy": "all"})) == "done"
    snapshot = world.snapshots.get(world.snapshot_id())
    assert snapshot.state == "failed"
    assert snapshot.error is not None
    assert snapshot.error.startswith("source_missing: ")
    assert version.uri in snapshot.error
    assert not any(key.endswith("snapshot.json") for key in world.exported())
    kind, detail = world.news.told[-1]
    assert (kind, detail["reason"]) == ("SnapshotFailed", snapshot.error)


def test_serve__a_delete_marker_does_not_hide_the_version(world: World) -> None:
    version, _ = world.uploaded[5]
    world.s3.delete_object(Bucket="raw", Key=version.key)
    world.serve(request(select={"strategy": "all"}))
    assert len(images_in(world.published())) == 12


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"collection": "nowhere"}, "unknown_collection: 'nowhere' does not exist"),
    ({"at_seq": 4}, "at_seq 4 is in the future: collection 'c' is at 3"),
    ({"select": {"strategy": "k_center", "k": 13}}, "cannot choose 13 of 12 candidates"),
    ({"where": {"prefix": "nothing/"}}, "no image matches the filter"),
    ({"select": {"strategy": "random", "k": 1, "preselected_snapshot": "x"}},
     "snapshot 'x' does not exist"),
    ({"select": {"strategy": "k_center"}}, "invalid_request: select: "),
    ({"select": {"strategy": "all", "k": 3}}, "strategy 'all' takes every image: remove k"),
    ({"select": {"k": 1, "clusters": 2}}, "clusters and cluster_share need strategy 'balanced'"),
    ({"select": {"k": 1, "cluster_share": "sqrt"}}, "clusters and cluster_share need strategy"),
    ({"select": {"k": 1, "dissimilar_to": ["s3://a/b"]}}, "need strategy 'similar'"),
    ({"select": {"strategy": "all", "quota": {"by": "a"}}},
     "strategy 'all' cannot be combined with a quota"),
    ({"select": {"k": 1, "strategy": "stratified", "quota": {"by": "a", "inside": "similar"}}},
     "strategy 'similar' needs similar_to"),
    ({"select": {"k": 1, "strategy": "random", "quota": {"by": "a", "inside": "balanced"}}},
     "quota.inside 'balanced' contradicts strategy 'random'"),
    ({"select": {"k": 1, "quota": {"by": "a", "share": "explicit", "counts": {"b": -1}}}},
     "select.quota.counts.b: "),
    ({"select": {"k": 1, "at_most": True, "quota": {"by": "a", "share": "explicit"}}},
     "at_most cannot be combined with explicit counts"),
    ({"where": {"quality": {"sharpness": {"min": 2, "max": 1}}}}, "min 2 is above max 1"),
    ({"where": {"captured_after": "2026-11-02T00:00:00Z", "captured_before": "2026-11-01"}},
     "captured_after must be before captured_before"),
    ({"select": {"strategy": "random", "k": 1, "seed": 1 << 63}}, "invalid_request: select.seed: "),
    ({"select": {"strategy": "random", "k": 1, "quota": {"by": "a", "counts": {"b": 1}}}},
     "counts need share 'explicit', not 'equal'"),
    ({"at_seq": 1 << 63}, "invalid_request: at_seq: "),
    ({"k": 5}, "invalid_request: k: Extra inputs are not permitted"),
    ({"schema": "pixsift.snapshot-request/3"}, "invalid_request: schema: "),
]  # fmt: skip
RUBBISH = ["", "{", "[]", '"x"', "null", '{"request_id": "a\\u0000"}', "[" * 100_000,
           '{"request_id": "\\ud800"}']  # fmt: skip


def test_serve__what_cannot_be_done_is_recorded_and_told(world: World) -> None:
    for number, (changes, reason) in enumerate(REFUSED):
        body = request(request_id=f"n{number}", **changes)
        for _ in range(2):  # the second delivery comes to the same end, and tells it again
            told = len(world.news.told)
            assert world.serve(body) == "done"
            assert reason in refusal(world, f"n{number}")
            assert len(world.news.told) == told + 1
    assert not world.exported()


def test_serve__the_schedules_own_request_needs_no_thousand_images(world: World) -> None:
    resources = json.loads(events_template())["Resources"].values()
    (rule,) = (r["Properties"] for r in resources if r["Type"] == "AWS::Events::Rule")
    parts = rule["Targets"][0]["InputTransformer"]["InputTemplate"]["Fn::Join"][1]
    text = "".join(part if isinstance(part, str) else "c" for part in parts)
    assert world.serve(text.replace("<id>", '"tick-1"')) == "done"
    snapshot = world.snapshots.get(world.snapshot_id("tick-1"))
    assert (snapshot.state, snapshot.images) == ("published", 12)
    assert snapshot.report["fewer"] == "all 12 there are, where 1000 were asked for at most"


def test_serve__rubbish_is_kept_as_an_anomaly(world: World) -> None:
    for number, body in enumerate(RUBBISH):
        assert world.serve(body, message_id=f"m-{number}") == "done"
        assert refusal(world, f"message:m-{number}").startswith("invalid_request: ")
    with world.database.connection() as connection:
        rows = connection.execute("SELECT body FROM anomaly ORDER BY anomaly_id").fetchall()
    assert [bytes(row[0]).decode() for row in rows] == RUBBISH


def test_serve__a_bus_that_refuses_changes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(detail_type: str, detail: dict[str, Any]) -> None:
        raise DependencyDownError("not allowed to put events")

    monkeypatch.setattr(world.news, "announce", refuse)
    assert world.serve(request()) == "done"
    assert world.published()


def test_serve__a_bucket_that_is_away_is_no_failure(world: World) -> None:
    world.s3.delete_bucket(Bucket="curated")
    with pytest.raises((DependencyDownError, TransientError)):
        world.serve(request())
    assert world.snapshots.get(world.snapshot_id()).state == "copying"
    world.s3.create_bucket(Bucket="curated")
    expire_leases(world)
    assert world.serve(request()) == "done"
    assert world.published()


def test_serve__the_location_of_another_snapshot_is_not_overwritten(world: World) -> None:
    with pytest.raises(KilledError):
        world.serve(request(), world.exporter(at_point=Kill("described")))
    prefix = world.snapshots.get(world.snapshot_id()).prefix
    world.s3.put_object(Bucket="curated", Key=prefix + "snapshot.json", Body=b"{}")
    expire_leases(world)
    world.curator().resume(threading.Event())
    snapshot = world.snapshots.get(world.snapshot_id())
    assert snapshot.state == "failed"
    assert snapshot.error is not None
    assert snapshot.error.startswith("location_taken")
    assert world.exported(prefix + "snapshot.json") == {prefix + "snapshot.json": b"{}"}


def test_serve__a_later_decision_does_not_change_a_past_point(world: World) -> None:
    gone = world.uploaded[0][0]
    world.ledger.commit(
        world.collection, [finding(gone.key, "gone", "deleted", version=gone.version_id)]
    )
    world.serve(request(at_seq=3, select={"strategy": "all"}))
    assert len(images_in(world.published())) == 12
