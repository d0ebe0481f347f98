"""Watches through HTTP, with the Python client in front."""

import time
from typing import Any

import pytest

from ledger_world import image, turned
from pixsift.adapters.ledger.ledger import Ledger
from server_world import World

ASK = {"name": "like a", "examples": [{"uri": "s3://raw/r1/a.jpg"}], "max_distance": 0.3}


def post(world: World, path: str, body: Any, role: str = "reviewer") -> Any:
    return world.client.post(path, json=body, headers=world.as_(role))


def test_watches__from_beginning_to_end(world: World) -> None:
    tried = post(world, "/v1/watches/try", ASK, "viewer").json()
    assert (tried["compared"], tried["matching"]) == (3, 2)
    assert [hit["distance"] < 0.3 for hit in tried["nearest"]] == [True, True, False]
    begun = post(world, "/v1/watches", ASK)
    assert begun.status_code == 201, begun.text
    one = begun.json()
    assert one["state"] == "watching" and one["created_by"].startswith("reviewer#")
    path = f"/v1/watches/{one['watch_id']}"
    ledger = Ledger(world.parts.database)
    ledger.commit(ledger.collection("c"), [image("r4/new.jpg", turned(-30))])
    (hit,) = world.get(f"{path}/hits")["hits"]
    assert hit["uri"] == "s3://raw/r4/new.jpg?versionId=v1" and not hit["is_past"]
    job = post(world, f"{path}/past", {}).json()
    until = time.monotonic() + 20
    while (job := world.get(f"/v1/jobs/{job['job_id']}"))["state"] == "running":
        assert time.monotonic() < until
        time.sleep(0.02)
    assert (job["result"]["added"], job["result"]["matched"]) == (2, 3)
    first = world.get(f"{path}/hits", params={"limit": 2})["hits"]
    rest = world.get(f"{path}/hits", params={"before": first[-1]["hit_id"]})["hits"]
    assert [h["hit_id"] for h in (*first, *rest)] == sorted(
        (h["hit_id"] for h in (*first, *rest)), reverse=True
    )
    assert len(first) + len(rest) == 3
    assert [w["name"] for w in world.get("/v1/watches", params={"collection": "c"})["watches"]] == [
        "like a"
    ]  # fmt: skip
    taken = post(world, "/v1/watches", ASK)
    assert (taken.status_code, taken.json()["code"]) == (409, "watch_exists")
    ended = world.client.delete(path, headers=world.as_("reviewer")).json()
    assert (ended["state"], ended["hits"]) == ("ended", 3)
    assert world.get("/v1/watches")["watches"] == []
    actions = [each["action"] for each in world.get("/v1/actions")["actions"]]
    assert actions[:1] == ["watch_end"] and "watch_begin" in actions


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"max_distance": 2.1}, 422, "invalid_request"),
        ({"max_distance": None}, 422, "invalid_request"),
        ({"name": "a\nb"}, 422, "invalid_request"),
        ({"name": ""}, 422, "invalid_request"),
        ({"examples": []}, 400, "no_examples"),
        ({"collection": "none"}, 404, "unknown_collection"),
        ({"examples": [{"uri": "s3://raw/none.jpg"}]}, 404, "unknown_object"),
        ({"destination": "arn:aws:sqs:eu-west-1:1:q"}, 422, "invalid_request"),
    ],
)
def test_watches__bad_input_is_a_problem(
    world: World, change: dict[str, Any], status: int, code: str
) -> None:
    answer = post(world, "/v1/watches", {**ASK, **change})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    unknown = world.client.get("/v1/watches/999", headers=world.as_("viewer"))
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_watch")
