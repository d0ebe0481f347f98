"""Wiring of the server: settings become adapters and rules, once."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from ipaddress import ip_address, ip_network

from aws_lambda_powertools import Logger

from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.aws.sqs import SqsQueue
from pixsift.adapters.ledger.login import ledger_login
from pixsift.adapters.postgres.database import Database, Login
from pixsift.adapters.search.choose import new_search
from pixsift.config import ServerSettings
from pixsift.errors import PixsiftError, SettingError
from pixsift.operations.embedder import ModelChoice
from pixsift.operations.events import Watcher
from pixsift.operations.find import Finder, QueryEmbedder
from pixsift.operations.obligations import obligations_of
from pixsift_server.jobs import Jobs
from pixsift_server.parts import AccessRules, Limits, Parts

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def login_of(settings: ServerSettings) -> Login:
    """How to log in to the ledger."""
    return ledger_login(
        settings.database_url.get_secret_value(),
        secret=settings.database_secret,
        iam=settings.database_iam,
    )


@contextmanager
def opened_parts(settings: ServerSettings, logger: Logger) -> Iterator[Parts]:
    """Everything that the endpoints work with; closed at the end."""
    access = access_rules(settings)
    with (
        Database(
            login_of(settings),
            max_connections=settings.server_threads,
            connect_seconds=settings.database_connect_seconds,
            session={"statement_timeout": "20s"},
        ) as database,
        QueryEmbedder(ModelChoice.of(settings)) as embedder,
        closing(Jobs(logger)) as jobs,
    ):
        queues = {
            "ingest": _queue(settings.ingest_queue),
            "ingest_dlq": _queue(settings.ingest_dlq),
            "snapshot_requests": _queue(settings.snapshot_queue),
            "snapshot_requests_dlq": _queue(settings.snapshot_dead_letters),
        }
        objects = S3Objects(connections=settings.server_threads)
        yield Parts(
            database=database,
            objects=objects,
            obligations=obligations_of(database, objects, settings.journal),
            queues=queues,
            watcher=Watcher(database, queues),
            jobs=jobs,
            derived_bucket=settings.derived_bucket,
            curated_bucket=settings.curated_bucket,
            access=access,
            rejudging=new_search(database, "auto", memory_bytes=settings.search_memory_bytes),
            finder=Finder(database, memory_bytes=settings.search_memory_bytes),
            embedder=embedder,
            limits=Limits(
                body_bytes=settings.max_body_bytes,
                requests_per_second=settings.requests_per_second,
                burst=max(20, int(4 * settings.requests_per_second)),
                threads=settings.server_threads,
            ),
        )


def access_rules(settings: ServerSettings) -> AccessRules:
    """The callers to accept. Raises SettingError for an address that cannot be read."""
    is_local = _is_loopback(settings.server_host)
    given = {name.strip().lower() for name in settings.server_names.split(",") if name.strip()}
    here = settings.server_host.strip("[]").lower()
    networks = tuple(text.strip() for text in settings.proxy_addresses.split(",") if text.strip())
    for network in networks:
        try:
            ip_network(network)
        except ValueError as error:
            raise SettingError(f"PIXSIFT_PROXY_ADDRESSES: {error}") from error
    if not is_local and here in ("0.0.0.0", "::") and not given:  # noqa: S104 - compared, not bound
        raise SettingError(
            "PIXSIFT_SERVER_HOST listens on every address: name the host names that callers use "
            "in PIXSIFT_SERVER_NAMES"
        )
    return AccessRules(
        needs_identity=settings.server_auth == "required" or not is_local,
        host_names=frozenset(given | {here} | (_LOOPBACK_NAMES if is_local else set())),
        proxy_header=settings.proxy_identity_header,
        proxy_networks=networks,
        proxy_role=settings.proxy_role,
        is_cookie_secure=not is_local,
    )


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False  # a name that may resolve to any address


def _queue(name: str) -> SqsQueue | str:
    try:
        return SqsQueue(name)
    except PixsiftError as error:
        return str(error)
