"""The whole story of an object: facts, decisions, representative, snapshots."""

from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.ledger.story import StoryTeller
from pixsift.adapters.postgres.database import Database
from pixsift.answers import Story
from pixsift.core.identity import S3Uri
from pixsift.core.sources import reach, why_ignored
from pixsift.errors import NotFoundError, Remedy


def explain(database: Database, uri: S3Uri) -> list[Story]:
    """One story per known version, newest first.

    Raises NotFoundError when the ledger knows no such object: which rule ignores it, that no
    collection judges it, or that it has not arrived, with known keys like it.
    """
    teller = StoryTeller(database)
    stories = teller.tell(uri.bucket, uri.key, uri.version_id)
    if not stories:
        similar = teller.similar_keys(uri.bucket, uri.key)
        hint = f"; known keys like it: {', '.join(similar)}" if similar else ""
        _check_judged(database, uri)
        raise NotFoundError(
            f"the ledger knows no object s3://{uri.bucket}/{uri.key}: it has not arrived{hint}",
            code="unknown_object",
        )
    return [Story(**story) for story in stories]


def _check_judged(database: Database, uri: S3Uri) -> None:
    """Raises NotFoundError where no collection judges the object, and names the rule."""
    name = f"s3://{uri.bucket}/{uri.key}"
    ignoring = []
    for collection in Collections(database).collections():
        verdict = reach(collection.sources, uri.bucket, uri.key)
        if verdict == "accepted":
            return
        if verdict == "ignored":
            rules = [r for r in collection.sources if r.reach(uri.bucket, uri.key) == "ignored"]
            ignoring.append(f"{why_ignored(rules, uri.key)} of collection {collection.name}")
    if ignoring:
        raise NotFoundError(
            f"{name} is ignored by the rule {'; '.join(ignoring)}", code="ignored_object"
        )
    raise NotFoundError(
        f"no collection judges {name}", code="unknown_object", remedy=Remedy("list_collections")
    )
