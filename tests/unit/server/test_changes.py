"""Changes through HTTP: rulings, other rules, jobs; and who did what."""

import time
from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest

from pixsift.api import Me
from pixsift.api_changes import Job
from pixsift.telemetry import make_logger
from pixsift_server.jobs import Jobs, ReportProgress
from server_world import World


def post(world: World, path: str, body: object, role: str = "operator") -> Any:
    answer = world.client.post(path, json=body, headers=world.as_(role))
    assert answer.status_code in (200, 201, 202), answer.text
    return answer.json()


def ended(world: World, job: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while job["state"] == "running":
        assert time.monotonic() < deadline, job
        time.sleep(0.05)
        job = world.get(f"/v1/jobs/{job['job_id']}")
    return job


def test_rulings__are_said_signed_and_taken_back(world: World) -> None:
    path = "/v1/collections/c/rulings"
    ask = {"kind": "also_keep", "images": ["s3://raw/r1/near.jpg"], "why": "the only one by day"}
    tried = post(world, path, {**ask, "dry_run": True}, "reviewer")
    assert tried["changed"] == {"duplicate -> kept": 1}
    done = post(world, path, ask, "reviewer")
    assert done["changed"] == {"duplicate -> kept": 1}
    (line,) = world.get(path)["rulings"]
    assert line["who"].startswith("reviewer#")
    assert world.get("/v1/collections/c/turns")["turns"][0]["actor"].startswith("reviewer#")
    assert world.get("/v1/actions")["actions"][0]["action"] == "ruling"
    undone = post(world, f"{path}/undo", {"ruling_ids": done["ruling_ids"]}, "reviewer")
    assert undone["changed"] == {"kept -> duplicate": 1}
    again = world.client.post(
        f"{path}/undo", json={"ruling_ids": done["ruling_ids"]}, headers=world.as_("reviewer")
    )
    assert (again.status_code, again.json()["code"]) == (404, "unknown_ruling")


def test_rulings__the_best_of_groups_is_a_dry_run_unless_told(world: World) -> None:
    ask = {"best": "most sharpness", "why": "sharper"}
    shown = post(world, "/v1/collections/c/rulings/best", ask, "reviewer")
    assert shown["dry_run"] and shown["groups"] == 1


def test_jobs__are_cancelled_by_who_started_them_or_an_operator(world: World) -> None:
    started = Event()
    release = Event()

    def work(report: ReportProgress) -> Me:
        started.set()
        release.wait(60)
        report("late", 1, 1)
        return Me(actor="x", role="viewer", how="loopback")

    def cancel(role: str, job: Job) -> int:
        path = f"/v1/jobs/{job.job_id}"
        return int(world.client.delete(path, headers=world.as_(role)).status_code)

    me = world.get("/v1/me", "viewer")["actor"]
    theirs = world.parts.jobs.start("redecide", work, asked_by="operator#1", collection="c")
    try:
        assert started.wait(60)
        own = world.parts.jobs.start("coverage", work, asked_by=me, collection="c")
        assert [cancel(role, theirs) for role in ("viewer", "reviewer")] == [403, 403]
        assert cancel("viewer", own) == 200
        assert cancel("operator", theirs) == 200
    finally:
        release.set()
    for job in (theirs, own):
        assert ended(world, world.get(f"/v1/jobs/{job.job_id}"))["state"] == "cancelled"


def test_generations__what_if_redecide_and_back_are_jobs(world: World) -> None:
    path = "/v1/collections/c"
    tried = ended(world, post(world, f"{path}/what-if", {"epsilon": 0.0001}, "reviewer"))
    assert tried["state"] == "done" and tried["result"]["newly_kept"] == 2, tried
    assert world.get(f"{path}/generations")["current"] == 1
    done = ended(world, post(world, f"{path}/generations", {"epsilon": 0.0001}))
    assert done["result"]["generation"] == 2 and done["asked_by"].startswith("operator#")
    back = ended(world, post(world, f"{path}/generations/undo", {}))
    assert back["result"]["generation"] == 3
    nothing = world.client.post(f"{path}/generations", json={}, headers=world.as_("operator"))
    assert ended(world, nothing.json())["problem"]["code"] == "no_rule"
    assert [job["kind"] for job in world.get("/v1/jobs")["jobs"]][:2] == [
        "redecide", "undo_generation"
    ]  # fmt: skip


def test_audit_and_selection__are_jobs(world: World) -> None:
    checked = ended(world, post(world, "/v1/collections/c/audits", {}, "reviewer"))
    assert checked["state"] == "done" and checked["result"][0]["findings"] == []
    request = {
        "request_id": "try", "collection": "c", "name": "try",
        "select": {"strategy": "k_center", "k": 2, "seed": 1},
    }  # fmt: skip
    chosen = ended(world, post(world, "/v1/selections", request, "reviewer"))
    assert len(chosen["result"]["images"]) == 2, chosen
    wrong = {**request, "select": {"strategy": "k_center", "k": 10**6}}
    failed = ended(world, post(world, "/v1/selections", wrong, "reviewer"))
    assert failed["state"] == "failed" and failed["problem"]["status"] == 400


def test_snapshot_request_and_redrive__go_to_their_queues(world: World) -> None:
    request = {
        "request_id": "r-1", "collection": "c", "name": "n",
        "select": {"strategy": "random", "k": 1},
    }  # fmt: skip
    assert post(world, "/v1/snapshots", request)["request_id"] == "r-1"
    assert world.get("/v1/queues")["queues"]["snapshot_requests"]["waiting"] == 1
    assert post(world, "/v1/redrive", {"failed": True})["failed_objects"] == 1
    taken = post(
        world, "/v1/collections/c/take-back", {"image": "s3://raw/r1/dark.jpg"}, "operator"
    )
    assert taken["sent_again"] == ["s3://raw/r1/dark.jpg?versionId=v1"]
    missing = world.client.get("/v1/snapshots/x/diff/y", headers=world.as_("viewer"))
    assert missing.status_code == 404


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    made = Jobs(make_logger("test", "CRITICAL"))
    yield made
    made.close()


def until(jobs: Jobs, job: Job) -> Job:
    deadline = time.monotonic() + 10
    while jobs.get(job.job_id).state == "running":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return jobs.get(job.job_id)


def test_jobs__one_is_cancelled_where_it_tells_of_progress(jobs: Jobs) -> None:
    def endless(report: ReportProgress) -> Me:
        while True:
            report("counting", 1, None)
            time.sleep(0.01)

    job = jobs.start("audit", endless, asked_by="ann", collection="c")
    jobs.cancel(job.job_id)
    assert until(jobs, job).state == "cancelled"


def test_jobs__a_bug_is_a_failed_job_and_too_many_are_refused(jobs: Jobs) -> None:
    def broken(report: ReportProgress) -> Me:
        raise ZeroDivisionError

    found = until(jobs, jobs.start("audit", broken, asked_by="ann", collection=None))
    assert found.problem is not None and found.problem.code == "internal_error"
