"""The server under its own policy, enforced: what each endpoint answers with a part taken away."""

import json
import re
from collections.abc import Callable
from contextlib import closing
from typing import Any

import httpx
import pytest

from cloud.enforced import Change, less, without
from cloud.scene import Scene, same
from faults.consumer_process import ConsumerProcess, wait_until
from pixsift_infra.policies import server

LOSSES: dict[str, tuple[str, Change]] = {
    "srv-thumb": ("thumbnail", without("ReadThumbnails")),
    "srv-raw": ("original", without("ReadRaw")),
    "srv-look": ("queues", less("Look", "sqs:GetQueueAttributes")),
    "srv-peek": ("dead letters", without("Peek")),
    "srv-ask": ("snapshot", without("Ask")),
    "srv-snap": ("verify", without("ReadSnapshots")),
    "srv-back": ("redrive", without("SendBack")),
    "srv-done": ("redrive", without("Redrive")),
}
"""Name of a server -> the call that shows what it lacks. Without ``List`` none starts: it must read
the journal first. Not among them: GetObjectVersion, for versions that MiniStack reads with
GetObject; Password and Decrypt, which are not used here."""


def started(process: ConsumerProcess) -> str:
    """Its URL."""
    wait_until(lambda: "server ready" in process.log_text(), seconds=150, what=process.log_text)
    found = re.search(r'"server ready".*?"url":"(http://[^"]+)"', process.log_text())
    assert found, process.log_text()
    return found[1]


class Calls:
    """One server, called as a person would; every answer says whether it went well."""

    def __init__(self, url: str, verified: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=60)
        self._client.headers["x-pixsift-request"] = "test"
        self._verified = verified
        images = self._client.get("/v1/collections/roles/images?outcome=kept").json()["images"]
        self._image = f"/v1/images/{images[0]['object_id']}"

    def all(self) -> dict[str, bool]:
        """Name of each call -> whether it went well."""
        calls: dict[str, Callable[[], bool]] = {
            "thumbnail": lambda: self._get(f"{self._image}/thumbnail").is_success,
            "original": self._original, "queues": self._queues,
            "dead letters": lambda: self._get("/v1/dead-letters").is_success,
            "snapshot": self._snapshot, "verify": self._verify, "redrive": self._redrive,
        }  # fmt: skip
        with closing(self._client):
            return {name: call() for name, call in calls.items()}

    def _get(self, path: str) -> httpx.Response:
        return self._client.get(path)

    def _original(self) -> bool:
        link = self._get(f"{self._image}/original")
        return link.is_success and httpx.get(link.json()["url"], timeout=60).is_success

    def _queues(self) -> bool:
        answer = self._get("/v1/queues")
        return answer.is_success and not any(q["error"] for q in answer.json()["queues"].values())

    def _snapshot(self) -> bool:
        request = {"request_id": "asked", "collection": "roles", "name": "asked",
                   "schema": "pixsift.snapshot-request/2",
                   "select": {"strategy": "k_center", "k": 2}}  # fmt: skip
        return self._client.post("/v1/snapshots", json=request).is_success

    def _verify(self) -> bool:
        job = self._client.post(f"/v1/snapshots/{self._verified}/verify").json()

        def ended() -> dict[str, Any] | None:
            found: dict[str, Any] = self._get(f"/v1/jobs/{job['job_id']}").json()
            return found if found["state"] not in {"waiting", "running"} else None

        wait_until(lambda: ended() is not None, seconds=60, what=lambda: str(job))
        found = ended()
        return found is not None and found["state"] == "done" and not found["result"]["problems"]

    def _redrive(self) -> bool:
        return self._client.post("/v1/redrive", json={"limit": 1}).is_success


@pytest.mark.full
def test_server__works_with_its_policy_and_shows_the_loss_of_any_part(scene: Scene) -> None:
    def serve(name: str, change: Change) -> ConsumerProcess:
        body = json.dumps({"Records": []})
        dlq = scene.make_queues(name)["ingest-dlq"]
        scene.cloud.client("sqs").send_message(QueueUrl=dlq, MessageBody=body)
        environment = scene.environment(name, change(server(scene.places(name))))
        environment["PIXSIFT_SERVER_PORT"] = "0"
        return ConsumerProcess(environment, log=scene.folder / name, module="pixsift_server.main")

    with scene.curator("made", same) as curator:
        wait_until(lambda: scene.is_published("made"), seconds=120, what=curator.log_text)
    with serve("srv-list", without("List")) as unlisted:
        assert unlisted.process.wait(120) == 3
        assert "AccessDenied" in unlisted.log_text()
    answers = {}
    for name, change in {"whole": same, **{n: c for n, (_, c) in LOSSES.items()}}.items():
        with serve(name, change) as process:
            answers[name] = Calls(started(process), "made").all()
    whole = answers.pop("whole")
    assert all(whole.values()), whole
    lost = {name: [call for call, went_well in calls.items() if not went_well]
            for name, calls in answers.items()}  # fmt: skip
    assert {n: call for n, (call, _) in LOSSES.items() if call not in lost[n]} == {}, lost
