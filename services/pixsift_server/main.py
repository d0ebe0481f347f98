"""``pixsift-server``: the HTTP API over the ledger, until it is asked to stop.

Wiring only: settings, adapters, a check that the ledger answers, serve.
"""

import json
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Sequence

import uvicorn

from pixsift.adapters.postgres.migrate import check_migrated
from pixsift.config import ServerSettings
from pixsift.errors import LoginRefusedError, PixsiftError, SettingError, UserError
from pixsift.operations.access import list_tokens
from pixsift.remedies import one_line
from pixsift.telemetry import make_logger
from pixsift_server.app import bare_app, make_app
from pixsift_server.parts import Parts
from pixsift_server.wiring import login_of, opened_parts

_BACKLOG = 2048
"""Connections that may wait, as uvicorn's default."""
_STOP_SECONDS = 10
"""Seconds for open requests to finish, streams included."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the process; ``--openapi`` prints the description of the API and ends.

    Exit 2 for a wrong setting, 3 for a dependency that does not answer, 5 for a login that
    PostgreSQL went on refusing.
    """
    parser = ArgumentParser(
        prog="pixsift-server",
        description="Serves the HTTP API until SIGTERM. Environment variables PIXSIFT_* configure "
        "it (docs/settings.md).",
    )
    parser.add_argument(
        "--openapi", action="store_true", help="print the OpenAPI description and end"
    )
    try:
        if parser.parse_args(arguments).openapi:
            sys.stdout.write(json.dumps(bare_app().openapi(), indent=1) + "\n")
        else:
            serve(ServerSettings())
    except PixsiftError as error:
        sys.stderr.write(f"pixsift-server: {one_line(error)}\n")
        sys.exit(_status(error))


def serve(settings: ServerSettings) -> None:
    """Wire, verify, serve until SIGTERM or SIGINT."""
    logger = make_logger("pixsift-server", settings.log_level)
    with opened_parts(settings, logger) as parts:
        check_migrated(login_of(settings))
        _check_someone_can_enter(parts, settings)
        parts.obligations.catch_up()
        server = uvicorn.Server(
            uvicorn.Config(
                make_app(parts, logger), host=settings.server_host, port=settings.server_port,
                log_config=None, access_log=False, server_header=False, proxy_headers=False,
                timeout_graceful_shutdown=_STOP_SECONDS, limit_concurrency=1000,
            )
        )  # fmt: skip
        # uvicorn raises a signal again once it has stopped: that would end the process before the
        # rest is closed, and with another status than 0.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(server, "should_exit", True))
        socket = server.config.bind_socket()
        socket.listen(_BACKLOG)  # from here on callers wait instead of being refused
        host, port = socket.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        logger.info("server ready", url=url, needs_token=parts.access.needs_identity)
        server.run(sockets=[socket])
        logger.info("server stopped")


def _check_someone_can_enter(parts: Parts, settings: ServerSettings) -> None:
    """Raise unless callers can be identified: beyond loopback a token or a proxy is required."""
    rules = parts.access
    if rules.needs_identity and not rules.proxy_header and not list_tokens(parts.database).tokens:
        raise SettingError(
            f"the server would listen on {settings.server_host} and has no way to know its "
            "callers: make a token first, or set PIXSIFT_PROXY_IDENTITY_HEADER",
            code="no_authentication",
        )


def _status(error: PixsiftError) -> int:
    if isinstance(error, UserError):
        return 2
    return 5 if isinstance(error, LoginRefusedError) else 3


if __name__ == "__main__":
    main()
