"""The whole story of an object: facts, decisions, representative, snapshots."""

from pixsift.adapters.ledger.story import Facts, StoryTeller
from pixsift.adapters.postgres.database import Database
from pixsift.core.identity import S3Uri
from pixsift.errors import NotFoundError, Remedy


def explain(database: Database, uri: S3Uri) -> list[Facts]:
    """One story per known version, newest first.

    Raises NotFoundError, with known keys like it, when the ledger knows no such object.
    """
    teller = StoryTeller(database)
    stories = teller.tell(uri.bucket, uri.key, uri.version_id)
    if not stories:
        similar = teller.similar_keys(uri.bucket, uri.key)
        hint = f"; known keys like it: {', '.join(similar)}" if similar else ""
        raise NotFoundError(
            f"the ledger knows no object s3://{uri.bucket}/{uri.key}: it has not arrived yet, or "
            f"no collection judges it{hint}",
            code="unknown_object", remedy=Remedy("list_collections"),
        )  # fmt: skip
    return stories
