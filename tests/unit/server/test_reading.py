"""What the server answers of a real ledger."""

import json
import time

import pytest

from pixsift_server.main import main
from server_world import STRANGE, THUMBNAIL, World


def test_images__pages_hold_everything_once_and_stay_at_their_point(world: World) -> None:
    path = "/v1/collections/c/images"
    first = world.get(path, params={"limit": 3})
    seen = [row["object_id"] for row in first["images"]]
    cursor = first["next_cursor"]
    while cursor:
        page = world.get(path, params={"limit": 3, "cursor": cursor})
        assert page["at_seq"] == first["at_seq"]
        seen += [row["object_id"] for row in page["images"]]
        cursor = page["next_cursor"]
    assert len(seen) == len(set(seen)) == 7
    seqs = [row["seq"] for row in world.get(path)["images"]]
    assert seqs == sorted(seqs, reverse=True)


def test_images__as_of_an_earlier_point(world: World) -> None:
    path = "/v1/collections/c/images"
    early = world.get(path, params={"at_seq": 1})
    assert {row["uri"].split("/")[-1] for row in early["images"]} == {
        "a.jpg?versionId=v1", "b.jpg?versionId=v1"
    }  # fmt: skip
    future = world.client.get(path, params={"at_seq": 99}, headers=world.as_("viewer"))
    assert (future.status_code, future.json()["code"]) == (400, "future_seq")


@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        ({"outcome": "kept"}, {"a", "b", "strange"}),
        ({"outcome": "duplicate"}, {"near", "nearer"}),
        ({"reason": "black"}, {"dark"}),
        ({"outcome": "failed"}, {"odd"}),
        ({"prefix": "r2/"}, {"b", "odd"}),
        ({"attribute": "robot=r2", "outcome": "kept"}, {"b"}),
        ({"attribute": ["robot=r1", "robot=r2"], "outcome": "kept"}, {"a", "b"}),
        ({"attribute": "robot=r9"}, set()),
        ({"min_distance": "0.001"}, {"near"}),
        ({"captured_after": "2001-01-01T00:00:00"}, set()),
    ],
)
def test_images__conditions(world: World, parameters: dict[str, str], names: set[str]) -> None:
    rows = world.get("/v1/collections/c/images", params=parameters)["images"]
    assert {_name(row["uri"]) for row in rows} == names


def test_images__conditions_on_quality_go_with_a_body(world: World) -> None:
    asked = {"quality": {"sharpness": {"min": 0.5}}}
    path = "/v1/collections/c/images/query"
    answer = world.client.post(path, json=asked, headers=world.as_("viewer"))
    assert [_name(row["uri"]) for row in answer.json()["images"]] == ["a"]


def test_images__a_cursor_of_another_query_is_refused(world: World) -> None:
    path = "/v1/collections/c/images"
    cursor = world.get(path, params={"limit": 1})["next_cursor"]
    for parameters, code in (
        ({"outcome": "kept", "cursor": cursor}, "foreign_cursor"),
        ({"cursor": "nonsense"}, "bad_cursor"),
        ({"cursor": cursor[:-4]}, "bad_cursor"),
    ):
        answer = world.client.get(path, params=parameters, headers=world.as_("viewer"))
        assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_image__says_its_verdict_in_a_sentence(world: World) -> None:
    near = world.get(f"/v1/images/{world.id_of('r1/near.jpg')}")
    assert near["sentences"]["c"].startswith("Duplicate of s3://raw/r1/a.jpg?versionId=v1: near")
    kept = world.get(f"/v1/images/{world.id_of('r1/a.jpg')}")
    assert kept["sentences"]["c"] == "Kept: new. It stands for 2 duplicates."
    dark = world.get(f"/v1/images/{world.id_of('r1/dark.jpg')}")
    assert dark["sentences"]["c"].startswith("Rejected: ")


def test_image__unknown_and_ignored_say_so(world: World) -> None:
    for path, code in (("/v1/images/999", "unknown_object"),
                       ("/v1/images?uri=s3://raw/notes.txt", "ignored_object"),
                       ("/v1/images?uri=s3://other/a.jpg", "unknown_object"),
                       ("/v1/images/999/thumbnail", "unknown_object"),
                       ("/v1/collections/none", "unknown_collection")):  # fmt: skip
        answer = world.client.get(path, headers=world.as_("viewer"))
        assert (answer.status_code, answer.json()["code"]) == (404, code), path
        assert answer.headers["content-type"] == "application/problem+json"
    strange = world.client.get(
        "/v1/images?uri=http://169.254.169.254/", headers=world.as_("viewer")
    )
    assert (strange.status_code, strange.json()["code"]) == (400, "bad_uri")


def test_thumbnail__is_webp_whatever_the_key_says(world: World) -> None:
    answer = world.client.get(
        f"/v1/images/{world.id_of('r1/a.jpg')}/thumbnail", headers=world.as_("viewer")
    )
    assert (answer.content, answer.headers["content-type"]) == (THUMBNAIL, "image/webp")
    assert answer.headers["x-content-type-options"] == "nosniff"
    none = world.client.get(
        f"/v1/images/{world.id_of('r2/b.jpg')}/thumbnail", headers=world.as_("viewer")
    )
    assert (none.status_code, none.json()["code"]) == (404, "no_thumbnail")


