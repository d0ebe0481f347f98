"""Attributes of images: import them, and list which there are."""

from collections.abc import Sequence

from pixsift.adapters.ledger import attributes
from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.postgres.database import Database
from pixsift.answers.images import AttributeOverview, ImportedAttributes
from pixsift.core.sidecar import SidecarRow


def import_attributes(
    database: Database,
    collection: str,
    rows: Sequence[SidecarRow],
    *,
    skip_unknown: bool = False,
    replace: bool = False,
    actor: str = "pixsift",
) -> ImportedAttributes:
    """Add the attributes of a sidecar; they override those from key, metadata and EXIF.

    Raises RequestError, before anything is written, when rows name unknown objects (unless
    ``skip_unknown``) or contradict one another.
    """
    found = Collections(database).collection(collection)
    return attributes.import_attributes(
        database, found, rows, skip_unknown=skip_unknown, replace=replace, actor=actor
    )


def list_attributes(database: Database, collection: str) -> list[AttributeOverview]:
    """Which attributes there are, and where they came from."""
    found = Collections(database).collection(collection)
    return [
        AttributeOverview(name=name, source=source, objects=objects, values=values)
        for name, source, objects, values in attributes.attribute_overview(
            database, found.collection_id
        )
    ]
