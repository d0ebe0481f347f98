"""What never ends must end: as a snapshot, or as an announced failure."""

import json
import threading
from contextlib import suppress

import pytest

from pixsift.errors import DependencyDownError
from pixsift.operations.serve_request import RequestMessage
from snapshot_world import Kill, KilledError, World, expire_leases, refusal, request


def test_exporter__a_list_that_ends_every_curator_fails_and_is_announced(world: World) -> None:
    """Six die at the same place, before anything is copied; the next one says so."""
    for _ in range(6):
        with suppress(KilledError):
            curator = world.curator(world.exporter(at_point=Kill("claimed")))
            message = RequestMessage("requests", "m-1", json.dumps(request()))
            curator.serve(message, threading.Event())
        expire_leases(world)
    assert world.curator().resume(threading.Event())
    snapshot = world.snapshots.get(world.snapshot_id())
    assert snapshot.state == "failed"
    assert snapshot.error is not None and snapshot.error.startswith("ended_the_process: ")
    assert world.news.told[-1][0] == "SnapshotFailed"


def test_exporter__kills_with_progress_between_them_fail_nothing(world: World) -> None:
    """Twelve images, each exporter dies with one more copied."""
    for _ in range(8):
        with suppress(KilledError):
            exporter = world.exporter(at_point=Kill("image_copied", 1))
            world.serve(request(select={"strategy": "all"}), exporter)
        expire_leases(world)
    assert world.curator().resume(threading.Event())
    assert world.snapshots.get(world.snapshot_id()).state == "published"


def test_exporter__an_outage_of_a_day_fails_the_snapshot(world: World) -> None:
    def refuse(point: str) -> None:
        if point == "copied":
            raise DependencyDownError("the curated bucket is away")

    with pytest.raises(DependencyDownError):
        world.serve(request(), world.exporter(at_point=refuse))
    with world.database.connection() as connection:
        connection.execute(
            "UPDATE snapshot SET created_at = now() - interval '25 hours', lease_until = NULL"
        )
    assert world.curator(world.exporter(at_point=refuse)).resume(threading.Event())
    snapshot = world.snapshots.get(world.snapshot_id())
    assert (snapshot.state, snapshot.error) == ("failed", "gave_up: the curated bucket is away")
    assert world.news.told[-1][1]["reason"] == snapshot.error


def test_give_up__a_request_whose_list_is_stored_goes_on(world: World) -> None:
    with pytest.raises(KilledError):
        world.serve(request(), world.exporter(at_point=Kill("claimed")))
    message = RequestMessage("requests-dlq", "m-1", json.dumps(request()))
    world.curator().give_up(message, "internal_error: bug")
    assert world.news.told == []
    message = RequestMessage("requests-dlq", "m-2", json.dumps(request(request_id="r2", name="b")))
    world.curator().give_up(message, "internal_error: bug")
    assert refusal(world, "r2") == "internal_error: bug"
