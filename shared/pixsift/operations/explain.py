"""The whole story of an object: facts, decisions, representative, snapshots."""

from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.ledger.story import StoryTeller
from pixsift.adapters.postgres.database import Database
from pixsift.answers.story import Story
from pixsift.core.files import folder_of
from pixsift.core.identity import FOLDER, S3Uri
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
        if uri.bucket.startswith(FOLDER):
            raise NotFoundError(
                f"the ledger knows no image {uri.key} of {folder_of(uri.bucket)}{hint}: it is new, "
                "or not an image",
                code="unknown_object", remedy=Remedy("curate_first"),
            )  # fmt: skip
        raise NotFoundError(
            f"the ledger knows no object {uri.location}: it has not arrived{hint}",
            code="unknown_object",
        )
    return [Story(**story) for story in stories]


def _check_judged(database: Database, uri: S3Uri) -> None:
    """Raises NotFoundError where no collection judges the object, and names the rule."""
    name = uri.location
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
