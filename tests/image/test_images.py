"""Both images, built and run as documented: read-only root, no capabilities, a user of their own.

Run by ``make test-image``: it needs root, Debian's debootstrap, buildah and podman, and minutes.
The CUDA build of torch is gigabytes, so the image with a model is built with the CPU lock: the same
Dockerfile with another list of packages.
"""

import json
import socket
import urllib.request
from collections.abc import Iterator
from uuid import uuid4

import pytest
from psycopg.conninfo import make_conninfo

from faults.consumer_process import outcomes, wait_until
from faults.images import jpeg
from faults.stub_aws import StubAws
from faults.stub_http import HttpServer, Request, Response
from guarded_postgres import administer, guarded_postgres
from image import containers
from image.containers import Container
from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres
from pixsift.adapters.postgres.migrate import migrate

pytestmark = pytest.mark.image

SERVICES, MODEL = "Dockerfile.services", "Dockerfile.gpu-consumer"
MOST_BYTES = 700_000_000
"""Of the image without a model."""


@pytest.fixture(scope="session")
def base() -> None:
    missing = containers.missing_tools()
    if missing:
        pytest.skip(f"images cannot be built: {', '.join(missing)} missing (Debian packages)")
    containers.make_base()


@pytest.fixture(scope="session")
def services(base: None) -> str:
    containers.build(SERVICES, "localhost/pixsift-test-services")
    return "localhost/pixsift-test-services"


@pytest.fixture(scope="session")
def model(base: None) -> str:
    containers.build(MODEL, "localhost/pixsift-test-model", LOCK="cpu", DEVICE="cpu")
    return "localhost/pixsift-test-model"


@pytest.fixture(scope="module")
def guarded() -> Iterator[EmbeddedPostgres]:
    with guarded_postgres() as server:
        yield server


@pytest.fixture
def role(guarded: EmbeddedPostgres) -> str:
    """A login without special rights, which owns a migrated database of the same name."""
    name = f"r_{uuid4().hex[:10]}"
    administer(
        guarded,
        f"CREATE ROLE {name} LOGIN PASSWORD 'first'",
        f"CREATE DATABASE {name} OWNER {name}",
    )
    administer(guarded, "CREATE EXTENSION vector", database=name)
    migrate(url_of(guarded, name))
    return name


def url_of(server: EmbeddedPostgres, role: str, **more: str) -> str:
    return make_conninfo(
        host=str(server.root), dbname=role, user=role, **{"password": "first", **more}
    )


class SecretsManager:
    """Answers GetSecretValue with the present value, over HTTP on loopback."""

    def __init__(self, **value: str) -> None:
        self.value = value
        self.server = HttpServer(self._answer)

    async def _answer(self, request: Request) -> Response:
        if not request.headers["x-amz-target"].endswith(".GetSecretValue"):
            return Response(status=403)
        body = {"SecretString": json.dumps(self.value), "Name": "ledger", "VersionId": "1" * 32}
        return Response(body=json.dumps(body).encode())


def test_services__is_small_and_has_no_model(services: str) -> None:
    assert containers.size_bytes(services) <= MOST_BYTES
    for command in ("pixsift", "pixsift-curator"):
        assert "Usage" in in_image(services, command, "--help").replace("usage", "Usage")
    code = "import importlib.util as u; print([u.find_spec(n) for n in ('torch', 'hatchling')])"
    assert in_image(services, "python", "-c", code).strip() == "[None, None]"
    assert in_image(services, "pip", "check").strip() == "No broken requirements found."


def test_services__a_curator_starts_and_stops_as_documented(
    services: str, guarded: EmbeddedPostgres, role: str
) -> None:
    flags = containers.documented_flags(SERVICES)
    with StubAws() as aws:
        aws.sqs.create("pixsift-snapshot-requests")
        environment = {
            **aws.environment(), "PIXSIFT_DATABASE_URL": url_of(guarded, role),
        }  # fmt: skip
        with containers.container(services, flags, environment, name="px-test-curator",
                                  mounts=[guarded.root]) as curator:  # fmt: skip
            wait_until(lambda: healthy(curator), seconds=60, what=curator.log)
            is_locked_in(curator)
            took, status = curator.stop()
            assert status == 0 and took < 60, curator.log()


