"""Who may do what: every endpoint, every role, and the ways around it."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from pixsift.api import ROLES
from pixsift.config import ServerSettings
from pixsift.errors import SettingError
from pixsift_server.access import ACCESS, RateLimiter
from pixsift_server.app import bare_app
from pixsift_server.main import main
from pixsift_server.wiring import access_rules
from server_world import World, client_of, parts_over

IDS = {"{collection}": "c", "{object_id}": "1", "{snapshot}": "none", "{token_id}": "none",
       "{attribute}": "robot", "{other}": "none", "{job_id}": "none",
       "{watch_id}": "0"}  # fmt: skip


def endpoints(router: Any = None) -> Iterator[tuple[str, str]]:
    """Of every router in the app; a route of another kind would have no check."""
    for route in (router or bare_app()).routes:
        if hasattr(route, "original_router"):
            yield from endpoints(route.original_router)
            continue
        assert isinstance(route, APIRoute), f"{route} has no check"
        for method in route.methods or ():
            yield method, route.path


def test_access__the_table_names_every_endpoint_and_no_other() -> None:
    assert set(endpoints()) == set(ACCESS)


@pytest.mark.parametrize(("method", "path"), sorted(set(ACCESS) - {("GET", "/v1/events")}))
def test_access__each_role_may_do_what_the_table_says_and_no_more(
    world: World, method: str, path: str
) -> None:
    needed = ACCESS[method, path]
    for name, value in IDS.items():
        path = path.replace(name, value)
    """The stream has no end: see tests/integration/test_server_process.py."""
    for role in ("nobody", *ROLES):
        answer = world.client.request(method, path, headers=world.as_(role))
        is_problem = answer.headers.get("content-type") == "application/problem+json"
        refusal = answer.json()["code"] if is_problem else None
        if needed is None:
            assert answer.status_code not in (401, 403) and answer.status_code < 500
        elif role == "nobody":
            assert (answer.status_code, refusal) == (401, "unauthorized"), answer.text
        elif ROLES.index(role) < ROLES.index(needed):
            assert (answer.status_code, refusal) == (403, "forbidden"), answer.text
        else:
            assert answer.status_code < 500 and answer.status_code not in (401, 403), answer.text


def test_token__is_stored_hashed_shown_once_and_ends_when_revoked(world: World) -> None:
    operator = world.as_("operator")
    made = world.client.post("/v1/tokens", json={"name": "nb"}, headers=operator)
    assert made.status_code == 201
    token, token_id = made.json()["token"], made.json()["token_id"]
    mine = {"Authorization": f"Bearer {token}"}
    assert world.client.get("/v1/me", headers=mine).json()["actor"] == f"nb#{token_id}"
    with psycopg.connect(world.parts.database.url) as connection:
        stored = str(connection.execute("SELECT t FROM api_token t").fetchall())
    assert token.split("_", 2)[2] not in stored
    listed = world.get("/v1/tokens", "operator")["tokens"]
    assert token_id in {each["token_id"] for each in listed}
    assert not any("token" in each for each in listed)
    world.client.delete(f"/v1/tokens/{token_id}", headers=operator)
    answer = world.client.get("/v1/me", headers=mine)
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
    actions = world.get("/v1/actions")["actions"]
    assert [each["action"] for each in actions[:2]] == ["token_revoke", "token_create"]
    assert actions[0]["actor"].startswith("operator#")


def test_token__expired_is_as_good_as_none(world: World) -> None:
    asked = {"name": "short", "expires_days": 1e-9}
    token = world.client.post("/v1/tokens", json=asked, headers=world.as_("operator")).json()
    answer = world.client.get("/v1/me", headers={"Authorization": f"Bearer {token['token']}"})
    assert answer.status_code == 401


@pytest.mark.parametrize("token", ["", "px", "px_", "px__", "px_a_b", "px_\xe9_b", "x" * 5000])
def test_token__nonsense_is_refused(world: World, token: str) -> None:
    answer = world.client.get("/v1/me", headers={b"authorization": b"Bearer " + token.encode()})
    assert answer.status_code == 401


def test_session__a_cookie_needs_our_header_for_changes(world: World) -> None:
    client = client_of(world.parts)
    client.base_url = "https://localhost"  # the cookie is for TLS only
    begun = client.post("/v1/session", json={"token": world.tokens["operator"]})
    cookie = begun.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "secure" in cookie
    assert client.get("/v1/me").json()["how"] == "session"
    refused = client.post("/v1/tokens", json={"name": "x"})
    assert (refused.status_code, refused.json()["code"]) == (403, "csrf")
    allowed = client.post("/v1/tokens", json={"name": "x"}, headers={"X-Pixsift-Request": "1"})
    assert allowed.status_code == 201
    client.delete("/v1/session", headers={"X-Pixsift-Request": "1"})
    assert client.get("/v1/me").status_code == 401


def test_origin__a_foreign_page_changes_nothing(world: World) -> None:
    headers = world.as_("operator") | {"Origin": "https://evil.example"}
    answer = world.client.post("/v1/tokens", json={"name": "x"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")
    ours = world.as_("operator") | {"Origin": "http://localhost"}
    assert world.client.post("/v1/tokens", json={"name": "x"}, headers=ours).status_code == 201
    found = world.client.get("/v1/me", headers=headers)
    assert not [name for name in found.headers if name.startswith("access-control")]


def test_proxy__its_header_counts_from_its_own_address_only(world: World) -> None:
    rules: dict[str, Any] = {"proxy_header": "X-User", "proxy_role": "reviewer"}
    named = {"X-User": "ann@example.org"}
    # The test client's address is "testclient": no address of any network.
    refused = client_of(parts_over(world.parts.database, **rules, proxy_networks=("127.0.0.1",)))
    assert refused.get("/v1/me", headers=named).status_code == 401
    app = client_of(parts_over(world.parts.database, **rules, proxy_networks=("10.0.0.0/8",))).app
    inside = TestClient(app, base_url="http://localhost", client=("10.1.2.3", 4711))
    assert inside.get("/v1/me", headers=named).json() == {
        "actor": "ann@example.org", "role": "reviewer", "how": "proxy",
    }  # fmt: skip
    assert inside.get("/v1/me").status_code == 401


def test_host__another_name_is_refused(world: World) -> None:
    """A page whose name leads to 127.0.0.1 (DNS rebinding) gets nothing."""
    answer = world.client.get("/v1/health", headers={"Host": "evil.example"})
    assert (answer.status_code, answer.json()["code"]) == (421, "unknown_host")


@pytest.mark.parametrize(
    ("settings", "needs"),
    [
        ({}, False),
        ({"server_host": "localhost"}, False),
        ({"server_host": "::1"}, False),
        ({"server_auth": "required"}, True),
        ({"server_host": "10.0.0.7"}, True),
        ({"server_host": "example.org"}, True),
        ({"server_host": "::", "server_names": "pixsift.example"}, True),
    ],
)
def test_rules__only_loopback_may_do_without_a_token(settings: Any, needs: bool) -> None:
    assert access_rules(ServerSettings(**settings)).needs_identity is needs


def test_rules__every_address_needs_host_names() -> None:
    with pytest.raises(SettingError, match="PIXSIFT_SERVER_NAMES"):
        access_rules(ServerSettings(server_host="0.0.0.0"))  # noqa: S104
    with pytest.raises(SettingError, match="PIXSIFT_PROXY_ADDRESSES"):
        access_rules(ServerSettings(proxy_addresses="10.0.0.0/99"))


def test_main__refuses_to_listen_beyond_loopback_without_authentication(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIXSIFT_DATABASE_URL", database_url)
    monkeypatch.setenv("PIXSIFT_SERVER_HOST", "10.255.255.1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
    assert "no way to know its callers" in capsys.readouterr().err


def test_rate__a_caller_beyond_its_share_waits() -> None:
    limiter = RateLimiter(per_second=2.0, burst=3)
    assert [limiter.admit("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert limiter.admit("b", 0.0)
    assert limiter.admit("a", 1.0)
