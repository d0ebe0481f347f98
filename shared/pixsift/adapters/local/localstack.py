"""LocalStack in host mode: an AWS on this machine from pip, without Docker or an account.

It runs from a virtual environment of its own (its pins of boto3 must not reach the product), binds
to the loopback address only, and sends nothing home. It does not persist anything: a stopped
LocalStack has lost its buckets.
"""

import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pixsift.adapters.local.processes import ProcessRecord, spawn, stop
from pixsift.errors import DependencyDownError, SettingError

DEFAULT_PORT = 4566
REGION = "us-east-1"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
}  # any value is accepted there
_START_SECONDS = 90.0
STOP_SECONDS = 2.0
"""LocalStack itself saves nothing: its state was saved before (``kept_state``)."""
_MAIN = Path(__file__).with_name("localstack_main.py")


@dataclass(frozen=True, slots=True)
class LocalStackPlace:
    """Where one LocalStack runs."""

    port: int
    process: ProcessRecord

    @property
    def endpoint(self) -> str:
        """The URL for AWS_ENDPOINT_URL."""
        return f"http://localhost:{self.port}"

    def environment(self) -> dict[str, str]:
        """The standard AWS variables that make any client use this LocalStack."""
        return {"AWS_ENDPOINT_URL": self.endpoint, "AWS_REGION": REGION,
                "AWS_DEFAULT_REGION": REGION, **CREDENTIALS}  # fmt: skip


class LocalStack:
    """One LocalStack process, with its files under ``root``."""

    def __init__(
        self, venv: Path, root: Path, *, port: int | None = None, kept_objects: Path | None = None
    ) -> None:
        """venv: where ``localstack/requirements.txt`` is installed. port: None picks a free one.

        kept_objects: the folder into which its objects can be saved (``kept_state``).
        """
        self._kept_objects = kept_objects or root.absolute() / "objects"
        self._venv = venv.absolute()
        self.root = root.absolute()
        self._log = self.root / "localstack.log"
        self._port = port
        self._process: ProcessRecord | None = None

    def start(self, note: Callable[[ProcessRecord], None] | None = None) -> LocalStackPlace:
        """Start it and wait until it answers. Raises UserError without its environment.

        note: called with the process before the wait, so that it can be stopped whatever happens.
        """
        check_installed(self._venv)
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        port = self._port or free_port()
        self._process = spawn(
            "localstack", [str(_python(self._venv)), "-P", str(_MAIN), str(self._kept_objects)],
            environment=_environment(self.root, port), log=self._log, cwd=self.root,
        )  # fmt: skip
        place = LocalStackPlace(port, self._process)
        try:
            if note is not None:
                note(self._process)
            self._wait_until_ready(place)
        except BaseException:
            self.stop()
            raise
        return place

    def stop(self) -> None:
        """Stop it; harmless when it is not running."""
        process, self._process = self._process, None
        if process is not None:
            stop(process, seconds=STOP_SECONDS)

    def __enter__(self) -> LocalStackPlace:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait_until_ready(self, place: LocalStackPlace) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not answers(place.endpoint):
            if not place.process.is_alive():
                raise DependencyDownError(f"LocalStack exited at once: see {self._log}")
            if time.monotonic() > deadline:
                raise DependencyDownError(
                    f"LocalStack did not respond within {_START_SECONDS:.0f} s: see {self._log}"
                )
            time.sleep(0.1)


def check_installed(venv: Path) -> None:
    """Raises UserError with the remedy when LocalStack's environment is missing."""
    python = _python(venv)
    if not python.exists():
        raise SettingError(f"LocalStack is not installed: {python} is missing; {how_to_install()}")


def how_to_install() -> str:
    """The commands that make LocalStack's environment, in a checkout or without one."""
    pins = files("pixsift").joinpath("localstack", "requirements.txt")
    return (
        "make .venv-localstack/ready, or: python3 -m venv .venv-localstack && "
        f".venv-localstack/bin/pip install -r {pins}"
    )


def answers(endpoint: str) -> bool:
    """Whether a LocalStack answers its health check at ``endpoint``."""
    # A proxy in the environment must not catch what is meant for this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{endpoint}/_localstack/health", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def free_port() -> int:
    """A TCP port of the loopback address that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_port_free(port: int) -> bool:
    """Whether nothing listens on ``port`` of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _python(venv: Path) -> Path:
    return venv / "bin" / "python"


def _environment(root: Path, port: int) -> dict[str, str]:
    """LocalStack's whole environment: none of our variables, and no AWS settings."""
    inherited = {name: os.environ[name] for name in ("HOME", "LANG", "TZ") if name in os.environ}
    return {
        **inherited,
        "PATH": os.defpath,
        "TMPDIR": str(root),
        "FILESYSTEM_ROOT": str(root / "filesystem"),
        "LOCALSTACK_VOLUME_DIR": str(root / "volume"),
        "GATEWAY_LISTEN": f"127.0.0.1:{port}",
        # Its default server, twisted, also answers on other addresses (measured).
        "GATEWAY_SERVER": "hypercorn",
        "LOCALSTACK_HOST": f"localhost:{port}",
        # The default queue URLs resolve through public DNS.
        "SQS_ENDPOINT_STRATEGY": "path",
        "DNS_ADDRESS": "0",
        "DISABLE_EVENTS": "1",  # usage analytics, not EventBridge
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "EAGER_SERVICE_LOADING": "0",
        # Inside a container it would assume paths that only its own image has.
        "OVERRIDE_IN_DOCKER": "0",
    }
