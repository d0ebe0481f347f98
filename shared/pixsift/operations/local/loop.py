"""The local loop: LocalStack, PostgreSQL with pgvector, the events stack and both services.

Everything that a team has in the cloud, on one machine, each part in its own process. Each process
is recorded in the state folder when it starts, so that another process can always stop it.
"""

import hashlib
import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pixsift.adapters.local.embedded_postgres import EmbeddedPostgres, can_hold_socket
from pixsift.adapters.local.events_stack import EventsStack, deploy_events_stack
from pixsift.adapters.local.kept_state import KeptState
from pixsift.adapters.local.localstack import (
    DEFAULT_PORT,
    STOP_SECONDS,
    LocalStack,
    free_port,
    is_port_free,
)
from pixsift.adapters.local.private import private_folder
from pixsift.adapters.local.processes import ProcessRecord, ask_to_stop, finish, stop
from pixsift.adapters.postgres.migrate import migrate
from pixsift.errors import DependencyDownError, SettingError
from pixsift.operations.local.services import (
    NEEDED,
    SERVER,
    SERVICES,
    SHADOW,
    StartedService,
    is_server_installed,
    start_service,
    wait_until_ready,
)
from pixsift.operations.local.state_folder import cannot_be_used

Say = Callable[[str], None]
_OTHER_AWS = frozenset({
    "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT",
})  # fmt: skip
_LOOPBACK = "localhost,127.0.0.1"


