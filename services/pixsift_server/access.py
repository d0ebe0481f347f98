"""Who may do what: one table of roles per endpoint, and the check of every request against it.

An endpoint that the table does not name cannot be called at all. A caller is known by a bearer
token, by a session cookie that holds one, by the header of a trusted proxy, or, on loopback and
without any of these, as the person at this machine.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from threading import Lock
from typing import Annotated, Final, Literal

from fastapi import Depends, Request

from pixsift.api import ROLES, Me, Role
from pixsift.operations.access import caller_of
from pixsift_server.parts import AccessRules, Limits, Parts, parts_of
from pixsift_server.problems import ProblemError

COOKIE: Final = "pixsift_session"
CSRF_HEADER: Final = "x-pixsift-request"
"""Any value: a page of another origin cannot send a header of its own without our consent."""
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

ACCESS: Final[Mapping[tuple[str, str], Role | None]] = {
    ("GET", "/v1"): None,
    ("GET", "/v1/health"): None,
    ("GET", "/v1/ready"): None,
    ("GET", "/v1/openapi.json"): None,
    ("POST", "/v1/session"): None,
    ("DELETE", "/v1/session"): None,
    ("GET", "/v1/words"): None,
    ("GET", "/v1/me"): "viewer",
    ("GET", "/v1/status"): "viewer",
    ("GET", "/v1/queues"): "viewer",
    ("GET", "/v1/collections"): "viewer",
    ("GET", "/v1/collections/{collection}"): "viewer",
    ("GET", "/v1/collections/{collection}/counters"): "viewer",
    ("GET", "/v1/collections/{collection}/images"): "viewer",
    ("POST", "/v1/collections/{collection}/images/query"): "viewer",
    ("GET", "/v1/collections/{collection}/attributes"): "viewer",
    ("GET", "/v1/collections/{collection}/facets/{attribute}"): "viewer",
    ("GET", "/v1/collections/{collection}/groups"): "viewer",
    ("GET", "/v1/collections/{collection}/groups/{object_id}"): "viewer",
    ("GET", "/v1/collections/{collection}/border"): "viewer",
    ("GET", "/v1/collections/{collection}/spread/{attribute}"): "viewer",
    ("GET", "/v1/collections/{collection}/histograms/{metric}"): "viewer",
    ("GET", "/v1/collections/{collection}/generations"): "viewer",
    ("GET", "/v1/collections/{collection}/turns"): "viewer",
    ("GET", "/v1/collections/{collection}/cameras"): "viewer",
    ("POST", "/v1/collections/{collection}/coverage"): "viewer",
    ("GET", "/v1/collections/{collection}/novelty"): "viewer",
    ("GET", "/v1/images"): "viewer",
    ("GET", "/v1/images/{object_id}"): "viewer",
    ("GET", "/v1/images/{object_id}/thumbnail"): "viewer",
    ("GET", "/v1/images/{object_id}/original"): "viewer",
    ("GET", "/v1/images/{object_id}/neighbors"): "viewer",
    ("POST", "/v1/search"): "viewer",
    ("POST", "/v1/search/upload"): "viewer",
    ("GET", "/v1/watches"): "viewer",
    ("POST", "/v1/watches"): "reviewer",
    ("POST", "/v1/watches/upload"): "reviewer",
    ("POST", "/v1/watches/try"): "viewer",
    ("GET", "/v1/watches/{watch_id}"): "viewer",
    ("DELETE", "/v1/watches/{watch_id}"): "reviewer",
    ("GET", "/v1/watches/{watch_id}/hits"): "viewer",
    ("POST", "/v1/watches/{watch_id}/past"): "reviewer",
    ("GET", "/v1/snapshots"): "viewer",
    ("GET", "/v1/snapshots/{snapshot}"): "viewer",
    ("GET", "/v1/snapshots/{snapshot}/diff/{other}"): "viewer",
    ("GET", "/v1/snapshots/{snapshot}/redactions"): "viewer",
    ("POST", "/v1/snapshots/{snapshot}/verify"): "reviewer",
    ("POST", "/v1/snapshots"): "reviewer",
    ("POST", "/v1/selections"): "reviewer",
    ("GET", "/v1/collections/{collection}/rulings"): "viewer",
    ("POST", "/v1/collections/{collection}/rulings"): "reviewer",
    ("POST", "/v1/collections/{collection}/rulings/best"): "reviewer",
    ("POST", "/v1/collections/{collection}/rulings/undo"): "reviewer",
    ("POST", "/v1/collections/{collection}/what-if"): "reviewer",
    ("POST", "/v1/collections/{collection}/audits"): "reviewer",
    ("POST", "/v1/collections/{collection}/take-back"): "operator",
    ("POST", "/v1/collections/{collection}/generations"): "operator",
    ("POST", "/v1/collections/{collection}/generations/undo"): "operator",
    ("POST", "/v1/redrive"): "operator",
    ("GET", "/v1/jobs"): "viewer",
    ("GET", "/v1/jobs/{job_id}"): "viewer",
    ("DELETE", "/v1/jobs/{job_id}"): "viewer",  # own jobs; those of others: operators
    ("GET", "/v1/events"): "viewer",
    ("GET", "/v1/undecided"): "viewer",
    ("GET", "/v1/dead-letters"): "operator",
    ("GET", "/v1/actions"): "viewer",
    ("GET", "/v1/tokens"): "operator",
    ("POST", "/v1/tokens"): "operator",
    ("DELETE", "/v1/tokens/{token_id}"): "operator",
}
"""Method and path -> the least role; None: anyone who reaches the server. A look into a dead-letter
queue counts as a receive of its messages, so it is for operators."""


@dataclass(slots=True)
class RateLimiter:
    """A token bucket per caller; forgets callers that have been quiet."""

    per_second: float
    burst: int
    _buckets: dict[str, tuple[float, float]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def admit(self, caller: str, now: float) -> bool:
        """Whether one more request of ``caller`` is within the limit."""
        with self._lock:
            left, at = self._buckets.get(caller, (float(self.burst), now))
            left = min(float(self.burst), left + (now - at) * self.per_second)
            self._buckets[caller] = (max(0.0, left - 1.0), now)
            if len(self._buckets) > 10_000:
                self._forget(now)
            return left >= 1.0

    def _forget(self, now: float) -> None:
        full_after = self.burst / self.per_second
        self._buckets = {c: (n, at) for c, (n, at) in self._buckets.items()
                         if now - at < full_after}  # fmt: skip


def limiter(limits: Limits) -> RateLimiter:
    """As the settings say."""
    return RateLimiter(limits.requests_per_second, limits.burst)


def authorize(request: Request) -> Me:
    """Who asks. Raises ProblemError: 401 unknown, 403 not allowed, 429 too often.

    A dependency of every endpoint; sync, as it may ask the ledger.
    """
    parts = parts_of(request)
    needed = needed_role(request)
    _check_origin(request)
    if needed is not None:
        # A ledger that was restored a moment ago may admit revoked tokens and show erased images.
        parts.obligations.ensure()
    # An open endpoint does not check the caller: a person with an expired session must be able to
    # sign in again.
    me = None if needed is None else identify(request, parts)
    who = me.actor if me is not None else _peer(request)
    if not request.app.state.limiter.admit(who, time.monotonic()):
        raise ProblemError(429, "too_many_requests", "too many requests: slow down",
                           headers={"Retry-After": "1"})  # fmt: skip
    if needed is None:
        return me or Me(actor="anyone", role="viewer", how="loopback")
    if me is None:
        raise ProblemError(
            401, "unauthorized", "this needs a token: send Authorization: Bearer TOKEN",
            headers={"WWW-Authenticate": "Bearer"},
        )  # fmt: skip
    if ROLES.index(me.role) < ROLES.index(needed):
        raise ProblemError(
            403, "forbidden", f"this needs the role {needed}; {me.actor} has the role {me.role}"
        )
    return me


Caller = Annotated[Me, Depends(authorize)]
"""The parameter of endpoints that record who asks."""


def needed_role(request: Request) -> Role | None:
    """The role for this endpoint. Raises ProblemError for one that the table does not name."""
    key = (request.method, request.scope["route"].path)
    if key not in ACCESS:
        raise ProblemError(403, "forbidden", "this endpoint is closed")
    return ACCESS[key]


def identify(request: Request, parts: Parts) -> Me | None:
    """Who asks; None for an unknown caller. Raises ProblemError for a token that is not valid."""
    presented, how = _presented(request)
    if presented is not None:
        caller = caller_of(parts.database, presented)
        if caller is None:
            raise ProblemError(
                401, "invalid_token", "the token is unknown, revoked or expired",
                headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
            )  # fmt: skip
        return Me(actor=caller.actor, role=caller.role, how=how)
    named = _named_by_proxy(request, parts.access)
    if named is not None:
        return Me(actor=named, role=parts.access.proxy_role, how="proxy")
    if parts.access.needs_identity or parts.access.proxy_header:
        return None
    return Me(actor="local", role="operator", how="loopback")


def _presented(request: Request) -> tuple[str | None, Literal["token", "session"]]:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return token.strip(), "token"
    cookie = request.cookies.get(COOKIE)
    if cookie and request.method not in _SAFE and CSRF_HEADER not in request.headers:
        raise ProblemError(
            403, "csrf", f"a change in a browser's session needs the header {CSRF_HEADER}"
        )
    return cookie or None, "session"


def _check_origin(request: Request) -> None:
    """A page of another origin cannot read anything (no CORS), and must not change anything."""
    origin = request.headers.get("origin")
    if origin is None or request.method in _SAFE:
        return
    host = request.headers.get("host", "")
    if origin.split("://", 1)[-1] != host:
        raise ProblemError(403, "foreign_origin", "changes are taken from our own pages only")


def _named_by_proxy(request: Request, rules: AccessRules) -> str | None:
    if not rules.proxy_header:
        return None
    try:
        peer = ip_address(_peer(request))
    except ValueError:  # a socket without an address
        return None
    if not any(peer in ip_network(network) for network in rules.proxy_networks):
        return None
    name = request.headers.get(rules.proxy_header, "").strip()
    return name[:200] if name.isprintable() and name else None


def _peer(request: Request) -> str:
    return request.client.host if request.client else ""
