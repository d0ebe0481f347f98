"""About the server: its version, its health, the caller, and the browser's session."""

from typing import Annotated

from fastapi import APIRouter, Body, Request, Response

from pixsift import __version__
from pixsift.api import Health, Me, SessionAsk
from pixsift.operations.access import caller_of
from pixsift.operations.status import ledger_answers
from pixsift.words import REASON_WORDS
from pixsift_server.access import COOKIE, Caller
from pixsift_server.parts import Of
from pixsift_server.problems import ProblemError

router = APIRouter(tags=["server"])
_SESSION_SECONDS = 12 * 3600


@router.get("/v1", summary="What this server is")
def index() -> dict[str, str]:
    """Name and version, and the address of the API description."""
    return {"name": "pixsift", "version": __version__, "openapi": "/v1/openapi.json"}


@router.get("/v1/health", summary="Whether the process answers")
def health() -> Health:
    """Does not check dependencies: see `/v1/ready`."""
    return Health(status="ok", checks={})


@router.get("/v1/ready", summary="Whether everything answers that requests need")
def ready(parts: Of, response: Response) -> Health:
    """503 while the ledger does not answer."""
    if not ledger_answers(parts.database):
        response.status_code = 503  # the reason goes to the log: this endpoint is open to anyone
        return Health(status="unavailable", checks={"ledger": "does not respond"})
    return Health(status="ok", checks={"ledger": "ok"})


@router.get("/v1/words", summary="Reason codes in words")
def words() -> dict[str, str]:
    """Lists carry a reason's code; this is how people say it."""
    return dict(REASON_WORDS)


@router.get("/v1/me", summary="Who the server takes you for")
def me(caller: Caller) -> Me:
    """Name, role, and by what you were recognized."""
    return caller


@router.post("/v1/session", summary="Begin a browser's session with a token")
def begin_session(
    parts: Of, request: Request, response: Response, ask: Annotated[SessionAsk, Body()]
) -> Me:
    """Puts the token into a cookie that scripts cannot read and other sites cannot send."""
    caller = caller_of(parts.database, ask.token)
    if caller is None:
        raise ProblemError(401, "invalid_token", "the token is unknown, revoked or expired")
    response.set_cookie(
        COOKIE, ask.token, max_age=_SESSION_SECONDS, path="/", httponly=True, samesite="strict",
        secure=parts.access.is_cookie_secure,
    )  # fmt: skip
    return Me(actor=caller.actor, role=caller.role, how="session")


@router.delete("/v1/session", status_code=204, summary="End a browser's session")
def end_session(response: Response) -> None:
    """Removes the cookie; the token stays valid until it is revoked."""
    response.delete_cookie(COOKIE, path="/")
