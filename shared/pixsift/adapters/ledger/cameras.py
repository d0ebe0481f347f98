"""The ledger's frames by camera, for ``pixsift.core.camera_health``."""

from datetime import datetime

from pixsift.adapters.postgres.database import Database
from pixsift.core.camera_health import Frame
from pixsift.sql import statements


def camera_frames(
    database: Database, collection: str, attribute: str, *, since: datetime | None = None
) -> list[Frame]:
    """Frames of ``collection`` whose attribute names a camera; the others come as camera ``""``."""
    names = {"collection": collection, "attribute": attribute, "since": since}
    with database.connection() as connection:
        rows = connection.execute(statements("cameras")["camera_frames"], names).fetchall()
    return [Frame(row[0], row[1], row[2], bytes(row[3]), row[4]) for row in rows]
