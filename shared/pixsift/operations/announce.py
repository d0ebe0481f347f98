"""Hits of watches on the event bus: at least once, each with an id that stays the same.

The hits themselves are the outbox: they are due from the transaction that decided their image. A
process claims some, sends them, and records that they were accepted. If it dies, another process
sends its claimed hits a minute later, possibly a second time.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pixsift.adapters.ledger.watch_rows import WatchRows
from pixsift.adapters.postgres.database import Database
from pixsift.core.identity import ObjectVersion

_AT_ONCE = 10
"""Entries of one PutEvents:
https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html"""
_CLAIM_SECONDS = 60.0
_MOST = 500
"""Hits of one call: the caller looks at its stop signal in between."""
KIND = "WatchMatched"
Send = Callable[[str, Sequence[Mapping[str, Any]]], None]
"""Takes a detail type and details; raises PixsiftError where the bus did not take all of them."""


def announce_hits(database: Database, send: Send) -> int:
    """Announce the hits that are due; returns how many. Raises what ``send`` raises."""
    rows, sent = WatchRows(database), 0
    while sent < _MOST:
        claimed = rows.claim(limit=_AT_ONCE, seconds=_CLAIM_SECONDS)
        if not claimed:
            break
        send(KIND, [detail_of(row) for row in claimed])
        rows.announced([row["hit_id"] for row in claimed])
        sent += len(claimed)
    return sent


def detail_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The detail of an event. Its id stays the same when it is sent again."""
    version = ObjectVersion(row["bucket"], row["key"], row["version_id"])
    return {
        "id": f"{row['watch_id']}/{row['object_id']}", "hit_id": row["hit_id"],
        "watch_id": row["watch_id"], "watch": row["watch"], "collection": row["collection"],
        "image": version.uri, "object_id": row["object_id"], "outcome": row["outcome"],
        "distance": row["distance"], "mode": row["mode"], "seq": row["seq"],
        "at": row["at"].isoformat(),
    }  # fmt: skip
