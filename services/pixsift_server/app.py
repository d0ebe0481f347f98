"""The HTTP application: routes, checks and limits."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
from aws_lambda_powertools import Logger
from fastapi import Depends, FastAPI

from pixsift import __version__
from pixsift_server import problems
from pixsift_server.access import authorize, limiter
from pixsift_server.middleware import Admission, SecurityHeaders
from pixsift_server.openapi import described
from pixsift_server.page import STATIC, serve_console
from pixsift_server.parts import Parts
from pixsift_server.routes import (
    border,
    changes,
    collections,
    coverage,
    events,
    finding,
    images,
    operations,
    root,
    snapshots,
    spread,
    watches,
)

_ROUTERS = (
    root.router, border.router, spread.router, collections.router, coverage.router,
    images.router, finding.router, operations.router, snapshots.router, watches.router,
    changes.router, changes.jobs_router, events.router,
)  # fmt: skip


def make_app(parts: Parts, logger: Logger, *, console: Path = STATIC) -> FastAPI:
    """The application. Nothing is opened or read until a request comes.

    console: the folder with the built console.
    """
    app = bare_app()
    serve_console(app, console)
    app.state.parts = parts
    app.state.limiter = limiter(parts.limits)
    app.router.lifespan_context = _lifespan(parts)
    problems.install(app, logger)
    app.add_middleware(
        Admission, host_names=parts.access.host_names, body_bytes=parts.limits.body_bytes
    )
    app.add_middleware(SecurityHeaders)
    return app


def bare_app() -> FastAPI:
    """Routes and their description, without working parts."""
    app = FastAPI(
        title="pixsift",
        version=__version__,
        summary="Sifted robot camera images: browse, find, review, choose, explain",
        description="Errors are problem documents (RFC 9457) with a stable `code` and, where "
        "there is one, a `remedy`.",
        generate_unique_id_function=lambda route: f"{route.tags[0]}_{route.name}",
        openapi_url=None, docs_url=None, redoc_url=None,
        dependencies=[Depends(authorize)],
    )  # fmt: skip
    app.openapi = described(app)  # type: ignore[method-assign]  # as FastAPI documents it
    for router in _ROUTERS:
        app.include_router(router)
    app.add_api_route("/v1/openapi.json", app.openapi, methods=["GET"], tags=["server"],
                      include_in_schema=False)  # fmt: skip
    return app


def _lifespan(parts: Parts) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = parts.limits.threads
        yield

    return lifespan
