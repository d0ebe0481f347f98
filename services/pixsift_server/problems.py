"""Errors as problem documents (RFC 9457): our codes and remedies, never a traceback.

The status follows from the error's class, which says what the caller can do. An unexpected error is
a 500 that contains only an id, under which the log has the rest.
"""

import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools import Logger
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pixsift.api import Problem, ProblemRemedy
from pixsift.errors import (
    ConflictError,
    DependencyDownError,
    NotFoundError,
    ObjectGoneError,
    PermanentError,
    PixsiftError,
    RequestError,
    TransientError,
)
from pixsift.remedies import in_words

MEDIA_TYPE = "application/problem+json"
_RETRY_SECONDS = "2"
_STATUS: tuple[tuple[type[PixsiftError], int], ...] = (
    (RequestError, 400),
    (NotFoundError, 404),
    (ConflictError, 409),
    (ObjectGoneError, 410),
    (PermanentError, 422),
    (TransientError, 503),
    (DependencyDownError, 503),
)
"""Any other error is ours: a wrong setting, a missing package."""
_CONFLICTS = frozenset({"other_space"})
"""Settings that fit one collection and not another: the server has the model of some of them."""


class ProblemError(Exception):
    """A refusal by the server itself: who asks, how much, how often."""

    def __init__(
        self, status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.headers = dict(headers or {})


def status_of(error: PixsiftError) -> int:
    """The HTTP status of an error."""
    if error.code in _CONFLICTS:
        return 409
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def problem(status: int, code: str, detail: str, **more: Any) -> Problem:
    """A document; ``more``: its further members."""
    title = HTTPStatus(status).phrase
    return Problem(
        type=f"urn:pixsift:problem:{code}", title=title, status=status, detail=detail, code=code,
        **more,
    )  # fmt: skip


def respond(found: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The document as an answer."""
    return JSONResponse(
        found.model_dump(mode="json", exclude_none=True), found.status, dict(headers or {}),
        MEDIA_TYPE,
    )  # fmt: skip


def of_error(error: PixsiftError) -> JSONResponse:
    """One of our errors, with its code and remedy."""
    status = status_of(error)
    remedy = None
    if error.remedy is not None:
        remedy = ProblemRemedy(
            code=error.remedy.code, arguments=dict(error.remedy.arguments),
            words=in_words(error.remedy),
        )  # fmt: skip
    headers = {"Retry-After": _RETRY_SECONDS} if status == 503 else {}
    return respond(problem(status, error.code, str(error), remedy=remedy), headers)


def install(app: FastAPI, logger: Logger) -> None:
    """Make every error of ``app`` a problem document."""

    async def known(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, PixsiftError)  # noqa: S101 - registered for it
        if status_of(error) >= 500:
            logger.warning("a request failed", code=error.code, error=str(error))
        return of_error(error)

    async def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ProblemError)  # noqa: S101
        return respond(problem(error.status, error.code, error.detail), error.headers)

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        found = [
            {"where": [str(part) for part in each["loc"]], "what": each["msg"]}
            for each in error.errors()
        ]
        detail = "; ".join(f"{'.'.join(each['where'])}: {each['what']}" for each in found[:3])
        return respond(problem(422, "invalid_request", detail, errors=found))

    async def of_framework(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101
        code = HTTPStatus(error.status_code).name.lower()
        return respond(problem(error.status_code, code, error.detail), error.headers)

    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        reference = secrets.token_hex(4)
        logger.error("bug", reference=reference, path=request.url.path, exc_info=error)
        return respond(
            problem(500, "internal_error", f"something went wrong here; the log has {reference}")
        )

    app.add_exception_handler(PixsiftError, known)
    app.add_exception_handler(ProblemError, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, of_framework)
    app.add_exception_handler(Exception, unforeseen)