@dataclass(frozen=True, slots=True)
class LoopRecord:
    """The running processes, as stored in ``loop.json``."""

    postgres: str
    processes: tuple[ProcessRecord, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    """Other settings that the services got from the environment of the starting command."""
    shadow: dict[str, str] = field(default_factory=dict)
    """Settings of the shadow's consumer alone; empty: there is none."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "LoopRecord":
        """From the file's content."""
        processes = tuple(ProcessRecord(**process) for process in value["processes"])
        settings = dict(value.get("settings", {}))
        shadow = dict(value.get("shadow", {}))
        return cls(value["postgres"], processes, dict(value["environment"]), settings, shadow)

    def is_complete(self) -> bool:
        """Whether everything was started once: otherwise ``up`` is running, or was interrupted."""
        return {process.name for process in self.processes} >= {"localstack", *NEEDED}

    def dead_processes(self) -> list[ProcessRecord]:
        """Processes that were started and no longer run; PostgreSQL is not among them."""
        return [process for process in self.processes if not process.is_alive()]

    def is_postgres_running(self) -> bool:
        """Whether the ledger's server runs."""
        postgres = EmbeddedPostgres(Path(self.postgres))
        return postgres.root.exists() and postgres.is_running()

    def dead_stores(self) -> list[str]:
        """Which of the two that hold the images and the ledger no longer run."""
        dead = [process.name for process in self.dead_processes() if process.name not in SERVICES]
        return dead if self.is_postgres_running() else [*dead, "postgresql"]


class LocalLoop:
    """One local loop in one state folder."""

    def __init__(
        self, state: Path, *, venv: Path, prefer_default_port: bool = False, server_port: int = 0,
        shadow_model: str = "",
    ) -> None:  # fmt: skip
        """venv: of LocalStack. prefer_default_port: LocalStack's and the server's usual ports where
        they are free. server_port: the server's usual one; 0: any free one. shadow_model: a
        second consumer embeds with it what the first one decides; empty: there is none."""
        self._shadow_model = shadow_model
        self._shadow: dict[str, str] = {}
        self._server_port = server_port
        self.state = state.absolute()
        self._venv = venv
        self._prefer_default_port = prefer_default_port
        self._postgres = EmbeddedPostgres(_postgres_folder(self.state))
        self._kept = KeptState(self.state)
        self._processes: list[ProcessRecord] = []
        self.environment: dict[str, str] = {}
        self._settings: dict[str, str] = {}
        self.stack = EventsStack()

    @property
    def postgres_folder(self) -> Path:
        """Where the ledger's files are."""
        return self._postgres.root

    @property
    def database_url(self) -> str:
        """The ledger's URL, for processes of this machine."""
        return self._postgres.url()

    def start_infrastructure(self, say: Say) -> None:
        """Start LocalStack, PostgreSQL, the schema and the stack, and connect this process to them.
        Raises UserError or DependencyDownError; ``stop`` then stops what was started.
        """
        self.state.mkdir(parents=True, exist_ok=True)
        port = DEFAULT_PORT if self._prefer_default_port and is_port_free(DEFAULT_PORT) else None
        say("starting LocalStack and PostgreSQL: this takes about 20 s")
        self._write()  # so that a stop finds PostgreSQL from the start
        with ThreadPoolExecutor(1) as beside:  # LocalStack takes longer than all of the ledger
            ledger = beside.submit(self._start_ledger)
            place = LocalStack(
                self._venv, self.state / "localstack", port=port, kept_objects=self._kept.objects
            ).start(self._note)
            say(f"LocalStack is ready at {place.endpoint}")
            applied = ledger.result()
        self._speak_to(place.environment() | {"PIXSIFT_DATABASE_URL": self._postgres.url()})
        say(f"PostgreSQL with pgvector runs, {applied} migrations applied")
        self.stack = deploy_events_stack(shadow=bool(self._shadow_model))
        self._speak_to(self.stack.environment())
        if self._shadow_model:
            # Each space has its own queue: neither consumer waits for the other's messages.
            self._speak_to({"PIXSIFT_OWN_QUEUE": "true"})
            self._shadow = {
                **self.stack.shadow_environment(), "PIXSIFT_MODEL": self._shadow_model,
            }  # fmt: skip
            say(f"events go to two queues; {self._shadow_model} reads the second one")
        say(f"the events stack is deployed: upload to s3://{self.stack.raw_bucket}/")
        if self._kept.exists():
            say(f"{self._kept.load(place.endpoint)} object versions are there again")

    def _start_ledger(self) -> int:
        """PostgreSQL and its schema; returns how many migrations were applied."""
        # Access to the socket gives superuser rights in the database.
        private_folder(self._postgres.root)
        self._postgres.start()
        return len(migrate(self._postgres.url()))

    def start_services(self, say: Say, *, server: bool = True) -> list[StartedService]:
        """Consumer, curator and server, as separate processes, without waiting for them.

        server: False leaves it out, where it is not used.
        """
        if server:
            self._speak_to(self._server_place(say))
        self._settings = {
            name: value for name, value in os.environ.items()
            if name.startswith("PIXSIFT_") and name not in self.environment
        }  # fmt: skip
        services = []
        for name in self._wanted(server=server):
            service = _start_service(name, self.state, self._record())
            self._note(service.process)
            services.append(service)
            say(f"{name} is starting; log: {_short(Path(service.process.log))}")
        return services

    def _wanted(self, *, server: bool) -> list[str]:
        left_out = set() if server and is_server_installed() else {SERVER}
        left_out |= set() if self._shadow else {SHADOW}
        return [name for name in SERVICES if name not in left_out]

    def _server_place(self, say: Say) -> dict[str, str]:
        """Where the server will answer; nothing where its packages are missing."""
        if not is_server_installed():
            say(f"{SERVER} is left out: pip install 'pixsift[server]' adds it")
            return {}
        usual = self._server_port
        chosen = "PIXSIFT_SERVER_PORT" in os.environ or self._prefer_default_port
        port = usual if chosen and usual and is_port_free(usual) else free_port()
        url = f"http://127.0.0.1:{port}"
        say(f"{SERVER} will answer at {url} (API: {url}/v1/openapi.json)")
        return {"PIXSIFT_SERVER_HOST": "127.0.0.1", "PIXSIFT_SERVER_PORT": str(port),
                "PIXSIFT_SERVER_URL": url}  # fmt: skip

    def check_services(self) -> None:
        """Raises DependencyDownError with the end of its log when a process died."""
        for process in self._processes:
            if not process.is_alive():
                raise DependencyDownError(f"{process.name} ended:\n{process.tail()}")

    def stop(self) -> None:
        """Stop everything that was started, the services first; harmless to repeat."""
        stop_record(self._record())
        self._processes.clear()
        (self.state / "loop.json").unlink(missing_ok=True)
        (self.state / "env").unlink(missing_ok=True)

    def _note(self, process: ProcessRecord) -> None:
        self._processes.append(process)
        self._write()

    def _speak_to(self, environment: dict[str, str]) -> None:
        self.environment |= environment
        # A proxy for the internet must not handle calls to this machine.
        for name in ("NO_PROXY", "no_proxy"):
            known = os.environ.get(name, "")
            wanted = known if _LOOPBACK in known else f"{known},{_LOOPBACK}"
            self.environment[name] = wanted.lstrip(",")
        speak_to(self.environment)
        self._write()

    def _record(self) -> LoopRecord:
        return LoopRecord(
            str(self._postgres.root), tuple(self._processes), self.environment, self._settings,
            self._shadow,
        )  # fmt: skip

    def _write(self) -> None:
        _write_record(self.state, self._record())
        _write_private(self.state / "env", exports(self.environment))


def restart_services(state: Path, record: LoopRecord, say: Say) -> LoopRecord:
    """Restart the services that died, and nothing else; returns what runs then. They get their
    earlier settings, except those that the environment now sets otherwise. Raises
    DependencyDownError with the last log lines of one that ends at once.
    """
    state = state.absolute()
    services = []
    for dead in record.dead_processes():
        if dead.name in SERVICES:
            speak_to(record.environment)
            service = _start_service(dead.name, state, record)
            processes = (service.process if p == dead else p for p in record.processes)
            record = replace(record, processes=tuple(processes))
            _write_record(state, record)
            services.append(service)
            log = _short(Path(service.process.log))
            say(f"{dead.name} had ended and is restarted; log: {log}")
    wait_until_ready(services, say)
    return record


def stop_record(
    record: LoopRecord, *, before_stores: Callable[[], object] | None = None
) -> list[str]:
    """Stop what a record names, the services before what they need; returns what was running.

    before_stores: called once no service runs any more, and LocalStack still does.
    """
    running = [process for process in reversed(record.processes) if process.is_alive()]
    services = [process for process in running if process.name in SERVICES]
    for process in services:
        ask_to_stop(process)  # all at once: each may finish its current work
    for process in services:
        finish(process)
    stores = [process for process in running if process not in services]
    if stores and before_stores is not None:
        before_stores()
    for process in stores:
        stop(process, seconds=STOP_SECONDS)
    stopped = [process.name for process in running]
    postgres = EmbeddedPostgres(Path(record.postgres))
    if postgres.root.exists() and postgres.is_running():
        postgres.stop()
        stopped.append("postgresql")
    return stopped


def keep_objects(state: Path, record: LoopRecord) -> int | None:
    """Save what LocalStack holds; None where that was never complete, or is gone.

    A loop whose start was interrupted may not have all its objects back yet: saving these few would
    replace the saved ones.
    """
    if not record.is_complete() or "localstack" in record.dead_stores():
        return None
    speak_to(record.environment)
    return KeptState(state).save(record.environment["AWS_ENDPOINT_URL"])


def delete_kept(state: Path) -> bool:
    """Delete ledger, objects and messages of a stopped loop; False when there were none."""
    kept, postgres = KeptState(state), _postgres_folder(state.absolute())
    found = kept.exists() or postgres.exists()
    kept.delete()
    shutil.rmtree(postgres, ignore_errors=True)
    return found


def has_kept(state: Path) -> bool:
    """Whether a stopped loop left a ledger or objects here."""
    return KeptState(state).exists() or _postgres_folder(state.absolute()).exists()


def read_record(state: Path) -> LoopRecord | None:
    """The recorded processes of the state folder; None when there are none. Raises UserError for a
    damaged record."""
    path = state / "loop.json"
    try:
        return LoopRecord.from_json(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise cannot_be_used(state, exc) from exc
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise SettingError(f"{path} cannot be read ({exc}): delete it") from exc


def speak_to(environment: Mapping[str, str]) -> None:
    """Point this process and its children at a local loop, and away from any other AWS."""
    for name in list(os.environ):
        if name in _OTHER_AWS or name.startswith("AWS_ENDPOINT_URL"):
            del os.environ[name]
    # A profile there may set endpoints, roles or an addressing style.
    os.environ["AWS_CONFIG_FILE"] = os.devnull
    os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    os.environ.update(environment)


def use_running_loop(state: Path) -> None:
    """Connect this process to the loop that is running, if nothing else is chosen.

    An environment that names a ledger or an AWS endpoint is left alone. Raises SettingError for a
    record that cannot be read.
    """
    if "PIXSIFT_DATABASE_URL" in os.environ or "AWS_ENDPOINT_URL" in os.environ:
        return
    record = read_record(state)
    # Without an environment its start is running, or was interrupted: nothing answers there yet.
    if record is not None and record.environment and record.processes[0].is_alive():
        speak_to(record.environment)


def find_venv(chosen: Path) -> Path:
    """LocalStack's environment: as set, or next to the one that runs this process."""
    beside = Path(sys.prefix).parent / chosen
    return beside if not chosen.exists() and beside.exists() else chosen


def exports(environment: Mapping[str, str]) -> str:
    """Lines for a shell."""
    return "".join(
        f"export {name}={shlex.quote(value)}\n" for name, value in sorted(environment.items())
    )


def wait_until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Raises DependencyDownError when ``condition`` does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise DependencyDownError(f"{what} timed out after {seconds:.0f} s")
        time.sleep(0.2)


def _postgres_folder(state: Path) -> Path:
    """In the state folder, or in the temporary one where a socket cannot live there.

    PostgreSQL, started by root, runs as nobody, who may have no access to root's folders.
    """
    folder = state / "postgres"
    parents = [parent for parent in folder.parents if parent.exists()]
    barred = os.geteuid() == 0 and not all(p.stat().st_mode & 0o001 for p in parents)
    if can_hold_socket(folder) and not barred:
        return folder
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:10]
    return Path(tempfile.gettempdir()) / f"pixsift-{os.geteuid()}-{digest}"


def _start_service(name: str, state: Path, record: LoopRecord) -> StartedService:
    own = record.shadow if name == SHADOW else {}
    environment = {**record.settings, **os.environ, **record.environment, **own}
    return start_service(name, state, environment)


def _write_record(state: Path, record: LoopRecord) -> None:
    _write_private(state / "loop.json", json.dumps(asdict(record), indent=1))


def _write_private(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.touch(mode=0o600)
    beside.write_text(text, "utf-8")
    beside.replace(path)


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
