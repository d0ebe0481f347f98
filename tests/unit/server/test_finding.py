"""Search through HTTP."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from pixsift.operations.find import QueryEmbedder
from server_world import World


def test_search__by_images_of_the_ledger(world: World) -> None:
    ask = {"examples": [{"uri": "s3://raw/r1/near.jpg"}], "k": 2}
    found = world.client.post("/v1/search", json=ask, headers=world.as_("viewer")).json()
    assert found["hits"][0]["uri"].rsplit("/", 1)[-1] == "a.jpg?versionId=v1"
    assert found["plan"]["how"] == "resident" and found["plan"]["is_exact"]
    assert found["hits"][0]["attributes"] == {"robot": "r1"}
    assert found["hits"][0]["thumbnail"] == f"/v1/images/{world.id_of('r1/a.jpg')}/thumbnail"
    unfolded = world.client.post(
        "/v1/search", json={**ask, "k": 3, "duplicates": "expanded"}, headers=world.as_("viewer")
    ).json()["hits"]
    assert [hit["duplicate_of"] for hit in unfolded[:2]] == [None, unfolded[0]["object_id"]]


def test_neighbors__leave_the_image_itself_out(world: World) -> None:
    a = world.id_of("r1/a.jpg")
    hits = world.get(f"/v1/images/{a}/neighbors")["hits"]
    assert len(hits) == 2 and a not in [hit["object_id"] for hit in hits]
    distances = [hit["distance"] for hit in hits]
    assert distances == sorted(distances)
    rejected = world.client.get(
        f"/v1/images/{world.id_of('r1/dark.jpg')}/neighbors", headers=world.as_("viewer")
    )
    assert (rejected.status_code, rejected.json()["code"]) == (400, "no_vector")


@pytest.mark.parametrize(
    ("ask", "status", "code"),
    [
        ({"k": 0}, 422, "invalid_request"),
        ({"k": 10_001}, 422, "invalid_request"),
        ({}, 400, "no_examples"),
        ({"collection": "none", "examples": [{"object_id": 1}]}, 404, "unknown_collection"),
        ({"examples": [{"object_id": 1, "uri": "s3://raw/a"}]}, 422, "invalid_request"),
        ({"examples": [{"uri": "http://169.254.169.254/x"}]}, 400, "bad_uri"),
        ({"examples": [{"object_id": 1}], "distance": {"min": 1, "max": 0}}, 422,
         "invalid_request"),
    ],
)  # fmt: skip
def test_search__bad_input_is_a_problem(world: World, ask: object, status: int, code: str) -> None:
    answer = world.client.post("/v1/search", json=ask, headers=world.as_("viewer"))
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_upload__of_another_model_is_refused_and_nonsense_named(world: World) -> None:
    png = io.BytesIO()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(png, "PNG")
    send = [("files", ("a.png", png.getvalue(), "image/png"))]
    answer = world.client.post("/v1/search/upload", files=send, headers=world.as_("viewer"))
    assert answer.json()["code"] == "other_space", answer.text  # the world's vectors are made up
    bad = world.client.post(
        "/v1/search/upload", files=send, data={"ask": '{"k": 0}'}, headers=world.as_("viewer")
    )
    assert (bad.status_code, bad.json()["code"]) == (400, "bad_search")
    none = world.client.post("/v1/search/upload", data={"ask": "{}"}, headers=world.as_("viewer"))
    assert none.status_code == 422
    assert isinstance(world.parts.embedder, QueryEmbedder)
    assert json.loads(answer.text)["status"] == 409


def test_search__by_outcome(world: World) -> None:
    viewer = world.as_("viewer")
    ask = {"examples": [{"uri": "s3://raw/r2/b.jpg"}], "k": 9}

    def names(**more: object) -> list[str]:
        answer = world.client.post("/v1/search", json={**ask, **more}, headers=viewer)
        assert answer.status_code == 200, answer.text
        return [h["uri"].rsplit("/", 1)[-1].split(".", 1)[0] for h in answer.json()["hits"]]

    assert names(outcome="duplicate") == ["near", "nearer"]
    assert set(names(outcome="any")) == {*names(), "near", "nearer"}
    assert names(outcome="any", where={"prefix": "r1/"}) == ["near", "nearer", "a"]
    found = world.client.post(
        "/v1/search", json={**ask, "outcome": "duplicate"}, headers=viewer
    ).json()
    assert found["plan"]["how"] == "scan" and found["plan"]["is_exact"]
    assert {hit["outcome"] for hit in found["hits"]} == {"duplicate"}
    assert {hit["duplicate_of"] for hit in found["hits"]} == {world.id_of("r1/a.jpg")}
    both = world.client.post(
        "/v1/search", json={**ask, "outcome": "any", "duplicates": "expanded"}, headers=viewer
    )
    assert (both.status_code, both.json()["code"]) == (422, "invalid_request")
