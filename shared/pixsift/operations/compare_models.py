"""A model in the shadow of the one in use: the same images judged by both, and what differs.

Everything is embedded and decided next to the generation in use, which stays in use. To
switch afterwards, ``reembed`` fetches nothing twice; consumers of the new space (SNS fan-out, one
queue per space) continue to embed what arrives meanwhile.
"""

from collections.abc import Mapping, Sequence

from pixsift.adapters.ledger.collections import Collections
from pixsift.adapters.ledger.comparisons import Comparisons, Disagreement
from pixsift.adapters.ledger.generation_build import ReportCount, Rule
from pixsift.adapters.ledger.generations import NOTICE_SECONDS, Generations
from pixsift.adapters.ledger.pool import object_uris
from pixsift.answers.decisions import ModelComparison, ModelDisagreement, ModelSide
from pixsift.core import presets
from pixsift.core.calibration import vouches_for
from pixsift.operations.images import uris_and_thumbnails
from pixsift.operations.reembed import Parts, Wanted, filling, planned
from pixsift.ports import EmbeddingSpace

EXAMPLES = 24
"""Images of each kind of disagreement."""


def compare_models(
    parts: Parts,
    name: str,
    wanted: Wanted,
    *,
    notice_seconds: float = NOTICE_SECONDS,
    take_over: bool = False,
    examples: int = EXAMPLES,
    progress: ReportCount = lambda what, done, of: None,
    actor: str = "pixsift",
) -> ModelComparison:
    """Embed and judge a collection in the embedder's space, next to what is in use, and compare.

    examples: at most so many images of each kind of disagreement. Raises as ``reembed``.
    """
    collection, rule, target = planned(parts, name, wanted)
    registry = Collections(parts.database, actor=actor)
    registry.ensure_space(parts.embedder.space)
    beside = Generations(parts.database, actor=actor).build_beside(
        collection, rule, target,
        prepare=filling(parts, collection, target.space_id, progress),
        notice_seconds=notice_seconds, take_over=take_over, progress=progress,
    )  # fmt: skip
    rows = Comparisons(
        parts.database, collection, generation=beside.in_use, other=beside.generation,
        seq=beside.seq,
    )  # fmt: skip
    shares = rows.shares()
    of = {(share.was, share.becomes): share.objects for share in shares}
    agreeing = sum(count for (was, becomes), count in of.items() if was == becomes)
    newly_duplicate, newly_kept = of.get(("kept", "duplicate"), 0), of.get(("duplicate", "kept"), 0)
    duplicates = rows.disagreements("kept", "duplicate", most=examples)
    kept = rows.disagreements("duplicate", "kept", most=examples)
    uris = object_uris(parts.database, _ids([*duplicates, *kept]))
    look = collection.second_look
    return ModelComparison(
        collection=collection.name,
        at_seq=beside.seq,
        now=_side(
            registry.space(collection.space_id) or parts.embedder.space,
            Rule(
                collection.epsilon, None if look is None else dict(look), collection.keep_best
            ),
            beside.in_use,
            calibrated=vouches_for(collection.calibration, collection.epsilon, look),
            kept=sum(n for (was, _), n in of.items() if was == "kept"),
            duplicate=sum(n for (was, _), n in of.items() if was == "duplicate"),
        ),
        other=_side(
            parts.embedder.space, rule, beside.generation,
            calibrated=target.calibration is not None,
            kept=sum(n for (_, becomes), n in of.items() if becomes == "kept"),
            duplicate=sum(n for (_, becomes), n in of.items() if becomes == "duplicate"),
        ),
        agreeing=agreeing,
        other_representative=sum(share.other_representative for share in shares),
        newly_duplicate=newly_duplicate,
        newly_kept=newly_kept,
        otherwise=sum(of.values()) - agreeing - newly_duplicate - newly_kept,
        would_be_duplicates=[_disagreement(row, uris) for row in duplicates],
        would_be_kept=[_disagreement(row, uris) for row in kept],
    )  # fmt: skip


def pictures_of(
    parts: Parts, derived_bucket: str, found: ModelComparison
) -> Mapping[int, bytes | None]:
    """The WebP thumbnail of every image that a comparison shows, by object id."""
    shown = [*found.would_be_duplicates, *found.would_be_kept]
    ids = {row.object_id for row in shown}
    ids |= {row.representative_id for row in shown if row.representative_id is not None}
    pictures = uris_and_thumbnails(parts.database, parts.objects, derived_bucket, sorted(ids))
    return {object_id: thumbnail for object_id, (_, thumbnail) in pictures.items()}


def _side(
    space: EmbeddingSpace, rule: Rule, generation: int, *, calibrated: bool, kept: int,
    duplicate: int,
) -> ModelSide:  # fmt: skip
    return ModelSide(
        generation=generation, model=space.model, recipe_id=space.recipe_id,
        space_id=space.space_id, dimension=space.dimension, epsilon=rule.epsilon,
        preset=presets.preset_of(rule.epsilon, rule.second_look), calibrated=calibrated,
        kept=kept, duplicate=duplicate,
    )  # fmt: skip


def _disagreement(row: Disagreement, uris: Mapping[int, str]) -> ModelDisagreement:
    return ModelDisagreement(
        object_id=row.object_id, uri=uris[row.object_id], representative_id=row.representative,
        representative=None if row.representative is None else uris[row.representative],
        distance=row.distance, reason=row.reason,
    )  # fmt: skip


def _ids(rows: Sequence[Disagreement]) -> list[int]:
    ids = {row.object_id for row in rows}
    return sorted(ids | {row.representative for row in rows if row.representative is not None})
