"""The OpenAPI description: FastAPI's, with our problem documents, roles and ways to sign in."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from pixsift.answers.checks import AuditReport
from pixsift.answers.choosing import SelectionPreview
from pixsift.answers.decisions import RuleComparison, SwitchedGeneration
from pixsift.api import Problem
from pixsift.api_changes import Decisions, HistoryLost, SnapshotVerified
from pixsift_server.access import ACCESS
from pixsift_server.problems import MEDIA_TYPE

_PROBLEM = {"$ref": "#/components/schemas/Problem"}
_NOT_ANSWERED_DIRECTLY: tuple[type[BaseModel], ...] = (
    Problem,
    # data of events
    Decisions, HistoryLost,
    # results of jobs
    SelectionPreview, RuleComparison, SwitchedGeneration, AuditReport, SnapshotVerified,
)  # fmt: skip
"""Schemas that no endpoint names as its answer."""
_WAYS_IN = {
    "bearer": {"type": "http", "scheme": "bearer",
               "description": "`pixsift token create` makes one."},
    "session": {"type": "apiKey", "in": "cookie", "name": "pixsift_session"},
}  # fmt: skip


def described(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """A function that builds the description once."""

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = _describe(app)
        return app.openapi_schema

    return openapi


def _describe(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(
        title=app.title, version=app.version, openapi_version="3.1.0", summary=app.summary,
        description=app.description, routes=app.routes,
    )  # fmt: skip
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for model in _NOT_ANSWERED_DIRECTLY:
        schema = model.model_json_schema(
            mode="serialization", ref_template="#/components/schemas/{model}"
        )
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    found["components"]["securitySchemes"] = _WAYS_IN
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            role = ACCESS[(method.upper(), path)]
            answers = operation["responses"]
            answers.pop("422", None)
            answers["default"] = {
                "description": "A problem document.",
                "content": {MEDIA_TYPE: {"schema": _PROBLEM}},
            }
            operation["x-pixsift-role"] = role or "anyone"
            operation["security"] = [] if role is None else [{way: []} for way in _WAYS_IN]
    return found
