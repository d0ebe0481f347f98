"""One PostgreSQL per run, one template database, a fresh copy per test."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, settings

from counts import examples
from made_images import make_images
from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres
from pixsift.adapters.local.events_stack import EventsStack, deploy_events_stack
from pixsift.adapters.local.localstack import LocalStack, LocalStackPlace
from pixsift.adapters.postgres.migrate import migrate

if TYPE_CHECKING:  # absent where only the tests of a device run (docs/gpu.md)
    from localstack_client.session import Session

LOCALSTACK_VENV = Path(__file__).resolve().parents[1] / ".venv-localstack"
REAL_IMAGES = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes a minute by the clock goes last, so that the minute passes with other tests."""
    items.sort(key=lambda item: item.get_closest_marker("looked_at_last") is not None)


# Properties are counted, not timed: a busy machine must not fail them.
settings.register_profile(
    "busy",
    deadline=None,
    max_examples=examples(quick=40, thorough=100),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("busy")


@pytest.fixture(autouse=True)
def no_running_loop(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A developer's ``pixsift up`` in this checkout is none of a test's business."""
    monkeypatch.setenv("PIXSIFT_STATE_DIR", str(tmp_path_factory.getbasetemp() / "no-loop"))
    monkeypatch.setenv("PIXSIFT_LEDGER_DIR", str(tmp_path_factory.getbasetemp() / "no-ledger"))


@pytest.fixture
def heeded_signals() -> Iterator[None]:
    """Commands started in this test get signals, even if the run itself is under nohup or in
    the background, where they would inherit that some are ignored."""
    known = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    for number in known:
        signal.signal(number, signal.default_int_handler)
    yield
    for number, handler in known.items():
        signal.signal(number, handler)


def _fast_folder() -> str:
    """Memory where there is enough: a copy of a database is 300 small files, made for each test.
    On a disk that others use as well it took five times as long."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        return "/tmp"
    found = os.statvfs(memory)
    # The server may run from a copy of its binaries next to the data.
    usable = not found.f_flag & os.ST_NOEXEC and found.f_bavail * found.f_frsize > 2 << 30
    return str(memory) if usable else "/tmp"


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """The server of this test run; faster than durable, as nothing outlives it."""
    root = Path(tempfile.mkdtemp(prefix="px-", dir=_fast_folder()))
    root.chmod(0o755)
    try:
        with EmbeddedPostgres(root, durable=False) as server:
            yield server
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def template_database(postgres: EmbeddedPostgres) -> str:
    """A migrated database that tests copy."""
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE template_pixsift")
    migrate(postgres.url("template_pixsift"))
    return "template_pixsift"


@pytest.fixture
def database_url(postgres: EmbeddedPostgres, template_database: str) -> Iterator[str]:
    """A migrated, empty database of the test's own."""
    name = f"t_{uuid4().hex[:12]}"
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute(
            f"CREATE DATABASE {name} TEMPLATE {template_database} STRATEGY FILE_COPY"
        )
        yield postgres.url(name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def real_images() -> Path:
    """The large set of real images next to the checkout; absent elsewhere."""
    if not REAL_IMAGES.is_dir():
        pytest.skip(f"no real images: {REAL_IMAGES} is absent")
    return REAL_IMAGES


@pytest.fixture(scope="session")
def made_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small set that every clone can make: see tests/made_images.py."""
    return make_images(tmp_path_factory.mktemp("made-images"))


@pytest.fixture(scope="session", params=["made", "real"])
def images(request: pytest.FixtureRequest) -> Path:
    """Both sets in turn, laid out alike; the large one is skipped where it is absent."""
    folder: Path = request.getfixturevalue(f"{request.param}_images")
    return folder


@pytest.fixture(scope="session")
def localstack() -> Iterator[LocalStackPlace]:
    """A LocalStack of this test run; ``place.environment()`` is what child processes need."""
    if not (LOCALSTACK_VENV / "bin" / "python").exists():
        pytest.skip("no LocalStack: .venv-localstack is absent (make .venv-localstack/ready)")
    root = Path(tempfile.mkdtemp(prefix="px-ls-"))
    try:
        with LocalStack(LOCALSTACK_VENV, root) as place:
            yield place
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def localstack_session(localstack: LocalStackPlace) -> "Session":
    """Clients for the test's own hands: ``localstack_session.client("s3")``."""
    from localstack_client.session import Session

    # Its endpoint yields to AWS_ENDPOINT_URL, which must not lead a test to a real account.
    assert "AWS_ENDPOINT_URL" not in os.environ
    return Session(localstack_host=f"localhost:{localstack.port}")


@pytest.fixture(scope="session")
def ticking_stack(localstack_session: "Session") -> EventsStack:
    """A stack whose schedule fires every minute: set going early, looked at last."""
    return deploy_events_stack(
        "tick",
        parameters={"SnapshotSchedule": "rate(1 minute)"},
        client=localstack_session.client("cloudformation"),
    )


@pytest.fixture
def events_stack(
    localstack: LocalStackPlace,
    localstack_session: "Session",
    ticking_stack: EventsStack,
    monkeypatch: pytest.MonkeyPatch,
) -> EventsStack:
    """The events stack under names of the test's own; adapters made here on find LocalStack."""
    stack = deploy_events_stack(
        f"t{uuid4().hex[:8]}", client=localstack_session.client("cloudformation")
    )
    for name, value in {**localstack.environment(), **stack.environment()}.items():
        monkeypatch.setenv(name, value)
    return stack