def test_original__is_a_short_link_for_get_to_the_exact_version(world: World) -> None:
    link = world.get(f"/v1/images/{world.id_of('r1/a.jpg')}/original")
    assert "versionId=v1" in link["url"] and "X-Amz-Expires=180" in link["url"]
    assert "response-content-type=image%2Fjpeg" in link["url"]
    assert link["method"] == "GET"


def test_groups__the_doubtful_first_and_their_members(world: World) -> None:
    (group,) = world.get("/v1/collections/c/groups")["groups"]
    assert (_name(group["uri"]), group["duplicates"]) == ("a", 2)
    path = f"/v1/collections/c/groups/{group['object_id']}"
    first = world.get(path, params={"limit": 1})
    assert [_name(row["uri"]) for row in first["members"]] == ["near"]
    second = world.get(path, params={"limit": 1, "cursor": first["next_cursor"]})
    assert [_name(row["uri"]) for row in second["members"]] == ["nearer"]
    assert second["next_cursor"] is None


def test_facets_and_attributes(world: World) -> None:
    facet = world.get("/v1/collections/c/facets/robot", params={"outcome": "kept"})
    assert {row["value"]: row["images"] for row in facet["values"]}["r1"] == 1
    assert world.get("/v1/collections/c/attributes")[0]["name"] == "robot"


def test_rest__collections_status_turns_undecided_snapshots(world: World) -> None:
    assert world.get("/v1/collections")["collections"][0]["name"] == "c"
    assert world.get("/v1/collections/c/counters")["outcomes"]["kept"] == 3
    assert world.get("/v1/status")["queues"]["ingest"]["waiting"] == 0
    assert world.get("/v1/queues")["queues"]["ingest_dlq"]["error"] is None
    turns = world.get("/v1/collections/c/turns", params={"limit": 2})["turns"]
    assert [turn["reason"] for turn in turns] == ["arrival", "arrival"]
    assert world.get("/v1/undecided")["failed_total"] == 1
    assert world.get("/v1/snapshots")["snapshots"] == []
    assert world.get("/v1/collections/c/generations")["current"] == 1
    cameras = world.get("/v1/collections/c/cameras", params={"by": "robot"})
    assert {camera["camera"] for camera in cameras["cameras"]} >= {"r1", "r2"}
    assert world.client.get("/v1/ready").json()["checks"] == {"ledger": "ok"}


def test_headers__a_strange_key_is_data_everywhere(world: World) -> None:
    answer = world.client.get("/v1/collections/c/images", headers=world.as_("viewer"))
    assert answer.headers["content-type"] == "application/json"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert any(row["uri"] == f"s3://raw/{STRANGE}?versionId=v1" for row in answer.json()["images"])


def test_limits__a_large_body_is_refused_declared_or_not(world: World) -> None:
    path, headers = "/v1/collections/c/images/query", world.as_("viewer")
    large = b"{" + b" " * 1_000_001
    declared = world.client.post(path, content=large, headers=headers)
    assert (declared.status_code, declared.json()["code"]) == (413, "body_too_large")
    chunked = world.client.post(path, content=iter([large[:600_000], large]), headers=headers)
    assert (chunked.status_code, chunked.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("body", ['{"prefix": "a\\u0000"}', '{"reason": "\\ud800"}', "[]", "{"])
def test_limits__text_that_no_ledger_holds_is_refused(world: World, body: str) -> None:
    answer = world.client.post(
        "/v1/collections/c/images/query", content=body.encode(),
        headers=world.as_("viewer") | {"Content-Type": "application/json"},
    )  # fmt: skip
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    nul = world.client.get("/v1/collections/c/images?prefix=%00", headers=world.as_("viewer"))
    assert (nul.status_code, nul.json()["code"]) == (400, "nul")


def test_main__prints_the_description_without_a_ledger(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIXSIFT_DATABASE_URL", raising=False)
    main(["--openapi"])
    found = json.loads(capsys.readouterr().out)
    assert found["openapi"].startswith("3.1")
    assert found["paths"]["/v1/tokens"]["post"]["x-pixsift-role"] == "operator"


def _name(uri: str) -> str:
    if STRANGE in uri:
        return "strange"
    return uri.rsplit("/", maxsplit=1)[-1].split(".", maxsplit=1)[0]


def test_coverage_and_novelty(world: World) -> None:
    ask = {"folder": "s3://raw/r2/", "radius": 0.3}
    started = world.client.post("/v1/collections/c/coverage", json=ask, headers=world.as_("viewer"))
    assert started.status_code == 202, started.text
    path, until = f"/v1/jobs/{started.json()['job_id']}", time.monotonic() + 20
    while (job := world.get(path))["state"] == "running":
        assert time.monotonic() < until
        time.sleep(0.02)
    found = job["result"]
    assert (found["references"], found["images"], found["gaps"], found["uncovered"]) == (1, 2, 0, 1)
    (region,) = found["regions"]
    assert region["images"] == 1 and _name(region["examples"][0]["uri"]) == "a"
    both = world.client.post(
        "/v1/collections/c/coverage", json={**ask, "snapshot": "x"}, headers=world.as_("viewer")
    )
    assert (both.status_code, both.json()["code"]) == (422, "invalid_request")
    robots = world.get("/v1/collections/c/novelty", params={"by": "robot"})
    assert {g["group"]: (g["frames"], g["kept"], g["rejected"]) for g in robots["groups"]}[
        "r1"
    ] == (3, 1, 1)
