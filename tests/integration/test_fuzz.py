"""Random requests by the description (Schemathesis), and injection through every parameter."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings

from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres
from pixsift.api import ROLES
from pixsift_server.access import ACCESS
from server_world import World, new_database, served

PAYLOADS = (
    "' OR 1=1 --", "'; DROP TABLE object; --", '"><img src=x onerror=alert(1)>',
    "../../../../etc/passwd", "a\r\nX-Injected: 1", "\u202etxt", "\U0001f4a5" * 200, "NaN", "[]",
    "%00", "{{7*7}}", "$(id)", "1e999", "-1", "9223372036854775808",
)  # fmt: skip
OWN_HEADERS = {"authorization", "cookie", "host", "origin"}
NOT_FUZZED = {"/v1/events"}
"""A stream without an end; its cursor is tested by itself."""
GOOD = {"collection": "c", "object_id": "1", "attribute": "robot", "snapshot": "none",
        "other": "none", "token_id": "none", "job_id": "none", "watch_id": "1"}  # fmt: skip
TABLES = ("object", "decision", "representative", "ruling", "watch", "api_token", "collection")


@pytest.fixture(scope="module")
def world(postgres: EmbeddedPostgres, template_database: str) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.delenv("AWS_ENDPOINT_URL", raising=False)
        with new_database(postgres, template_database) as url, served(url) as made:
            yield made


def may(method: str, path: str, role: str) -> bool:
    needed = ACCESS[method, path]
    return needed is None or (role in ROLES and ROLES.index(role) >= ROLES.index(needed))


def check(answer: Any, where: str, *, allowed: bool) -> None:
    """Neither a bug nor a gap: no 5xx, and what is not allowed is refused as such."""
    assert answer.status_code < 500, where
    if not allowed:
        assert answer.status_code in (400, 401, 403, 405, 413, 421), where
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json", where
    assert "x-injected" not in answer.headers, where


def attempts(operation: Any, send: Callable[[Any], None], *, examples: int) -> None:
    """Send so many random requests to one endpoint, the same ones in every run."""

    @seed(7)
    @settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(operation.as_strategy())
    def attempt(case: Any) -> None:
        send(case)

    attempt()


def fuzz(world: World, role: str, *, examples: int, only: Sequence[str] = ()) -> int:
    """Random requests to every endpoint as one role; how many were sent."""
    schema = schemathesis.openapi.from_dict(world.client.get("/v1/openapi.json").json())
    sent = [0]
    for found in schema.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]
        method = operation.method.upper()
        if operation.path in NOT_FUZZED or (only and method not in only):
            continue
        allowed = may(method, operation.path, role)

        def send(case: Any, allowed: bool = allowed) -> None:
            request = case.as_transport_kwargs(base_url="http://localhost")
            given_headers = dict(request.pop("headers", None) or {})
            headers = {n: v for n, v in given_headers.items() if n.lower() not in OWN_HEADERS}
            request.pop("cookies", None)
            if isinstance(request.get("data"), bytes | str):
                request["content"] = request.pop("data")
            answer = world.client.request(**request, headers={**headers, **world.as_(role)})
            where = f"{case.method} {request['url']} as {role}: {answer.text[:300]}"
            check(answer, where, allowed=allowed)
            sent[0] += 1

        attempts(operation, send, examples=examples)
    return sent[0]


def test_api__random_requests_find_no_server_error_and_no_gap(world: World) -> None:
    """As the role that may do everything, and as one that may change nothing."""
    assert fuzz(world, "operator", examples=2) > 80
    assert fuzz(world, "viewer", examples=1, only=("POST", "DELETE")) > 20


@pytest.mark.full
@pytest.mark.parametrize("role", ["nobody", *ROLES])
def test_api__many_random_requests_find_no_server_error_and_no_gap(world: World, role: str) -> None:
    fuzz(world, role, examples=40 if role == "operator" else 10)


def parameters(world: World) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in world.client.get("/v1/openapi.json").json()["paths"].items():
        for parameter in methods.get("get", {}).get("parameters", ()):
            if path not in NOT_FUZZED and parameter["in"] in ("query", "path", "header"):
                yield path, parameter


def state(world: World) -> list[Any]:
    with psycopg.connect(world.parts.database.url) as connection:
        return [connection.execute(f"SELECT count(*) FROM {t}").fetchone() for t in TABLES]


def inject(world: World, payloads: Sequence[str]) -> int:
    tried = 0
    for path, parameter in parameters(world):
        for payload in payloads:
            values = dict(GOOD)
            query = {"uri": "s3://raw/r1/a.jpg"} if path == "/v1/images" else {}
            if parameter["in"] == "path":
                values[parameter["name"]] = payload
            elif parameter["in"] == "query":
                query[parameter["name"]] = payload
            target = path
            for name, value in values.items():
                target = target.replace(f"{{{name}}}", quote(value, safe=""))
            answer = world.client.get(target, params=query, headers=world.as_("operator"))
            check(answer, f"GET {target} {query}: {answer.text[:300]}", allowed=True)
            tried += 1
    return tried


def test_api__injection_through_every_parameter_changes_nothing(world: World) -> None:
    before = state(world)
    assert inject(world, PAYLOADS[:4]) > 250
    assert state(world) == before


@pytest.mark.full
def test_api__every_injection_through_every_parameter_changes_nothing(world: World) -> None:
    before = state(world)
    assert inject(world, PAYLOADS) > 900
    assert state(world) == before


BODIES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/search", {"examples": [{"uri": "X"}]}),
    ("/v1/search", {"folder": "X"}),
    ("/v1/search", {"examples": [{"object_id": 1}], "where": {"prefix": "X"}}),
    ("/v1/search", {"examples": [{"object_id": 1}], "where": {"attributes": {"X": ["X"]}}}),
    ("/v1/search", {"examples": [{"object_id": 1}], "where": {"flags": ["X"]}}),
    ("/v1/search", {"examples": [{"object_id": 1}], "where": {"quality": {"X": {"min": 0}}}}),
    ("/v1/watches/try", {"name": "X", "max_distance": 1, "examples": [{"object_id": 1}],
                         "where": {"attributes": {"X": ["X"]}}}),
    ("/v1/collections/c/images/query", {"prefix": "X", "attributes": {"X": ["X"]}}),
    ("/v1/collections/c/images/query", {"reason": "X", "quality": {"X": {"max": 1}}}),
    ("/v1/collections/c/take-back", {"image": "X"}),
    ("/v1/collections/c/rulings", {"kind": "X", "images": ["X"], "why": "X", "dry_run": True}),
    ("/v1/collections/c/rulings/best", {"best": "X", "why": "X"}),
    ("/v1/session", {"token": "X"}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body"), BODIES)
def test_api__injection_through_bodies_changes_nothing(
    world: World, path: str, body: dict[str, Any]
) -> None:
    before = state(world)
    for payload in PAYLOADS:
        answer = world.client.post(path, json=_with(body, payload), headers=world.as_("operator"))
        check(answer, f"{path} {payload!r}: {answer.text[:300]}", allowed=True)
        assert "/etc/passwd" not in answer.text or answer.status_code >= 400
    assert state(world) == before


def _with(value: Any, payload: str) -> Any:
    if isinstance(value, dict):
        return {_with(k, payload): _with(v, payload) for k, v in value.items()}
    if isinstance(value, list):
        return [_with(each, payload) for each in value]
    return payload if value == "X" else value
