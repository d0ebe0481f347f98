"""The border between kept images and duplicates: the pairs that other limits would decide first."""

from collections.abc import Sequence

from pixsift.adapters.ledger.border import BorderRows, Facts, NearPair
from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.ledger.generation_rows import position
from pixsift.adapters.postgres.database import Database
from pixsift.api_border import BorderImage, BorderPair, BorderPairs
from pixsift.core.border import nearest_earlier
from pixsift.core.identity import ObjectVersion
from pixsift.core.second_look import LookRule, Place
from pixsift.operations.browse import thumbnail_path

_COMPARED = 2_000
"""Of the newest kept images: 2,000 x 2,000 distances take a fraction of a second."""


def border_pairs(database: Database, collection: str, *, limit: int) -> BorderPairs:
    """Pairs nearest to the limits of a collection's rule, at most about ``limit``.

    A third of them are near-duplicates, a third kept images that the second look saved, a third
    kept images just beyond epsilon. Raises NotFoundError for an unknown collection.
    """
    found = Collections(database).collection(collection)
    share = max(1, limit // 3)
    with database.connection() as connection:
        at = position(connection, found.collection_id)
        rows = BorderRows(connection, found.collection_id, at)
        duplicates = rows.duplicates(share // 2 + 1)
        kept = rows.near_misses(share)
        ids, halves = rows.newest_kept(_COMPARED)
        kept += _beyond(ids.tolist(), nearest_earlier(halves, 2 * share), kept)[:share]
        pairs = duplicates + kept
        involved = {i for pair in pairs for i in (pair.object_id, pair.representative_object_id)}
        looks, shown = rows.looks(involved), rows.shown(involved)
    rule = None if at.second_look is None else LookRule.from_json(at.second_look)
    factors, places = _factors(rule, pairs, looks), _places(rule, pairs, looks)
    return BorderPairs(
        collection=collection, at_seq=at.seq, generation=at.generation, epsilon=at.epsilon,
        has_change_test=rule is not None and rule.limits is not None,
        pairs=[
            BorderPair(
                image=_image(shown[pair.object_id]),
                kept=_image(shown[pair.representative_object_id]),
                outcome="duplicate" if number < len(duplicates) else "kept",
                distance=pair.distance, change=factor, place=place, place_in_kept=other,
            )
            for number, (pair, factor, (place, other)) in enumerate(
                zip(pairs, factors, places, strict=True)
            )
            if pair.object_id in shown and pair.representative_object_id in shown
        ],
        sought_among=len(ids),
    )  # fmt: skip


def _beyond(
    ids: Sequence[int], near: Sequence[tuple[int, int, float]], known: Sequence[NearPair]
) -> list[NearPair]:
    """Pairs of kept images that are not among the known ones."""
    there = {pair.object_id for pair in known}
    return [
        NearPair(ids[later], ids[earlier], distance)
        for later, earlier, distance in near
        if ids[later] not in there
    ]


def _factors(
    rule: LookRule | None, pairs: Sequence[NearPair], looks: dict[int, bytes]
) -> list[float | None]:
    if rule is None:
        return [0.0] * len(pairs)
    asked = [
        (pair.distance, looks.get(pair.object_id, b""),
         looks.get(pair.representative_object_id, b""))
        for pair in pairs
    ]  # fmt: skip
    return rule.change_factors(asked)


def _places(
    rule: LookRule | None, pairs: Sequence[NearPair], looks: dict[int, bytes]
) -> list[tuple[Place | None, Place | None]]:
    if rule is None:
        return [(None, None)] * len(pairs)
    found = rule.places([
        (looks.get(pair.object_id, b""), looks.get(pair.representative_object_id, b""))
        for pair in pairs
    ])  # fmt: skip
    return [places or (None, None) for places in found]


def _image(row: Facts) -> BorderImage:
    return BorderImage(
        object_id=row["object_id"],
        uri=ObjectVersion(row["bucket"], row["key"], row["version_id"]).uri,
        thumbnail=thumbnail_path(row["object_id"]) if row["has_thumbnail"] else None,
    )
