"""The console's files: what is served, with which headers, and what is said without them."""

import gzip
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from pixsift.telemetry import make_logger
from pixsift_server.app import make_app
from pixsift_server.page import STATIC
from server_world import HOST, World

MOST_BYTES = 400_000


def client_over(world: World, folder: Path) -> TestClient:
    """A server whose console lies in ``folder``."""
    app = make_app(world.parts, make_logger("test", "ERROR"), console=folder)
    return TestClient(app, base_url=f"http://{HOST}")


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A small console."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<title>console</title>")
    (tmp_path / "assets" / "a.js").write_text("let a = 1;")
    return tmp_path


def test_page__any_address_is_a_screen_and_needs_no_token(world: World, built: Path) -> None:
    with client_over(world, built) as client:
        for path in ("/", "/browse?outcome=kept", "/image/1", "/snapshots/a%2Fb", "/v10"):
            answer = client.get(path)
            assert (answer.status_code, answer.text) == (200, "<title>console</title>")
            assert answer.headers["cache-control"] == "no-cache"
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy
            assert answer.headers["x-frame-options"] == "DENY"
        script = client.get("/assets/a.js", headers={"Accept-Encoding": "gzip"})
        assert script.text == "let a = 1;" and "immutable" in script.headers["cache-control"]
        assert script.headers["content-encoding"] == "gzip"
        assert client.head("/").status_code == 200


@pytest.mark.parametrize(
    "path", ["/v1/none", "/assets/none.js", "/assets/../../app.py", "/assets/%2e%2e/%2e%2e/app.py"]
)
def test_page__what_is_not_there_stays_a_problem(world: World, built: Path, path: str) -> None:
    with client_over(world, built) as client:
        answer = client.get(path)
        assert answer.status_code in (403, 404) or answer.text == "<title>console</title>"
        assert "import" not in answer.text
        assert client.post("/browse").status_code == 404


def test_page__says_what_is_missing_where_nothing_is_built(world: World, tmp_path: Path) -> None:
    with client_over(world, tmp_path / "none") as client:
        answer = client.get("/")
        assert answer.status_code == 200 and "make console" in answer.text
        assert client.get("/v1/health").json()["status"] == "ok"


@pytest.mark.skipif(
    not (STATIC / "index.html").exists(), reason="the console is not built: make console"
)
def test_bundle__is_small() -> None:
    files = [path for path in STATIC.rglob("*") if path.is_file()]
    assert sum(len(gzip.compress(path.read_bytes())) for path in files) <= MOST_BYTES
    page = (STATIC / "index.html").read_text()
    assert "<style" not in page and "<script>" not in page and "http" not in page
