"""The parts that endpoints work with: built once by ``wiring``, given to the app, used by the
routes."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from fastapi import Depends, Request

from pixsift.adapters.aws.s3 import S3Objects
from pixsift.adapters.aws.sqs import SqsQueue
from pixsift.adapters.postgres.database import Database
from pixsift.api import Role
from pixsift.errors import DependencyDownError
from pixsift.operations.events import Watcher
from pixsift.operations.find import Finder, QueryEmbedder
from pixsift.operations.obligations import Obligations
from pixsift.operations.status import Queues
from pixsift.ports import NeighborSearch
from pixsift_server.jobs import Jobs

QueueName = Literal["ingest", "ingest_dlq", "snapshot_requests", "snapshot_requests_dlq"]


@dataclass(frozen=True, slots=True)
class AccessRules:
    """The callers that the server accepts."""

    needs_identity: bool
    """False: a caller without a token is an operator (loopback only)."""
    host_names: frozenset[str]
    """Lower case, without a port; a request that names another host is refused."""
    proxy_header: str = ""
    proxy_networks: tuple[str, ...] = ()
    proxy_role: Role = "viewer"
    is_cookie_secure: bool = True


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a request."""

    body_bytes: int = 33_554_432
    requests_per_second: float = 50.0
    burst: int = 200
    threads: int = 16


@dataclass(frozen=True, slots=True)
class Parts:
    """Adapters and rules. Thread-safe, all of them."""

    database: Database
    objects: S3Objects
    queues: Queues
    derived_bucket: str
    curated_bucket: str
    access: AccessRules
    finder: Finder
    embedder: QueryEmbedder
    watcher: Watcher
    jobs: Jobs
    rejudging: NeighborSearch
    """For rulings: within ``search_memory_bytes`` it holds a collection's vectors from its first
    ruling on, so that the next one need not read them all; beyond, it asks the index."""
    obligations: Obligations
    """Met before anything is answered, also where the ledger was restored meanwhile."""
    limits: Limits = field(default_factory=Limits)

    def queue(self, name: QueueName) -> SqsQueue:
        """A queue. Raises DependencyDownError where the settings lead to none."""
        found = self.queues[name]
        if isinstance(found, str):
            raise DependencyDownError(found)
        return found


def parts_of(request: Request) -> Parts:
    """The parts of the app that serves this request."""
    found: Parts = request.app.state.parts
    return found


Of = Annotated[Parts, Depends(parts_of)]
"""The parameter by which an endpoint gets them."""
