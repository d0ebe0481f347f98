"""Parses a message of the request queue: a request, or why it is not one."""

import json
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from pixsift.messages import SnapshotRequest, parse_snapshot_request, why_not_storable

_MAX_REQUEST_ID = 128


@dataclass(frozen=True, slots=True)
class InvalidRequest:
    """A message that is not a valid snapshot request."""

    reason: str
    """One line: which field, and what is wrong with it."""
    request_id: str | None
    """As far as it could be read."""
    body: dict[str, Any]
    """The parsed body, {} when it was not a JSON object."""


def parse_request(body: str) -> SnapshotRequest | InvalidRequest:
    """Never raises: every message is one of the two."""
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError):
        return InvalidRequest("the body is not JSON", None, {})
    if not isinstance(raw, dict):
        return InvalidRequest("the body is not a JSON object", None, {})
    obstacle = why_not_storable(raw)
    if obstacle is not None:
        return InvalidRequest(f"the body {obstacle}", None, {})
    try:
        return parse_snapshot_request(raw)
    except ValidationError as error:
        return InvalidRequest(_one_line(error), _request_id(raw), raw)


def _request_id(raw: dict[str, Any]) -> str | None:
    value = raw.get("request_id")
    return value if isinstance(value, str) and 0 < len(value) <= _MAX_REQUEST_ID else None


def _one_line(error: ValidationError) -> str:
    problems = [
        f"{'.'.join(str(part) for part in problem['loc']) or 'request'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False)
    ]
    return " ".join("; ".join(problems).split())[:1000]