def test_model__decides_uploads_survives_a_rotation_and_stops_in_time(
    model: str, guarded: EmbeddedPostgres, role: str
) -> None:
    secrets = SecretsManager(username=role, password="first", host=str(guarded.root), dbname=role)
    flags = containers.documented_flags(MODEL)
    assert flags[flags.index("--stop-timeout") + 1] == "30"
    with StubAws() as aws, secrets.server as manager:
        environment = {
            **aws.environment(), "AWS_ENDPOINT_URL_SECRETS_MANAGER": manager.url,
            "PIXSIFT_DATABASE_URL": make_conninfo(host=str(guarded.root), dbname=role, user=role),
            "PIXSIFT_DATABASE_SECRET": "ledger", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        administrator = guarded.url(role)
        with containers.container(model, flags, environment, name="px-test-consumer",
                                  mounts=[guarded.root]) as consumer:  # fmt: skip
            create = ("pixsift", "collection", "create", "test", "--source", "s3://pixsift-raw/")
            assert consumer.execute(*create) == 0
            upload(aws, range(25))
            wait_until(lambda: len(outcomes(administrator)) == 25, seconds=180, what=consumer.log)
            assert healthy(consumer)
            is_locked_in(consumer)

            secrets.value["password"] = "second"
            administer(
                guarded, f"ALTER ROLE {role} PASSWORD 'second'",
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'",
            )  # fmt: skip
            upload(aws, range(25, 30))
            wait_until(lambda: len(outcomes(administrator)) == 30, seconds=180, what=consumer.log)
            assert consumer.is_running() and healthy(consumer)

            took, status = consumer.stop()
            assert status == 0 and took < 30, consumer.log()
            assert {outcome for outcome, _ in outcomes(administrator).values()} == {"kept"}


def test_model__serves_the_api_and_the_console(
    model: str, guarded: EmbeddedPostgres, role: str
) -> None:
    port = free_port()
    flags = containers.documented_flags(MODEL)
    with StubAws() as aws:
        environment = {
            **aws.environment(), "PIXSIFT_DATABASE_URL": url_of(guarded, role),
            "PIXSIFT_SERVER_PORT": str(port),
        }  # fmt: skip
        with containers.container(
            model, flags, environment, name="px-test-server", command=["pixsift-server"],
            mounts=[guarded.root],
        ) as server:  # fmt: skip
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: answers(f"{url}/v1/health"), seconds=120, what=server.log)
            is_locked_in(server)
            assert server.stop()[1] == 0, server.log()


def in_image(tag: str, *command: str) -> str:
    """Standard output of a command in a fresh container of the image."""
    with containers.container(tag, ["--read-only", "--tmpfs", "/tmp"], {}, name="px-test-command",
                              command=["sleep", "120"]) as place:  # fmt: skip
        return place.output(*command)


def healthy(place: Container) -> bool:
    return place.execute("python", "-m", "pixsift.health") == 0


def is_locked_in(place: Container) -> None:
    """What the documented flags promise, as the kernel sees it."""
    status = place.status()
    assert status["Uid"].split() == ["10001"] * 4
    assert int(status["CapEff"], 16) == 0 and status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"  # a filter is in force
    assert place.execute("touch", "/opt/pixsift/x") != 0
    assert place.execute("touch", "/tmp/x") == 0


def upload(aws: StubAws, seeds: range) -> None:
    for seed in seeds:
        aws.raw.put(f"robot/{seed}.jpg", jpeg(seed, side=256))


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - our own
            return bool(response.status == 200)
    except OSError:
        return False
