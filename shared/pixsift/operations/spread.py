"""How the newest images of a collection spread: over an attribute's values, over a number."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, LiteralString

import numpy as np
from psycopg.rows import dict_row

from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.postgres.database import Database
from pixsift.api_spread import Bin, Histogram, Share, Spread
from pixsift.core.outcomes import OUTCOMES
from pixsift.core.quality import METRICS
from pixsift.errors import RequestError
from pixsift.sql import statements

_SQL = statements("spread")
_BINS = 24


def spread(database: Database, collection: str, attribute: str, *, newest: int) -> Spread:
    """The newest images by an attribute's value and outcome.

    Raises NotFoundError for an unknown collection.
    """
    rows = _rows(database, collection, "newest_by_value",
                 {"attribute": attribute, "newest": newest})  # fmt: skip
    found: dict[str | None, dict[str, int]] = defaultdict(dict)
    for row in rows:
        found[row["value"]][row["outcome"]] = row["images"]
    values = [Share(value=value, outcomes=outcomes) for value, outcomes in found.items()]
    return Spread(
        collection=collection, attribute=attribute, newest=sum(row["images"] for row in rows),
        values=sorted(values, key=lambda each: (-sum(each.outcomes.values()), each.value or "")),
    )  # fmt: skip


def histogram(
    database: Database, collection: str, metric: str, *, outcome: str | None, newest: int
) -> Histogram:
    """A quality metric, or ``distance``, of the newest images.

    Raises NotFoundError for an unknown collection, RequestError for an unknown metric or outcome.
    """
    if metric != "distance" and metric not in METRICS:
        raise RequestError(
            f"no metric {metric!r}: there are distance, {', '.join(METRICS)}", code="unknown_metric"
        )
    if outcome is not None and outcome not in OUTCOMES:
        raise RequestError(f"no outcome {outcome!r}: there are {', '.join(OUTCOMES)}")
    rows = _rows(database, collection, "newest_numbers",
                 {"metric": metric, "outcome": outcome, "newest": newest})  # fmt: skip
    values = np.array([row["value"] for row in rows if row["value"] is not None], np.float64)
    counts, edges = np.histogram(values[np.isfinite(values)], bins=_BINS)
    return Histogram(
        collection=collection, metric=metric, newest=len(rows),
        bins=[
            Bin(low=low, high=high, images=images)
            for low, high, images in zip(
                edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True
            )
        ] if values.size else [],
    )  # fmt: skip


def _rows(
    database: Database, collection: str, name: str, names: Mapping[str, Any]
) -> list[dict[str, Any]]:
    found = Collections(database).collection(collection)
    statement: LiteralString = _SQL[name]
    of = {"collection_id": found.collection_id, "generation": found.generation}
    with database.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement, {**of, **names}).fetchall()
